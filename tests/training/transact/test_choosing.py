"""A row's tokens are those of the request at its time: the daily batch's history, the live sequence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from feature_repo.history import MS_PER_DAY, History, ShownLog, behind, midnight_ms, whole_seconds
from feature_repo.jobs.history import histories, read_shown
from feature_repo.schema import HISTORY_LENGTH, PIN_SCALARS, SHOWN_DAYS, SHOWN_LENGTH, USER_SCALARS
from feature_repo.sequence import SequenceLog, columns_of
from tests.feature_repo.conftest import END, PINS, START, USERS, history, write_lake
from training.data.training_set import Block
from training.evaluation.served_scores import served_scores
from training.models.interactions import INTERACTION_FEATURES
from training.models.pinnability import FeatureSpec
from training.models.query_features import QUERY_FEATURES
from training.models.ranker import ENGAGE, Candidates, Past, Request
from training.models.transact import Head, Lifelong, SequenceConfig, TransActConfig
from training.models.transact.lifelong import levels, select
from training.models.transact.lifelong_serving import LifelongScorer, Story
from training.models.transact.network import seeded
from training.models.transact.ranker import TransActRanker
from training.transact.examples import Examples, Known, PinTable
from validation.lake import Lake

SPEC = FeatureSpec()
BUSY = 2
"""The user who acts 160 times on the last day: some leave the live sequence on the day they came in."""
LIFELONG = Lifelong(
    length=HISTORY_LENGTH,
    realtime=100,
    recent=6,
    nearest_lifelong=8,
    nearest_realtime=5,
    nearest_impressions=7,
)


@dataclass(frozen=True)
class Told:
    """The lake's tables, its log, and batches of histories by midnight."""

    lake: Lake
    log: SequenceLog
    shown: ShownLog
    batches: dict[int, pd.DataFrame]
    pins: PinTable

    def past(self, user: int, at_ms: int) -> tuple[History, Past]:
        """As the online store has it."""
        as_of = int(midnight_ms(np.array([at_ms]))[0])
        batch = self.batches[as_of]
        rows = batch[batch["user_id"] == user].to_dict("records")
        found = History.from_row(rows[0], as_of) if rows else History.none()
        vectors, shown = self.vectors(found.pin_ids), self.vectors(found.shown_pin_ids)
        return found, Past(vectors, found.actions, found.surfaces, found.times_ms, shown, found.shown_ms)

    def vectors(self, pin_ids: np.ndarray) -> np.ndarray:
        places = self.pins.places(pin_ids)
        return np.concatenate([np.zeros_like(self.pins.content[:1]), self.pins.content])[places]

    def request(self, user: int, at_ms: int) -> Request:
        sequence = self.log.sequence(user, at_ms)
        return Request(
            history=self.vectors(sequence.pin_ids),
            actions=sequence.actions.astype(np.int64),
            surfaces=sequence.surfaces.astype(np.int64),
            times_ms=sequence.timestamps_ms,
            request_ms=at_ms,
            user=np.zeros(0, np.float32),
            past=self.past(user, at_ms)[1],
        )


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    tables, rng = history(), np.random.default_rng(5)
    at = END - timedelta(days=1) + pd.to_timedelta(np.sort(rng.integers(0, 86_000_000, 160)), unit="ms")
    burst = pd.DataFrame(
        {
            "event_id": 10_000 + np.arange(160),
            "user_id": BUSY,
            "pin_id": rng.integers(1, PINS - 4, 160),
            "action": rng.choice([1, 3, 6], 160),
            "timestamp": at,
            "surface": "search",
        }
    )
    tables = {"actions": pd.concat([tables["actions"], burst]), "impressions": tables["impressions"]}
    nobody = np.arange(3000) % 4 == 0  # the last five pins are what nobody acts on
    tables["impressions"].loc[nobody, "pin_id"] = PINS - np.arange(750) % 5
    tables["impressions"]["surface"] = np.where(np.arange(3000) % 9 == 0, "related_ads", "homefeed")
    folder = tmp_path_factory.mktemp("told")
    lake = write_lake(folder / "lake", tables)
    log = SequenceLog.from_columns([columns_of(tables["actions"])])
    shown = read_shown(lake, log, START, END)
    batches = {}
    for day in (1, 9, 20, 39):
        when = START + timedelta(days=day)
        histories(lake, folder / "features", when)
        batches[int(when.timestamp() * 1000)] = pq.read_table(
            folder / "features" / "user_history" / "latest.parquet"
        ).to_pandas()
    ids = np.arange(1, PINS + 1)[np.arange(PINS) % 7 != 3]  # the others have no vector
    content = rng.standard_normal((len(ids), 8)).astype(np.float32)
    return Told(lake, log, shown, batches, PinTable(ids, content / np.linalg.norm(content, axis=1)[:, None]))


