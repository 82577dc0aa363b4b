"""The leave-one-out protocol: what is held out, among what it is ranked, and that no choice sees it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from training.evaluation import sasrec
from training.evaluation.candidates import Candidates, read_candidates
from training.evaluation.leave_one_out import (
    FULL,
    SAMPLED,
    LeaveOneOutError,
    TrainSet,
    evaluate,
    gain,
    split,
)
from training.evaluation.leave_one_out_models import MODELS, default_models, left_out, on_matrix, pixie
from training.evaluation.seeded import Seeded, variants_of
from training.models.baselines import Scorer, popularity
from training.models.pixie import PixieConfig


def frame(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "pin_id", "timestamp"])


SMALL = frame(
    [("a", 1, 1), ("a", 2, 2), ("a", 3, 3), ("b", 2, 1), ("b", 4, 2), ("c", 1, 1), ("a", 1, 9), ("b", 1, 0)]
)


def fixed(scores: dict[object, float]):
    """A model that scores pins by value, the same for everyone; pins in the order of their ids."""

    def fit(train: TrainSet) -> Scorer:
        row = np.array([scores[p] for p in sorted(scores)], np.float32)
        return lambda users: np.tile(row, (len(users), 1))

    return fit


def test_the_newest_new_pin_is_held_out() -> None:
    parts = split(SMALL)
    held = dict(zip(parts.user_ids[parts.users].tolist(), parts.pin_ids[parts.held_out].tolist(), strict=True))
    assert held == {"a": 3, "b": 4}  # a's last action is on a pin it had: 3 is its newest new one
    assert parts.skipped == 1  # c has one pin
    left = {(parts.user_ids[u], parts.pin_ids[p]) for u, p in zip(*parts.train.matrix.nonzero(), strict=True)}
    assert left == {("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1)}


def test_equal_times_keep_the_order_of_the_rows() -> None:
    parts = split(frame([("a", 5, 1), ("a", 3, 1), ("a", 4, 1)]))
    assert parts.pin_ids[parts.held_out].tolist() == [4]


def test_boards_are_the_contexts_where_they_are_named() -> None:
    rows = frame([("a", 1, 1), ("a", 2, 2), ("a", 3, 3), ("b", 2, 1), ("b", 1, 2)])
    rows["board_id"] = [70, 80, 70, None, 90]
    train = split(rows).train
    edges = {(int(p), int(c)) for p, c in zip(train.edge_pins, train.edge_contexts, strict=True)}
    assert edges == {(0, 0), (1, 1)}  # b's pin 2 is on no board; the held-out rows are gone
    assert train.matrix.nnz == 3


def test_gains_average_over_the_order_of_ties() -> None:
    assert gain(0, 0, 10) == (1.0, 1.0)
    assert gain(10, 0, 10) == (0.0, 0.0)
    hit, discounted = gain(1, 3, 2)  # one better, three equal: second place in one case of four
    assert (hit, discounted) == (0.25, pytest.approx(0.25 / np.log2(3)))
    rng = np.random.default_rng(0)
    ranks = 3 + rng.integers(0, 6, 200_000)
    hit, discounted = gain(3, 5, 6)
    assert hit == pytest.approx((ranks < 6).mean(), abs=0.01)
    assert discounted == pytest.approx(((ranks < 6) / np.log2(ranks + 2)).mean(), abs=0.01)


def test_ranks_are_among_pins_the_user_does_not_have() -> None:
    report = evaluate(SMALL, {"fixed": fixed({1: 9.0, 2: 8.0, 3: 5.0, 4: 6.0})}, k=1)
    # a has 1 and 2: 4 comes before its 3. b has 1 and 2: its 4 comes first.
    assert report.row("fixed").mean("HR@1") == 0.5
    assert (
        evaluate(SMALL, {"fixed": fixed({1: 9.0, 2: 8.0, 3: 5.0, 4: 6.0})}, k=2).row("fixed").mean("HR@2")
        == 1.0
    )
    assert [report.facts[name] for name in ("users", "pins", "skipped_users")] == [2, 4, 1]


def test_a_constant_model_gains_only_its_luck() -> None:
    rng = np.random.default_rng(1)
    rows = frame([(u, int(p), i) for u in range(50) for i, p in enumerate(rng.choice(200, 5, replace=False))])
    constant = {pin: 1.0 for pin in range(200) if pin in set(rows.pin_id)}
    hr = evaluate(rows, {"constant": fixed(constant)}, k=10).row("constant").mean("HR@10")
    assert hr == pytest.approx(10 / (len(constant) - 4), rel=0.02)


def test_candidates_bound_the_ranking() -> None:
    given = Candidates({"a": [4, 999], "b": [3]})
    report = evaluate(SMALL, {"fixed": fixed({1: 9.0, 2: 8.0, 3: 7.0, 4: 6.0})}, given, k=1)
    assert report.row("fixed", SAMPLED).mean("HR@1") == 0.5  # a: 3 before 4; b: 3 before its 4
    assert report.row("fixed", FULL).mean("HR@1") == 0.5
    assert report.facts["candidates"] == 2
    with pytest.raises(LeaveOneOutError, match="no pins for user b"):
        evaluate(SMALL, {"fixed": fixed({1: 0, 2: 0, 3: 0, 4: 0})}, Candidates({"a": [4]}), k=1)


def test_a_held_out_pin_of_the_file_overrides_time(tmp_path: Path) -> None:
    path = tmp_path / "test.negative"
    path.write_text("(a,2)\t4\t3\n(b,7)\t3\n")
    rows = SMALL.replace({"user_id": {"a": "a", "b": "b"}})
    parts = split(rows, read_candidates(path).held_out)
    held = dict(zip(parts.user_ids[parts.users].tolist(), parts.pin_ids[parts.held_out].tolist(), strict=True))
    assert held == {"a": 2, "b": 7}  # 7 occurs in no interaction
    left = {(parts.user_ids[u], parts.pin_ids[p]) for u, p in zip(*parts.train.matrix.nonzero(), strict=True)}
    assert left == {("a", 1), ("a", 3), ("b", 1), ("b", 2), ("b", 4), ("c", 1)}


def test_bad_input_is_named() -> None:
    model = {"popularity": on_matrix(popularity)}
    with pytest.raises(LeaveOneOutError, match="no column timestamp"):
        evaluate(SMALL.drop(columns="timestamp"), model)
    with pytest.raises(LeaveOneOutError, match="nulls"):
        evaluate(SMALL.assign(pin_id=[None, *SMALL.pin_id[1:]]), model)
    with pytest.raises(LeaveOneOutError, match="nothing to hold out"):
        evaluate(frame([("a", 1, 1), ("b", 2, 1)]), model)
    with pytest.raises(LeaveOneOutError, match="gave NaN"):
        evaluate(SMALL, {"broken": fixed({1: np.nan, 2: 0, 3: 0, 4: 0})})
    with pytest.raises(LeaveOneOutError, match="scored"):
        evaluate(SMALL, {"short": fixed({1: 0, 2: 0})})


def planted(users: int = 120, seed: int = 0) -> pd.DataFrame:
    """Three groups of users with 30 pins each; a tenth of what a user takes is anything."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        group = user % 3
        for time in range(12):
            pin = rng.integers(0, 90) if rng.random() < 0.1 else 30 * group + rng.integers(0, 30)
            rows.append((user, int(pin) + 1, time))
    return frame(rows)


