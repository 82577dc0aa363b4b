"""The walk against exact personalised PageRank and the paper's plain walk, and what a query may ask of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.benchmarks.pixie_stops import early_stop
from tests.training.models.graphs import exact_visits, naive_walk, random_graph
from training.models.pin_board_graph import PinBoardGraph, from_edges, label
from training.models.pin_board_overlay import FreshSaves, GraphView
from training.models.pixie import Pixie, PixieConfig, Query, recommend
from training.models.pixie.query import Bias, bias_for, pin_query

STEPS = 400_000


def shares(graph: PinBoardGraph | GraphView, pin: int, *, seed: int = 1, **changes: object) -> np.ndarray:
    """Share of visits of every pin of a walk from the pin with index `pin`."""
    pixie = Pixie(graph, PixieConfig(**{"steps": STEPS, "stop_pins": 0, **changes}))
    visits = pixie.visits(Query.of(graph.ids_of(np.array([pin]))), seed=seed)
    out = np.zeros(graph.pins)
    out[visits.pins] = visits.scores
    assert out.sum() == visits.steps  # every step visits one pin, and no visit is lost
    return out / out.sum()


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Total variation: the largest difference in the chance of any set of pins."""
    return float(np.abs(a - b).sum() / 2)


@pytest.mark.parametrize("restart", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("walkers", [1, 32])
def test_visits_are_personalised_pagerank(restart: float, walkers: int) -> None:
    graph = random_graph(1)
    for pin in (0, graph.pins // 2, graph.pins - 1):
        exact = exact_visits(graph, pin, restart)
        # n independent steps stray by less than sqrt(pins / (2 pi n)); steps of one walk are not
        noise = np.sqrt(graph.pins / (2 * np.pi * STEPS * restart))
        assert distance(shares(graph, pin, restart=restart, walkers=walkers), exact) < 2 * noise


def test_the_plain_walk_agrees() -> None:
    graph = random_graph(2)
    plain = naive_walk(graph, 3, 30_000, 0.3, seed=5) / 30_000
    assert distance(shares(graph, 3, restart=0.3), plain) < 0.06
    assert distance(plain, exact_visits(graph, 3, 0.3)) < 0.06


def test_bytes_and_hash_count_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = random_graph(3)
    query = Query.of(graph.pin_ids[:5], np.arange(1.0, 6.0))
    in_bytes = Pixie(graph).recommend(query, 30, seed=4)
    monkeypatch.setattr(recommend, "BYTES_PER_SLOT", 0)
    hashed = Pixie(graph).recommend(query, 30, seed=4)
    assert np.array_equal(in_bytes.pin_ids, hashed.pin_ids)
    assert np.array_equal(in_bytes.scores, hashed.scores)


def test_a_byte_that_fills_up_loses_no_visit() -> None:
    graph = from_edges(np.array([1, 2, 3]), np.array([1, 1, 1]))
    found = shares(graph, 0, restart=1.0)
    assert np.allclose(found, 1 / 3, atol=0.01)
    pixie = Pixie(graph, PixieConfig(steps=100_000, stop_pins=0))
    for seed in range(5):  # the room is clean again after each walk
        assert pixie.visits(pin_query(1), seed=seed).scores.sum() == 100_000


def test_answers_depend_on_the_seed_alone() -> None:
    graph = random_graph(5)
    pixie = Pixie(graph)
    pins, weights = graph.pin_ids[:6], np.array([1.0, 2, 3, 4, 5, 6])
    first = pixie.recommend(Query.of(pins, weights), 20, seed=3)
    again = Pixie(graph).recommend(Query.of(pins[::-1], weights[::-1]), 20, seed=3)
    other = pixie.recommend(Query.of(pins, weights), 20, seed=4)
    assert np.array_equal(first.pin_ids, again.pin_ids)
    assert np.array_equal(first.scores, again.scores)
    assert not np.array_equal(first.scores, other.scores)


def test_threads_share_a_walker() -> None:
    graph = random_graph(6)
    pixie = Pixie(graph)
    queries = [Query.of(graph.pin_ids[i : i + 4]) for i in range(20)]
    alone = [pixie.recommend(q, 10, seed=i) for i, q in enumerate(queries)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: pixie.recommend(queries[i], 10, seed=i), range(20)))
    for a, b in zip(alone, together, strict=True):
        assert np.array_equal(a.pin_ids, b.pin_ids)
        assert np.array_equal(a.scores, b.scores)


def test_parts_that_are_not_joined_are_never_reached() -> None:
    rng = np.random.default_rng(0)
    pins = np.concatenate([rng.integers(1, 20, 80), rng.integers(101, 120, 80)])
    boards = np.concatenate([rng.integers(1, 9, 80), rng.integers(11, 19, 80)])
    graph = from_edges(pins, boards)
    answer = Pixie(graph).recommend(pin_query(int(pins[0])), 100)
    assert len(answer) and (answer.pin_ids < 100).all()


def test_early_stop_ends_when_enough_pins_have_enough_visits() -> None:
    graph = random_graph(7, pins=400, boards=100, edges=4_000)
    long = Pixie(graph, PixieConfig(stop_pins=0)).visits(pin_query(int(graph.pin_ids[0])), seed=1)
    config = PixieConfig(stop_pins=50, stop_visits=6)
    short = Pixie(graph, config).visits(pin_query(int(graph.pin_ids[0])), seed=1)
    assert long.steps == 100_000
    assert short.steps < 20_000
    enough = (short.scores >= 6).sum()
    assert 50 <= enough < 50 + config.walkers  # it is looked at once a round
    before = Pixie(graph, PixieConfig(stop_pins=0, steps=short.steps - config.walkers)).visits(
        pin_query(int(graph.pin_ids[0])), seed=1
    )
    assert (before.scores >= 6).sum() < 50


def test_what_an_early_stop_keeps_is_measured_against_the_long_walk() -> None:
    graph = random_graph(7, pins=400, boards=100, edges=4_000)
    never = early_stop(graph, PixieConfig(steps=2_000, stop_pins=0), queries=10)
    assert (never.overlap, never.error, never.steps) == (1.0, 0.0, 1.0)
    assert never.other == never.repeat < 1
    soon = early_stop(graph, PixieConfig(steps=2_000, stop_pins=5, stop_visits=3), queries=10)
    assert soon.overlap < 0.9 and soon.steps < 0.5
    assert soon.repeat == never.repeat > soon.other


def test_each_query_pin_has_its_own_early_stop() -> None:
    """With one counter for all, the second pin's walk would end at its first round."""
    graph = random_graph(8, pins=400, boards=100, edges=4_000)
    degree = graph.degrees()
    alike = graph.pin_ids[np.flatnonzero(degree == np.median(degree))[:2]]
    pixie = Pixie(graph, PixieConfig(stop_pins=20, stop_visits=6))
    both = pixie.visits(Query.of(alike), seed=1).steps
    alone = [pixie.visits(pin_query(int(p)), seed=1).steps for p in alike]
    assert both == sum(alone)


def test_the_booster_adds_square_roots() -> None:
    graph = random_graph(9)
    pins = graph.pin_ids[[4, 9, 17]]
    config = PixieConfig(steps=30_000, stop_pins=0)
    boosted = Pixie(graph, config).visits(Query.of(pins), seed=2)
    plain = Pixie(graph, config.model_copy(update={"boost": False})).visits(Query.of(pins), seed=2)
    sums, roots = np.zeros(graph.pins), np.zeros(graph.pins)
    degree = graph.degrees(graph.index_of(pins))
    spread = degree * (np.log(graph.max_pin_degree) - np.log(degree))
    for pin, share in zip(pins, spread / spread.sum(), strict=True):
        alone = PixieConfig(steps=max(round(30_000 * share), 1), stop_pins=0)
        one = Pixie(graph, alone).visits(Query.of(np.array([pin])), seed=2)
        sums[one.pins] += one.scores
        roots[one.pins] += np.sqrt(one.scores)
    assert np.allclose(plain.scores, sums[plain.pins])
    assert np.allclose(boosted.scores, roots[boosted.pins] ** 2, rtol=1e-5)
    assert np.count_nonzero(sums) == len(plain.pins) == len(boosted.pins)


def test_the_discount_divides_by_degree() -> None:
    graph = random_graph(10)
    query = pin_query(int(graph.pin_ids[5]))
    plain = Pixie(graph).visits(query, seed=1)
    less = Pixie(graph, PixieConfig(popularity_discount=0.5)).visits(query, seed=1)
    assert np.allclose(less.scores, plain.scores / np.sqrt(graph.degrees(plain.pins)), rtol=1e-5)


def test_query_and_excluded_pins_are_not_answered() -> None:
    graph = random_graph(11)
    everything = Pixie(graph).recommend(Query.of(graph.pin_ids[:2]), 10_000)
    assert not np.isin(graph.pin_ids[:2], everything.pin_ids).any()
    barred = everything.pin_ids[:7]
    rest = Pixie(graph).recommend(Query.of(graph.pin_ids[:2], exclude=barred), 10_000)
    assert rest.pin_ids.tolist() == everything.pin_ids[7:].tolist()
    top = Pixie(graph).recommend(Query.of(graph.pin_ids[:2], exclude=barred), 5)
    assert top.pin_ids.tolist() == rest.pin_ids[:5].tolist()


def test_ties_go_to_the_lower_pin() -> None:
    graph = from_edges(np.array([5, 9, 3, 7]), np.array([1, 1, 1, 1]))
    visits = {3: 0.0, 7: 0.0, 9: 0.0}
    answer = Pixie(graph, PixieConfig(steps=4, restart=1.0)).recommend(pin_query(5), 3, seed=11)
    for pin, score in zip(answer.pin_ids.tolist(), answer.scores.tolist(), strict=True):
        visits[pin] = score
    ranked = sorted((p for p in visits if visits[p] > 0), key=lambda p: (-visits[p], p))
    assert answer.pin_ids.tolist() == ranked


def test_nothing_to_walk_from_is_an_empty_answer() -> None:
    graph = from_edges(np.array([1, 2]), np.array([1, 1]), pin_ids=np.array([1, 2, 3]))
    pixie = Pixie(graph)
    for query, unknown in (
        (Query.of([]), 0),
        (pin_query(99), 1),
        (pin_query(3), 1),
        (Query.of([3, 98, 99]), 3),
    ):
        answer = pixie.recommend(query, 5)
        assert (len(answer), answer.steps, answer.unknown) == (0, 0, unknown)
    mixed = pixie.recommend(Query.of([1, 99]), 5)
    assert (mixed.pin_ids.tolist(), mixed.unknown) == ([2], 1)


def test_a_board_of_one_pin_leads_nowhere() -> None:
    graph = from_edges(np.array([1]), np.array([1]))
    assert len(Pixie(graph).recommend(pin_query(1), 5)) == 0


def test_fewer_than_one_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Pixie(random_graph()).recommend(pin_query(8), 0)


def test_a_hub_is_walked_like_any_pin() -> None:
    """A pin on 100,000 boards and a board of 100,000 pins."""
    n = 100_000
    pins = np.concatenate([np.ones(n, np.int64), np.arange(2, n + 2)])
    boards = np.concatenate([np.arange(1, n + 1), np.ones(n, np.int64)])
    graph = from_edges(pins, boards)
    answer = Pixie(graph).recommend(Query.of([1, 5]), 100)
    assert graph.max_pin_degree == n
    assert len(answer) == 100
    alone = Pixie(graph, PixieConfig(restart=1.0)).visits(pin_query(5))
    assert alone.steps > 0 and alone.unknown == 0


def labelled_graph() -> PinBoardGraph:
    """Every second pin and board speaks language 1, the others 2; edges are random."""
    rng = np.random.default_rng(12)
    ids = np.arange(1, 201), np.arange(1, 101)
    return from_edges(
        rng.integers(1, 201, 4_000),
        rng.integers(1, 101, 4_000),
        pin_ids=ids[0],
        board_ids=ids[1],
        pin_labels=label(1 + ids[0] % 2, ids[0] % 5),
        board_labels=label(1 + ids[1] % 2, ids[1] % 5),
        info=None,
    )


def test_a_bias_keeps_to_its_label_by_its_strength() -> None:
    graph = labelled_graph()
    for strength, low, high in ((0.0, 0.4, 0.6), (0.5, 0.65, 0.85), (1.0, 1.0, 1.0)):
        pixie = Pixie(graph, PixieConfig(stop_pins=0, bias_strength=strength))
        visits = pixie.visits(pin_query(1), bias=Bias(256, 512))
        share = visits.scores[graph.pin_labels[visits.pins] // 256 == 1].sum() / visits.scores.sum()
        assert low <= share <= high, (strength, share)


def test_a_bias_with_no_edge_to_prefer_takes_any() -> None:
    graph = labelled_graph()
    unbiased = Pixie(graph, PixieConfig(stop_pins=0, restart=0.5)).visits(pin_query(1))
    nowhere = Pixie(graph, PixieConfig(stop_pins=0, restart=0.5, bias_strength=1.0)).visits(
        pin_query(1), bias=Bias(9 * 256, 10 * 256)
    )
    a, b = np.zeros(graph.pins), np.zeros(graph.pins)
    a[unbiased.pins], b[nowhere.pins] = unbiased.scores, nowhere.scores
    assert distance(a / a.sum(), b / b.sum()) < 0.05


def test_a_bias_is_uniform_within_its_label() -> None:
    graph = labelled_graph()
    own = graph.boards_of(int(graph.index_of([2])[0]))
    wanted = int(graph.board_labels[own[0]])
    visits = Pixie(graph, PixieConfig(steps=STEPS, stop_pins=0, restart=1.0, bias_strength=1.0)).visits(
        pin_query(2), bias=Bias(wanted, wanted + 1)
    )
    expected = np.zeros(graph.pins)
    boards = [b for b in own if graph.board_labels[b] == wanted]
    for board in boards:
        row = [p for p in graph.pins_of(board) if graph.pin_labels[p] == wanted]
        expected[row] += 1 / len(row) / len(boards)
    found = np.zeros(graph.pins)
    found[visits.pins] = visits.scores / visits.scores.sum()
    assert distance(found, expected) < 0.02


def test_a_bias_on_a_graph_without_labels_changes_nothing() -> None:
    graph = random_graph(13)
    query = Query.of(graph.pin_ids[:2])
    assert np.array_equal(
        Pixie(graph).recommend(query, 9, bias=Bias(1, 2)).scores, Pixie(graph).recommend(query, 9).scores
    )
    assert bias_for(graph, language="en") is None


def test_a_view_walks_like_the_graph_of_all_its_edges() -> None:
    base = random_graph(14)
    fresh = FreshSaves(base)
    rng = np.random.default_rng(1)
    pins = np.concatenate([rng.choice(base.pin_ids, 60), rng.integers(9_000, 9_020, 60)])
    boards = np.concatenate([rng.choice(base.board_ids, 100), rng.integers(9_000, 9_005, 20)])
    fresh.add(pins, rng.permutation(boards), np.zeros(120))
    view = fresh.view()
    for pin in (0, base.pins - 1, base.pins + 3):
        exact = exact_visits(view, pin, 0.4)
        assert distance(shares(view, pin, restart=0.4), exact) < 0.02


def test_a_pin_saved_a_moment_ago_is_reached_and_walked_from() -> None:
    base = random_graph(15)
    fresh = FreshSaves(base)
    pixie = Pixie(base)
    board = int(base.boards_of(10)[0])
    neighbour = int(base.pin_ids[10])
    assert 77_777 not in pixie.recommend(pin_query(neighbour), 10_000).pin_ids
    fresh.add(np.array([77_777]), base.board_ids[[board]], np.array([1]))
    now = pixie.on(fresh.view())
    assert 77_777 in now.recommend(pin_query(neighbour), 10_000).pin_ids
    related = now.recommend(pin_query(77_777), 10_000)
    assert set(base.ids_of(base.pins_of(board)).tolist()) <= set(related.pin_ids.tolist())


def test_many_fresh_pins_fit_the_counter() -> None:
    base = random_graph(16)
    fresh = FreshSaves(base)
    pixie = Pixie(base)
    pixie.recommend(pin_query(int(base.pin_ids[0])), 5)  # a room for the base
    new = np.arange(100_000, 100_000 + recommend.SPARE_PINS + 500)
    fresh.add(new, np.full(len(new), base.board_ids[0]), np.zeros(len(new)))
    visits = pixie.on(fresh.view()).visits(pin_query(int(new[-1])))
    assert visits.scores.sum() == visits.steps
