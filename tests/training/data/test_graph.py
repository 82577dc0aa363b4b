"""The graph of a lake against pandas, and the pruning against hand-made cases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.data.lakes import write_lake
from tests.training.data.worlds import tiny_world
from training.data.graph import Context, GraphConfig, PinVectors, build_graph
from training.data.graph_pruning import board_entropy, kept_edges
from training.models.pin_board_graph import GraphError, PinBoardGraph, from_edges
from training.models.pixie.query import bias_for
from validation.lake import Lake
from validation.tables import DEFAULT_VOCABULARY

START = datetime(2026, 3, 1, tzinfo=UTC)
SAVE, HIDE = DEFAULT_VOCABULARY.code("save"), DEFAULT_VOCABULARY.code("hide")
WHOLE = GraphConfig(delta=None, diverse_share=0)


def small_lake(root: Path, actions: list[tuple], pins: int = 9, **tables: pd.DataFrame) -> Lake:
    """`actions` are (user, pin, action, minutes after START, board or None)."""
    frame = pd.DataFrame(actions, columns=["user_id", "pin_id", "action", "minute", "board_id"])
    frame["timestamp"] = [START + timedelta(minutes=int(m)) for m in frame.pop("minute")]
    frame["event_id"] = np.arange(1, len(frame) + 1)
    frame["board_id"] = frame["board_id"].astype("Int64")
    ids = np.arange(1, pins + 1)
    content = pd.DataFrame({"pin_id": ids, "created_at": START, "topics": [[10 + int(i) % 3] for i in ids]})
    return write_lake(root, {"pins": content, "actions": frame, **tables})


def edges(graph: PinBoardGraph) -> set[tuple[int, int]]:
    pins, boards = graph.edge_list()
    return set(zip(graph.pin_ids[pins].tolist(), graph.board_ids[boards].tolist(), strict=True))


def test_positive_actions_with_a_board_are_edges(tmp_path: Path) -> None:
    lake = small_lake(
        tmp_path,
        [(1, 1, SAVE, 0, 5), (1, 2, SAVE, 1, 5), (1, 2, SAVE, 2, 5), (2, 2, HIDE, 3, 6), (2, 3, SAVE, 4, None)],
    )
    graph = build_graph(lake, WHOLE)
    assert edges(graph) == {(1, 5), (2, 5)}
    assert graph.info.context == "board"
    assert graph.pins == 9  # pins without edges are nodes
    assert graph.degrees(graph.index_of([3])).tolist() == [0]
    assert graph.info.notes[0].startswith("3 positive actions on 1 boards, 2 distinct edges")


def test_a_world_gives_the_edges_that_pandas_finds() -> None:
    world = tiny_world()
    graph = build_graph(world.lake, WHOLE)
    positive = [
        world.contract.vocabulary.code(a)
        for a, p in world.contract.vocabulary.actions.items()
        if p == "positive"
    ]
    saved = world.frames["actions"]
    saved = saved[saved["action"].isin(positive) & saved["board_id"].notna()]
    assert edges(graph) == set(zip(saved["pin_id"], saved["board_id"].astype(int), strict=True))
    assert graph.pins == len(world.frames["pins"])


def test_each_context_takes_the_place_of_boards(tmp_path: Path) -> None:
    lake = small_lake(
        tmp_path,
        [(1, 1, SAVE, 0, None), (1, 2, SAVE, 20, None), (2, 2, SAVE, 25, None), (1, 3, SAVE, 60, None)],
    )
    auto = build_graph(lake, WHOLE)
    assert auto.info.context == "session"
    sessions = {frozenset(auto.ids_of(auto.pins_of(b)).tolist()) for b in range(auto.boards)}
    assert sessions == {frozenset({1, 2}), frozenset({2}), frozenset({3})}
    assert auto.boards == 3
    users = build_graph(lake, WHOLE.model_copy(update={"context": Context.USER}))
    assert edges(users) == {(1, 1), (2, 1), (3, 1), (2, 2)}
    for missing in (Context.BOARD, Context.REQUEST):
        with pytest.raises(GraphError, match="declare session or user"):
            build_graph(lake, GraphConfig(context=missing))


def test_sessions_run_over_batches_and_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a plain loop, with batches of three rows and sessions over midnight."""
    rng = np.random.default_rng(0)
    minutes = np.sort(rng.integers(0, 4_000, 400))
    actions = [(int(rng.integers(1, 8)), int(rng.integers(1, 10)), SAVE, int(m), None) for m in minutes]
    lake = small_lake(tmp_path, actions)
    monkeypatch.setattr("training.data.graph.BATCH_ROWS", 3)
    graph = build_graph(lake, WHOLE.model_copy(update={"session_gap_minutes": 45}))
    last: dict[int, int] = {}
    sessions: dict[int, list[set[int]]] = {}
    for user, pin, _, minute, _ in actions:
        if user not in last or minute - last[user] > 45:
            sessions.setdefault(user, []).append(set())
        sessions[user][-1].add(pin)
        last[user] = minute
    expected = sorted(tuple(sorted(s)) for of_user in sessions.values() for s in of_user)
    found = sorted(tuple(sorted(graph.ids_of(graph.pins_of(b)).tolist())) for b in range(graph.boards))
    assert found == expected


def test_nothing_after_as_of_is_seen(tmp_path: Path) -> None:
    lake = small_lake(tmp_path, [(1, 1, SAVE, 0, 5), (1, 2, SAVE, 10, 5), (1, 3, SAVE, 2_000, 5)])
    graph = build_graph(lake, WHOLE, as_of=START + timedelta(minutes=10))
    assert edges(graph) == {(1, 5)}
    assert graph.info.as_of_ms == int((START + timedelta(minutes=10)).timestamp() * 1000)
    with pytest.raises(GraphError, match="no pin created before"):
        build_graph(lake, WHOLE, as_of=START)