def test_what_may_be_tuned_never_sees_the_held_out_pins() -> None:
    rows = planted()
    parts = split(rows)
    seen: list[TrainSet] = []

    def spy(train: TrainSet) -> Scorer:
        seen.append(train)
        return on_matrix(popularity)(train)

    evaluate(rows, {"spy": [spy, spy]})
    assert len(seen) == 3
    for train in seen:
        assert train.matrix[parts.users, parts.held_out].sum() == 0
    tuning = seen[0].matrix
    assert tuning.nnz == parts.train.matrix.nnz - len(parts.users)
    assert tuning[parts.users, parts.newest[parts.users]].sum() == 0


def test_the_better_variant_is_chosen() -> None:
    rows = planted()
    nothing = fixed(dict.fromkeys(sorted(set(rows.pin_id)), 0.0))
    walk = variants_of(default_models(90)["pixie"], 7)[0]
    assert evaluate(rows, {"walk": [nothing, walk]}).row("walk").variant == 1


def test_every_default_model_finds_the_planted_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sasrec, "VENV", tmp_path)  # it has tests of its own
    rows = planted()
    report = evaluate(rows, default_models(90))
    chance = 10 / 82
    for model in ("itemknn", "rp3beta", "ials", "ease", "pixie"):
        assert report.row(model).mean("HR@10") > 2 * chance, model
    walk, popular = (report.row(model).spread("NDCG@10") for model in ("pixie", "popularity"))
    assert walk.mean > popular.mean + popular.error
    beside = report.difference("pixie", "rp3beta", "NDCG@10")
    assert beside.mean > -beside.error  # no worse than the classical walk
    lines = report.table().splitlines()
    assert lines[0].startswith("leave-one-out: users 120, pins 90")
    there = set(MODELS) - set(left_out(90))
    assert sorted(line.split()[0] for line in lines[4 : 4 + len(there)]) == sorted(there)
    assert {row["model"] for row in json.loads(report.to_json())["rows"]} == there


