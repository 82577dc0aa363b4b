"""The temporal protocol: what a model may see, what it may recommend, and the numbers by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.data.lakes import write_lake
from training.evaluation.as_of import (
    AsOf,
    Blend,
    NotApplicable,
    Recommend,
    TemporalError,
    best_new,
    by_score,
)
from training.evaluation.seeded import Seeded
from training.evaluation.temporal import evaluate
from validation.lake import Lake

START = datetime(2026, 1, 1, tzinfo=UTC)
CUT = START + timedelta(days=2)
SAVE, HIDE = 4, 6

ACTIONS = [  # user, pin, action, hours after START; days 0 and 1 are known, day 2 is held out
    *[(1, 11, SAVE, 1), (1, 12, SAVE, 2), (2, 11, SAVE, 3), (2, 13, SAVE, 4), (2, 16, HIDE, 5)],
    *[(1, 14, SAVE, 30), (2, 15, SAVE, 31)],
    *[(1, 13, SAVE, 49), (1, 15, SAVE, 50), (2, 12, SAVE, 51), (3, 11, SAVE, 52), (2, 17, SAVE, 53)],
]


def lake_of(root: Path, actions: list[tuple[int, int, int, int]]) -> Lake:
    """Pins 11 to 16 from before START; 17 is made after the cut."""
    frame = pd.DataFrame(actions, columns=["user_id", "pin_id", "action", "hour"])
    frame["timestamp"] = [START + timedelta(hours=int(h)) for h in frame.pop("hour")]
    frame["event_id"] = np.arange(1, len(frame) + 1)
    pins = pd.DataFrame({"pin_id": range(11, 18), "topics": [[p % 2 + 1] for p in range(11, 18)]})
    pins["created_at"] = [START - timedelta(days=1)] * 6 + [CUT + timedelta(hours=1)]
    return write_lake(root, {"pins": pins, "actions": frame})


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return lake_of(tmp_path_factory.mktemp("lake"), ACTIONS)


def listed(lists: dict[int, list[int]]):
    """A model that answers what it is told."""

    def fit(known: AsOf) -> Recommend:
        return lambda users, k: np.array([(lists.get(u, []) + [0] * k)[:k] for u in users.tolist()])

    return fit


def test_a_model_sees_what_was_before_the_cut(lake: Lake) -> None:
    known = AsOf.of(lake, CUT)
    assert known.pins.tolist() == [11, 12, 13, 14, 15, 16]
    assert known.users.tolist() == [1, 2]
    assert known.matrix.toarray().tolist() == [[1, 1, 0, 1, 0, 0], [1, 0, 1, 0, 1, 0]]  # hidden is not taken
    assert known.rows_of(np.array([3, 2, 1])).tolist() == [-1, 1, 0]
    assert known.known(0).tolist() == [0, 1, 3]
    assert known.known(-1).tolist() == []
    with pytest.raises(TemporalError, match="no positive action lies before 2026-01-01"):
        AsOf.of(lake, START)


def test_numbers_by_hand(lake: Lake) -> None:
    """Held out: 13 and 15 of user 1, 12 of user 2 (17 is too young), 11 of user 3, who has no past."""
    model = listed({1: [16, 15], 2: [12], 3: [14, 13]})
    report = evaluate(lake, {"listed": model}, days=1, at=(1, 2))
    row = report.row("listed")
    assert row.values["Recall@2"].tolist() == [[0.5, 1.0, 0.0]]
    assert row.values["HR@2"].tolist() == [[1.0, 1.0, 0.0]]
    assert row.values["HR@1"].tolist() == [[0.0, 1.0, 0.0]]
    gained = (1 / np.log2(3)) / (1 + 1 / np.log2(3))
    assert row.values["NDCG@2"][0] == pytest.approx([gained, 1.0, 0.0])
    assert row.spread("Recall@2").error == pytest.approx(1.96 * 0.5 / 3**0.5)
    assert row.values["HR@2/new_users"].shape == (1, 3)
    assert [report.facts[f] for f in ("cut", "days", "users", "held_out_pins")] == ["2026-01-03", 1, 3, 4]


def test_seeded_models_run_under_every_seed(lake: Lake) -> None:
    drawn = Seeded(lambda seed: [listed({1: [13 if seed else 16], 2: [12]})])
    row = evaluate(lake, {"drawn": drawn}, days=1, at=(1,), seeds=(0, 1)).row("drawn")
    assert row.values["HR@1"].tolist() == [[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]]
    assert row.seeds == (0, 1)
    assert row.spread("HR@1").seeds == pytest.approx((1 / 3) / 2**0.5)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({1: [13, 12]}, "pin 12 to user 1, who had taken it before"),
        ({2: [17]}, "pin 17 to user 2: no pin made before the cut"),
        ({2: [999]}, "pin 999 to user 2"),
        ({3: [12, 12]}, "user 3 was recommended one pin twice"),
    ],
)
def test_what_may_not_be_recommended_is_an_error(lake: Lake, lists: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(lake, {"wrong": listed(lists)}, days=1, at=(2,))


def test_a_wrong_shape_is_an_error(lake: Lake) -> None:
    with pytest.raises(TemporalError, match=r"short recommended \(3, 1\), expected \(3, 300\)"):
        evaluate(
            lake, {"short": lambda known: lambda users, k: np.zeros((len(users), 1), np.int64)}, at=(2,), days=1
        )
    with pytest.raises(TemporalError, match="lists of"):
        evaluate(lake, {"listed": listed({})}, at=(0,), days=1)


def test_variants_are_chosen_on_the_days_before_the_cut(lake: Lake) -> None:
    """Day 1 held user 1's pin 14 and user 2's 15: the variant that knows them wins, whatever day 2 brings."""
    cuts: list[datetime] = []

    def by_cut(early: dict, late: dict):
        def fit(known: AsOf) -> Recommend:
            cuts.append(known.cut)
            return listed(late if known.cut == CUT else early)(known)

        return fit

    wise = by_cut({1: [14], 2: [15]}, {1: [16]})
    lucky = by_cut({1: [15]}, {1: [13], 2: [12], 3: [11]})
    row = evaluate(lake, {"tuned": [lucky, wise]}, days=1, at=(1,)).row("tuned")
    assert (row.variant, row.mean("HR@1")) == (1, 0.0)
    assert cuts == [CUT - timedelta(days=1)] * 2 + [CUT]


def test_a_history_too_short_to_tune_on_keeps_the_first_variant(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [row for row in ACTIONS if not 24 <= row[3] < 48])
    said: list[str] = []
    report = evaluate(lake, {"tuned": [listed({1: [13]}), listed({})]}, days=1, at=(1,), progress=said.append)
    assert report.row("tuned").variant == 0
    assert any("its first variant stands" in line for line in said)


def test_a_model_the_data_forbids_is_left_out_or_an_error(lake: Lake) -> None:
    def never(known: AsOf) -> Recommend:
        raise NotApplicable("there are too many pins")

    models = {"never": never, "listed": listed({})}
    report = evaluate(lake, models, days=1, at=(1,))
    assert report.skipped == {"never": "there are too many pins"}
    assert [row.model for row in report.rows] == ["listed"]
    with pytest.raises(TemporalError, match="never: there are too many pins"):
        evaluate(lake, models, days=1, at=(1,), strict=True)


def test_the_best_new_pins(lake: Lake) -> None:
    known = AsOf.of(lake, CUT)
    scores = np.array([[9, 9, 2, 9, 5, 5], [1, -1, 9, 0, 9, -2]], np.float32)
    assert best_new(known, scores, np.array([0, 1]), 2).tolist() == [[15, 16], [12, 16]]
    assert best_new(known, scores, np.array([0, 1]), 9).tolist() == [
        [15, 16, 13, 0, 0, 0, 0, 0, 0],
        [12, 16, 0, 0, 0, 0, 0, 0, 0],  # nothing speaks for 14, whose score is 0
    ]
    recommend = by_score(known, lambda rows: scores[rows])
    assert recommend(np.array([3, 2]), 1).tolist() == [[0], [12]]  # a stranger gets nothing


def test_the_best_new_pins_are_those_of_a_full_sort() -> None:
    rng = np.random.default_rng(0)
    known = AsOf(Lake("nowhere"), CUT, np.arange(1, 301), np.arange(1, 21), _matrix(rng))
    scores = rng.integers(0, 12, (20, 300)).astype(np.float32)  # full of ties
    got = best_new(known, scores, np.arange(20), 25)
    for row in range(20):
        new = [p for p in range(300) if known.matrix[row, p] == 0 and scores[row, p] != 0]
        assert got[row].tolist() == [p + 1 for p in sorted(new, key=lambda p: (-scores[row, p], p))[:25]]


def _matrix(rng: np.random.Generator):
    from scipy import sparse

    return sparse.csr_matrix((rng.random((20, 300)) < 0.2).astype(np.float32))


def test_a_blend_pays_for_what_its_sources_find_before_the_cut(lake: Lake) -> None:
    """On day 1 the first source finds user 1's pin and the second user 2's, the third nothing: halves."""
    fits: list[tuple[str, datetime]] = []

    def by_cut(name: str, early: dict, late: dict):
        def fit(known: AsOf) -> Recommend:
            fits.append((name, known.cut))
            return listed(late if known.cut == CUT else early)(known)

        return fit

    models = {
        "one": by_cut("one", {1: [14, 16]}, {1: [13, 16], 3: [14]}),
        "two": by_cut("two", {2: [15, 16]}, {1: [15], 2: [12, 14]}),
        "none": by_cut("none", {1: [16]}, {2: [14, 12]}),
        "blended": Blend(("one", "two", "none", "elsewhere")),
    }
    report = evaluate(lake, models, days=1, at=(2,))
    assert report.facts["blended"] == "one 50%, two 50%"
    assert report.row("blended").values["Recall@2"].tolist() == [[1.0, 1.0, 0.0]]
    assert sorted(fits) == sorted(
        (n, c) for n in ("one", "two", "none") for c in (CUT, CUT - timedelta(days=1))
    )


def test_a_blend_is_made_under_every_seed_and_needs_two_sources(lake: Lake) -> None:
    drawn = Seeded(lambda seed: [listed({1: [13 if seed else 16], 2: [12]})])
    models = {"drawn": drawn, "still": listed({1: [15]}), "blended": Blend(("drawn", "still"))}
    row = evaluate(lake, models, days=1, at=(2,), seeds=(0, 1)).row("blended")
    assert row.values["Recall@2"].tolist() == [[0.5, 1.0, 0.0], [1.0, 1.0, 0.0]]
    assert row.seeds == (0, 1)
    alone = evaluate(lake, {"still": listed({}), "blended": Blend(("drawn", "still"))}, days=1, at=(2,))
    assert alone.skipped == {"blended": "it mixes at least two of drawn, still; here: still"}


def test_budgets_are_measured_as_far_as_there_are_pins(lake: Lake) -> None:
    row = evaluate(lake, {"listed": listed({1: [15]})}, days=1, at=(1,), budgets=(2, 6, 7)).row("listed")
    assert {name.partition("@")[2] for name in row.values if "/" not in name} == {"1", "2", "6"}