def asked(told: Told) -> pd.DataFrame:
    """Pages of three pins for every user, some of whom never acted, at four moments of four days."""
    rng, rows = np.random.default_rng(2), []
    for midnight in told.batches:
        for user in range(1, USERS + 4):
            at = midnight + int(rng.integers(0, MS_PER_DAY))
            at = midnight + MS_PER_DAY - 1 if user == BUSY else midnight if user == 3 else at
            rows += [(user, at, int(pin)) for pin in rng.integers(1, PINS + 1, 3)]
    keys = pd.DataFrame(rows, columns=["user_id", "at", "pin_id"])
    keys["timestamp"] = pd.to_datetime(keys["at"], unit="ms", utc=True)
    keys["request_id"] = keys.groupby(["user_id", "at"]).ngroup() + 1
    return keys.assign(position=0)


def block_of(keys: pd.DataFrame) -> Block:
    n, rng = len(keys), np.random.default_rng(0)
    return Block(
        keys=keys,
        user_scalars=rng.random((n, len(USER_SCALARS)), np.float32),
        pin_scalars=rng.random((n, len(PIN_SCALARS)), np.float32),
        interactions=rng.random((n, len(INTERACTION_FEATURES)), np.float32),
        query=np.zeros((n, len(QUERY_FEATURES)), np.float32),
        position=np.zeros(n, np.float32),
        label=np.zeros(n, np.int8),
        labels=np.zeros((n, 3), np.int8),
        weight=np.ones(n, np.float32),
    )


def ranker(**changes: object) -> TransActRanker:
    sequence = {"tokens": "add", "surface_dim": 1, "positions": True, "causal": True, "candidate_token": True}
    sequence |= {"actions": 8, "k": 3, "pin_dim": 6, "layers": 2, "ffn": 16, "mask_hours": 0} | changes
    sequence = SequenceConfig.model_validate({"length": LIFELONG.tokens} | sequence)
    heads = (Head(action="save"), Head(action=ENGAGE))
    config = TransActConfig(spec=SPEC, sequence=sequence, heads=heads, lifelong=LIFELONG, deep=(16,))
    return TransActRanker(seeded(config, 8, 4))


def test_a_rows_tokens_are_those_of_the_request(told: Told) -> None:
    keys, made = asked(told), ranker()
    examples = Examples.of(block_of(keys), told.log, told.pins, SPEC, shown=told.shown)
    batch = examples.batch(np.arange(len(keys)), made.network.config)
    assert examples.batch(np.arange(0), made.network.config).actions.shape == (0, LIFELONG.tokens)
    full = 0
    for i, (user, at, pin) in enumerate(zip(keys["user_id"], keys["at"], keys["pin_id"], strict=True)):
        story = Story.of(told.request(user, at), LIFELONG, kinds=8)
        seen, acted = levels(story.content), len(story.times_ms)
        candidate = levels(told.vectors(np.array([pin])))
        places, ranks = select(LIFELONG, seen[:acted], story.times_ms, seen[acted:], story.shown_ms, candidate)
        own, count = places[0][places[0] >= 0], int((places[0] >= 0).sum())
        assert (batch.actions[i] > 0).sum() == count and (batch.actions[i, count:] == 0).all()
        np.testing.assert_array_equal(batch.actions[i, :count], story.actions[own])
        np.testing.assert_array_equal(batch.surfaces[i, :count], story.surfaces[own])
        np.testing.assert_array_equal(batch.content[batch.pins[i, :count]], story.content[own])
        np.testing.assert_array_equal(batch.recent[i], ranks[0])
        full += count == LIFELONG.tokens
    assert full >= 12, "some users have something of every part"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"candidate_token": False},
        {"tokens": "concat", "surface_dim": 3, "pin_dim": 5},
        {"fusion": "append"},
        {"fusion": "average pooling"},
        {"fusion": "none"},
        {"output": "all + max", "heads": 2},
        {"output": "random k", "causal": False},
    ],
    ids=str,
)
def test_serving_scores_as_the_training_forward(told: Told, changes: dict[str, object]) -> None:
    keys = asked(told)
    block, made = block_of(keys), ranker(**changes)
    wanted = served_scores(made, block, Known(told.log, told.pins, shown=told.shown))
    assert wanted.std() > 0.01
    features = SPEC.assemble(block.user_scalars, block.pin_scalars, block.interactions, query=block.query)
    for (user, at), rows in keys.groupby(["user_id", "at"]).indices.items():
        given = Candidates(told.vectors(keys["pin_id"].to_numpy()[rows]), features[rows])
        scores = made.score_heads(told.request(int(user), int(at)), given)
        np.testing.assert_allclose(scores, wanted[rows], atol=1e-5)