def test_a_lake_without_positive_actions_is_a_graph_without_edges(tmp_path: Path) -> None:
    graph = build_graph(small_lake(tmp_path, [(1, 1, HIDE, 0, 5)]))
    assert (graph.pins, graph.edges) == (9, 0)


def test_labels_come_from_roots_and_owners(tmp_path: Path) -> None:
    topics = pd.DataFrame({"topic_id": [1, 10, 11, 12], "name": list("abcd"), "parent_id": [None, 1, 1, None]})
    users = pd.DataFrame({"user_id": [1, 2], "language": ["en", "pt"]})
    boards = pd.DataFrame({"board_id": [5, 6], "user_id": [1, 2]})
    saves = [(1, 1, SAVE, 0, 5), (1, 2, SAVE, 1, 5), (1, 3, SAVE, 2, 5), (2, 3, SAVE, 3, 6), (2, 1, SAVE, 4, 6)]
    saves += [(1, p, SAVE, 5, 5) for p in (4, 7)]
    graph = build_graph(small_lake(tmp_path, saves, topics=topics, users=users, boards=boards), WHOLE)
    assert graph.info.topics == (1, 12)  # leaves 10 and 11 are root 1, which has more pins
    assert set(graph.info.languages) == {"en", "pt"}
    english = bias_for(graph, language="en")
    assert english is not None
    board = int(graph.board_index_of([5])[0])
    assert english.low <= graph.board_labels[board] < english.high
    assert graph.board_labels[board] % 256 == 1
    assert (
        graph.pin_labels[graph.index_of([2])[0]] == graph.board_labels[board] - 1 + 2
    )  # pin 2: topic 12, on 5 only


def test_entropy_of_a_board_is_that_of_its_topics() -> None:
    from scipy import sparse

    graph = from_edges(np.array([1, 2, 3, 4, 1]), np.array([1, 1, 1, 1, 2]))
    shares = {1: [1, 0], 2: [1, 0], 3: [0, 1], 4: [0.5, 0.5]}
    rows = sparse.csr_matrix(np.array([shares[p] for p in graph.pin_ids.tolist()], np.float32))
    found = board_entropy(graph, rows)[graph.board_index_of([1, 2])]
    mixed = np.array([2.5, 1.5]) / 4
    assert np.allclose(found, [-(mixed * np.log(mixed)).sum(), 0.0])


def test_a_pin_keeps_the_boards_most_like_it() -> None:
    """Pin 1 is on ten boards of its own kind and ten of another; degree ^ 0.77 = 10."""
    graph_edges = [(1, b) for b in range(1, 21)]
    graph_edges += [(p, b) for p in range(2, 12) for b in range(1, 11)]  # pins 2..11 like pin 1
    graph_edges += [(p, b) for p in range(12, 22) for b in range(11, 21)]
    ends = np.array(graph_edges)
    graph = from_edges(ends[:, 0], ends[:, 1])
    content = np.array([[1.0, 0.0] if p < 12 else [0.0, 1.0] for p in graph.pin_ids.tolist()], np.float32)
    kept = kept_edges(graph, np.zeros(graph.boards, bool), content, np.log(10) / np.log(20))
    pins, boards = graph.edge_list()
    of_first = kept & (graph.pin_ids[pins] == 1)
    assert sorted(graph.board_ids[boards[of_first]].tolist()) == list(range(1, 11))


@pytest.mark.parametrize("delta", [0.5, 0.91, 1.0])
def test_degree_to_the_delta_edges_are_kept(delta: float) -> None:
    world = tiny_world()
    whole = build_graph(world.lake, WHOLE.model_copy(update={"context": Context.USER}))
    config = GraphConfig(context=Context.USER, diverse_share=0, delta=delta)
    vectors = PinVectors(
        whole.pin_ids, np.random.default_rng(1).normal(size=(whole.pins, 8)).astype(np.float32)
    )
    pruned = build_graph(world.lake, config, vectors=vectors)
    before = whole.degrees(whole.index_of(pruned.pin_ids))
    assert np.array_equal(pruned.degrees(), np.ceil(before**delta - 1e-9).astype(int))
    assert edges(pruned) <= edges(whole)


def test_content_that_is_not_a_number_counts_as_none() -> None:
    world = tiny_world()
    config = GraphConfig(context=Context.USER, diverse_share=0)
    ids = world.frames["pins"]["pin_id"].to_numpy()
    vectors = np.full((len(ids), 4), np.nan, np.float32)
    graph = build_graph(world.lake, config, vectors=PinVectors(ids, vectors))
    zeros = build_graph(world.lake, config, vectors=PinVectors(ids, np.zeros((len(ids), 4), np.float32)))
    assert edges(graph) == edges(zeros)
    assert graph.edges > 0


def test_mixed_boards_are_dropped_and_said_so() -> None:
    world = tiny_world()
    whole = build_graph(world.lake, WHOLE.model_copy(update={"context": Context.USER}))
    pruned = build_graph(
        world.lake, GraphConfig(context=Context.USER, delta=None, diverse_share=0.2, diverse_nats=0.0)
    )
    lost = {b for _, b in edges(whole)} - {b for _, b in edges(pruned)}
    assert 0 < len(lost) <= 0.2 * whole.boards + 1  # a board is whole
    kept = {e for e in edges(whole) if e[1] not in lost}
    assert edges(pruned) == kept
    assert any(f"{len(lost)} boards of topic entropy" in note for note in pruned.info.notes)


def test_the_same_lake_gives_the_same_graph() -> None:
    lake = tiny_world().lake
    assert build_graph(lake).digest() == build_graph(lake).digest()
