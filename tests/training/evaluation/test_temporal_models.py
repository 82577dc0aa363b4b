"""The models of the temporal table on a planted lake: they find the groups, and see nothing of the future."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.data.lakes import write_lake
from training.data.graph import GraphConfig
from training.evaluation import (
    leave_one_out_models,
    sasrec,
    temporal_models,
    temporal_networks,
    temporal_spaces,
)
from training.evaluation.as_of import AsOf, Blend, Fit, Model, NotApplicable, Recommend
from training.evaluation.seeded import Seeded, variants_of
from training.evaluation.temporal import evaluate
from training.evaluation.temporal_models import action_weights, models
from training.models.pinnerformer import ActionArrays
from training.models.pixie import PixieConfig
from training.pinnerformer.timelines import Timelines
from training.pinnerformer.trainer import PinnerFormerTraining
from training.pipelines.interests import InterestsPipeline
from validation.lake import Lake
from validation.tables import DEFAULT_VOCABULARY

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS, GROUPS, GROUP_PINS, USERS = 10, 4, 40, 80
CUT = START + timedelta(days=DAYS - 1)
SAVE, HIDE = 4, 6
WORDS = ("bread oven", "bike road", "tulip garden", "guitar song")


def planted(root: Path, future: int = 0) -> Lake:
    """Users of four groups save pins of their group on boards, two a day; `future` draws the last day anew."""
    rng, later = np.random.default_rng(3), np.random.default_rng(100 + future)
    rows = []
    for day in range(DAYS):
        draw = later if day == DAYS - 1 else rng
        for user in range(1, USERS + 1):
            group = user % GROUPS
            for pin in draw.choice(GROUP_PINS, 2, replace=False):
                when = START + timedelta(days=day, minutes=int(draw.integers(0, 1_000)))
                rows.append((user, GROUP_PINS * group + int(pin) + 1, SAVE, when, user))
    actions = pd.DataFrame(rows, columns=["user_id", "pin_id", "action", "timestamp", "board_id"])
    actions["event_id"] = np.arange(1, len(actions) + 1)
    ids = np.arange(1, GROUPS * GROUP_PINS + 1)
    group = (ids - 1) // GROUP_PINS
    pins = pd.DataFrame(
        {
            "pin_id": ids,
            "created_at": [START - timedelta(days=1)] * len(ids),
            "title": [f"{WORDS[g]} {i}" for g, i in zip(group, ids, strict=True)],
            "topics": [[int(g) + 1] for g in group],
        }
    )
    boards = pd.DataFrame({"board_id": np.arange(1, USERS + 1), "user_id": np.arange(1, USERS + 1)})
    follows = pd.DataFrame({"user_id": boards["user_id"], "topic_id": boards["user_id"] % GROUPS + 1})
    follows["timestamp"] = START
    return write_lake(root, {"pins": pins, "actions": actions, "boards": boards, "follows": follows})


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return planted(tmp_path_factory.mktemp("lake"))


ONCE = ("popularity", "popular_by_topic", "itemknn", "rp3beta", "ease")
"""Models without randomness."""


_fitted: dict[Hashable, Recommend] = {}


def planted_models() -> dict[str, Model]:
    """All but SASRec, which needs an environment of its own. Each is fitted once a seed, lake and cut."""
    made = {name: model for name, model in models(sentences=lambda: None).items() if name != "sasrec"}
    return {name: model if isinstance(model, Blend) else kept(name, model) for name, model in made.items()}


def kept(name: str, model: Fit | Sequence[Fit] | Seeded[Fit]) -> Sequence[Fit] | Seeded[Fit]:
    """The model, its fits remembered: tests ask for the same ones, and a network takes seconds."""

    def fits(seed: int) -> list[Fit]:
        count = len(variants_of(model, seed))
        return [partial(fitted, model, name, seed, variant) for variant in range(count)]

    return Seeded(fits) if isinstance(model, Seeded) else fits(0)


def fitted(
    model: Fit | Sequence[Fit] | Seeded[Fit], name: str, seed: int, variant: int, known: AsOf
) -> Recommend:
    key = name, seed, variant, known.lake.path, known.cut
    if key not in _fitted:
        _fitted[key] = variants_of(model, seed)[variant](known)
    return _fitted[key]


def test_every_model_finds_the_planted_groups(lake: Lake) -> None:
    report = evaluate(lake, planted_models(), days=1, at=(10,), seeds=(0,), against="popularity")
    blind, half = 10 / (GROUPS * GROUP_PINS), {"popular_by_topic"}  # every other pin of its list is any group's
    assert report.row("popularity").mean("Recall@10") < 3 * blind
    for name in set(planted_models()) - {"popularity"}:
        row = report.row(name)
        least = 0.15 if name in half else 0.2  # ten of about 25 new pins of the group: 0.4 at best
        assert row.mean("Recall@10") > least, name
        assert report.difference(name, "popularity", "Recall@10").mean > 0.1
    assert not report.skipped
    assert {row.model: len(row.seeds) for row in report.rows} == {
        name: 0 if name in ONCE else 1 for name in planted_models()
    }


def test_no_model_sees_the_future(lake: Lake, tmp_path: Path) -> None:
    """Two lakes that are equal before the cut and differ after it: every answer is the same, to the seed."""
    other = planted(tmp_path, future=1)
    ours, theirs = AsOf.of(lake, CUT), AsOf.of(other, CUT)
    users = np.arange(1, USERS + 2)
    assert lake.digest(("actions",)) != other.digest(("actions",))
    for name, model in planted_models().items():
        for fit in variants_of(model, 0) if name != "blended" else ():
            assert (fit(ours)(users, 20) == fit(theirs)(users, 20)).all(), name


def test_another_seed_gives_other_answers(lake: Lake) -> None:
    known, users = AsOf.of(lake, CUT), np.arange(1, USERS + 1)
    for name in ("pixie", "pinnerformer", "dcm", "two_tower"):
        one, other = (variants_of(planted_models()[name], seed)[-1](known)(users, 20) for seed in (0, 1))
        assert (one != other).any(), name


def test_pixie_does_not_answer_hidden_pins(tmp_path: Path) -> None:
    lake = planted(tmp_path)
    rows = lake.read("actions")
    new = next(p for p in range(41, 81) if p not in set(rows.loc[rows["user_id"] == 1, "pin_id"]))
    hidden = rows.iloc[:1].assign(user_id=1, pin_id=new, action=HIDE, event_id=10**6, board_id=0)
    hidden["timestamp"] = CUT - timedelta(hours=1)
    pins, boards = lake.read("pins"), lake.read("boards")
    again = write_lake(
        tmp_path / "hidden", {"pins": pins, "boards": boards, "actions": pd.concat([rows, hidden])}
    )
    answers = [
        temporal_models.pixie(AsOf.of(at, CUT), graph=GraphConfig(), config=PixieConfig())(np.array([1]), 30)
        for at in (lake, again)
    ]
    assert new in answers[0]
    assert new not in answers[1]


def test_actions_weigh_by_their_polarity() -> None:
    weights = action_weights(DEFAULT_VOCABULARY)
    assert weights[DEFAULT_VOCABULARY.code("save")] == 1.0
    assert weights[DEFAULT_VOCABULARY.code("hide")] == -1.0
    assert not weights[0] and not weights[8:].any()


def test_what_the_data_does_not_allow(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = AsOf.of(lake, CUT)
    monkeypatch.setattr(leave_one_out_models, "EASE_PINS", 10)
    with pytest.raises(NotApplicable, match="160 pins with users are more than 10"):
        temporal_models.ease(known, ridge=250.0)
    bare = lake.read("pins").assign(title=None, topics=None)
    blank = write_lake(tmp_path, {"pins": bare, "actions": lake.read("actions")})
    with pytest.raises(NotApplicable, match="no pin has words"):
        temporal_spaces.pinnersage(AsOf.of(blank, CUT), seed=0)
    with pytest.raises(NotApplicable, match="nobody followed a topic"):
        temporal_networks.conditional(AsOf.of(blank, CUT), config=InterestsPipeline(), seed=0)


def test_sasrec_is_left_out_where_rectools_is_not(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sasrec, "VENV", tmp_path)
    report = evaluate(lake, {"sasrec": models()["sasrec"]}, days=1, at=(10,), seeds=(0,))
    assert "make rectools" in report.skipped["sasrec"]


@pytest.mark.slow
@pytest.mark.skipif(not sasrec.installed(), reason="RecTools is not installed: `make rectools`")
def test_sasrec_finds_the_planted_groups(lake: Lake) -> None:
    config = sasrec.SasRecConfig(epochs=60, batch=16, learning_rate=5e-3, factors=32)
    fit = partial(temporal_networks.sasrec, config=config)
    row = evaluate(lake, {"sasrec": fit}, days=1, at=(10,)).row("sasrec")
    assert row.mean("Recall@10") > 0.3


def test_long_histories_take_fewer_epochs() -> None:
    def lines(lengths: list[int]) -> Timelines:
        n = sum(lengths)
        zeros = np.zeros(n, np.int8)
        arrays = ActionArrays(
            np.zeros(n, np.int32), zeros, zeros, np.zeros(n, np.float32), np.zeros(n, np.int64)
        )
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return Timelines(np.arange(len(lengths)), offsets, arrays, zeros.astype(bool), arrays.times_ms)

    training = PinnerFormerTraining(epochs=12)
    assert temporal_networks.epochs_of(lines([3, 0, 64]), 64, training) == 12
    assert temporal_networks.epochs_of(lines([65] * 2_500), 64, training) == 5  # two sequences each
    assert temporal_networks.epochs_of(lines([1_000] * 5_000), 64, training) == 3