def test_seeds_touch_only_what_they_can_change() -> None:
    """Pin 4 comes before 3 under odd seeds: then b's held-out pin is first, else a's; one of two users each
    time, so users differ and seeds do not."""
    drawn = Seeded(lambda seed: [fixed({1: 0.0, 2: 0.0, 3: 5.0, 4: 9.0 * (seed % 2)})])
    always = fixed({1: 0.0, 2: 0.0, 3: 5.0, 4: 4.0})
    report = evaluate(SMALL, {"drawn": drawn, "always": always}, k=1, seeds=(0, 1, 2))
    row = report.row("drawn")
    assert row.seeds == (0, 1, 2)
    assert row.values["HR@1"].tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    spread = row.spread("HR@1")
    assert (spread.mean, spread.seeds) == (0.5, 0.0)
    assert spread.error == pytest.approx(1.96 * np.std([2 / 3, 1 / 3], ddof=1) / np.sqrt(2))
    once = report.row("always")
    assert once.seeds == ()
    assert once.values["HR@1"].tolist() == [[1.0, 0.0]]
    assert once.spread("HR@1").seeds is None


def test_what_the_data_or_the_machine_does_not_allow_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sasrec, "installed", lambda: True)
    assert left_out(20_000) == {}
    assert "20,001 pins" in left_out(20_001)["ease"]
    assert set(default_models(20_001)) == set(MODELS) - {"ease"}
    monkeypatch.setattr(sasrec, "installed", lambda: False)
    assert "make rectools" in left_out(20_000)["sasrec"]
    assert set(default_models(20_000)) == set(MODELS) - {"sasrec"}


def test_candidates_of_strangers_are_named() -> None:
    model = {"popularity": on_matrix(popularity)}
    strange = Candidates({"a": [4], "b": [3], "nobody": [1]})
    with pytest.raises(LeaveOneOutError, match=r"users without interactions \(1\): nobody"):
        evaluate(SMALL, model, strange)


def test_pixie_walks_the_boards_it_is_given() -> None:
    """Pins 1-4 share boards with nobody's help: users are all different, so only boards can join 1 to 2."""
    rows = pd.DataFrame(
        {
            "user_id": ["a", "a", "b", "c", "d", "d"],
            "pin_id": [1, 9, 1, 2, 3, 8],
            "timestamp": [1, 2, 1, 1, 1, 2],
            "board_id": [5, 6, 5, 5, 6, 7],
        }
    )
    parts = split(rows)
    scores = pixie(parts.train, PixieConfig(steps=1_000, stop_pins=0))(np.array([0]))
    found = parts.pin_ids[scores[0] > 0]
    assert found.tolist() == [1, 2]