def test_what_left_the_sequence_since_midnight_is_in_the_history_or_in_neither(told: Told) -> None:
    at = int((END - timedelta(milliseconds=1)).timestamp() * 1000)
    sequence, (past, _) = told.log.sequence(BUSY, at), told.past(BUSY, at)
    assert len(sequence) == 100 and sequence.timestamps_ms[-1] > past.as_of_ms, "all of the day"
    skipped = behind(past.times_ms, sequence.timestamps_ms)
    assert skipped == 0 and len(past.pin_ids) > 100
    starts, ends = told.log.slice(np.array([BUSY]), np.array([at]), 10**6)
    of_day = int((told.log.timestamps_ms[starts[0] : ends[0]] >= past.as_of_ms).sum())
    assert int(ends[0] - starts[0]) - len(sequence) - len(past.pin_ids) == of_day - 100 >= 60
    noon = int((START + timedelta(days=39, hours=2)).timestamp() * 1000)
    sequence, (past, _) = told.log.sequence(BUSY, noon), told.past(BUSY, noon)
    begins = behind(past.times_ms, sequence.timestamps_ms)
    assert 0 < begins < 100, "what both hold counts once"
    assert past.times_ms[begins] < whole_seconds(sequence.timestamps_ms[-1:])[0] <= past.times_ms[begins - 1]


def test_shown_in_vain_is_what_a_loop_finds(told: Told) -> None:
    frame = pd.concat([pq.read_table(f).to_pandas() for f in told.lake.files("impressions")])
    acted = pd.concat([pq.read_table(f).to_pandas() for f in told.lake.files("actions")])
    found = 0
    for as_of, batch in told.batches.items():
        then = pd.Timestamp(as_of, unit="ms", tz="UTC")
        rows = frame[(frame["timestamp"] < then) & (frame["timestamp"] >= then - timedelta(days=SHOWN_DAYS))]
        rows = rows[rows["surface"] != "related_ads"].sort_values("timestamp", ascending=False)
        before = acted[acted["timestamp"] < then]
        for user in range(1, USERS + 1):
            own = set(before.loc[before["user_id"] == user, "pin_id"])
            wanted = [p for p in rows.loc[rows["user_id"] == user, "pin_id"] if p not in own][:SHOWN_LENGTH]
            kept = batch[batch["user_id"] == user]["shown_pin_ids"]
            assert (kept.iloc[0].tolist() if len(kept) else []) == wanted
            found += len(wanted)
    assert found > 1000


def test_a_user_whose_history_is_gone_gets_an_empty_row(tmp_path: Path) -> None:
    def at(day: int) -> datetime:
        return START + timedelta(days=day)

    shown = pd.DataFrame(
        {"request_id": [1], "user_id": [5], "pin_id": [3], "position": [0], "timestamp": [at(1)]}
    )
    lake = write_lake(tmp_path / "lake", {"impressions": shown})
    for day, left in ((2, [3]), (40, []), (41, [])):
        assert histories(lake, tmp_path, at(day)) == 2, "the user and the watermark"
        row = pq.read_table(tmp_path / "user_history" / "latest.parquet").to_pylist()[1]
        assert row["user_id"] == 5 and row["shown_pin_ids"] == left and row["event_timestamp"] == at(day)


def test_bad_input_is_named_and_nothing_known_is_no_error(told: Told) -> None:
    made, at = ranker(), int(END.timestamp() * 1000) - 1
    request = told.request(BUSY, at)
    given = Candidates(told.vectors(np.array([1, 2])), np.zeros((2, len(SPEC.names)), np.float32))
    assert request.past is not None
    with pytest.raises(ValueError, match="pins shown hold numbers that are not finite"):
        made.score_heads(replace(request, past=replace(request.past, shown=request.past.shown * np.nan)), given)
    with pytest.raises(ValueError, match="a past's arrays are parallel"):
        made.score_heads(replace(request, past=replace(request.past, times_ms=at + np.arange(2))), given)
    with pytest.raises(ValueError, match="serve it by Scorer"):
        LifelongScorer(seeded(made.network.config.model_copy(update={"lifelong": None}), 8, 0))
    stranger = Request.stranger(at, 8)
    none = np.zeros(0, np.int64)
    empty = Past(stranger.history, none, none, none, stranger.history, none)
    scores = [made.score_heads(s, given) for s in (stranger, replace(stranger, past=empty))]
    np.testing.assert_array_equal(*scores)
    assert np.isfinite(scores[0]).all()
    old = replace(stranger, past=replace(request.past, shown=empty.shown, shown_ms=none))
    np.testing.assert_array_equal(made.score_heads(old, given), scores[0], "nothing is behind no sequence")
    assert made.score_heads(request, Candidates(given.content[:0], given.features[:0])).shape == (0, 2)
