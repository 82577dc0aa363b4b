"""A request served by TransAct scores as training scores its rows: off the live sequence, and off the log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bentos import ranking_features
from bentos.candidates import Candidates
from bentos.features import PinTable, UserVector
from bentos.feed import Feed, Surface
from bentos.rehearsal import check_ranker, probe
from bentos.release import ServingRelease
from bentos.serving import ReleaseRejected
from feature_repo.schema import USER_SCALARS
from feature_repo.sequence import Event, Sequence, SequenceLog
from tests.bentos.fakes import (
    DIM,
    HIDE,
    NOW_MS,
    PINS,
    SAVE,
    FakeFeatures,
    pin_of,
    planted_features,
    planted_release,
)
from tests.bentos.planted_search import planted_index
from training.data.training_set import Block
from training.evaluation.served_scores import served_scores
from training.models.interactions import ActionRows, Pins, RequestRows, interactions
from training.models.pinnability import FeatureSpec
from training.models.query_features import QUERY_FEATURES, row_query_features
from training.models.ranker import ENGAGE, Ranker, load_ranker
from training.models.transact import Head, SequenceConfig, TransActConfig
from training.models.transact.network import seeded
from training.models.transact.ranker import TransActRanker
from training.transact.examples import Known, UserVectors
from training.transact.examples import PinTable as Vectors

SPEC = FeatureSpec(query=QUERY_FEATURES)
USER, USER_DIM, SPACE = 1, 6, "pinnerformer@2"
NO_VECTOR, UNKNOWN = pin_of(2, 5), 9_999
FOLLOWED = np.array([2, 3])
MIDNIGHT_MS = NOW_MS - NOW_MS % 86_400_000
LAST_NIGHT = np.linspace(-1, 1, USER_DIM).astype(np.float32)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> ServingRelease:
    """Served by a network that was saved and read back, large weights so that everything shows."""
    features = planted_features()
    features.matrix[NO_VECTOR - 1] = 0
    config = TransActConfig(
        spec=SPEC,
        sequence=SequenceConfig(length=100, action_dim=8, surface_dim=4, pin_dim=8, layers=2, ffn=16),
        heads=tuple(Head(action=a) for a in ("closeup", "save", "hide", ENGAGE)),
        user_dim=USER_DIM,
        deep=(32,),
    )
    network = seeded(config, DIM, 3)
    network.learn_scale(torch.randn(200, len(SPEC.names), generator=torch.Generator().manual_seed(0)) * 9)
    folder: Path = tmp_path_factory.mktemp("ranker")
    TransActRanker(network, SPACE).save(folder)
    made = planted_release(folder, features, ranker=load_ranker(folder))
    return replace(made, lexical=planted_index(features))


def acted(count: int, seed: int) -> list[Event]:
    rng = np.random.default_rng(seed)
    pins = rng.integers(1, PINS + 1, count)
    pins[::7], pins[3::9] = NO_VECTOR, UNKNOWN
    times = NOW_MS - np.sort(rng.integers(1, 30 * 86_400_000, count))
    actions = np.where(rng.random(count) < 0.3, HIDE, SAVE)
    return [
        Event(100 + i, int(p), int(a), int(rng.integers(0, 9)), int(t))
        for i, (p, a, t) in enumerate(zip(pins, actions, times, strict=True))
    ]


def catalogue(features: FakeFeatures) -> Pins:
    ids = np.arange(1, PINS + 1)
    stats = features.pins(ids)
    return Pins(ids, features.matrix, stats.topics, stats.created_at_ms)


def served(
    release: ServingRelease, events: list[Event], shown: np.ndarray, scalars: np.ndarray, query: str = ""
) -> np.ndarray:
    """(n, H) as the ranking service has them."""
    surface = Surface.SEARCH if query else Surface.HOMEFEED
    feed = Feed(surface, release, NOW_MS, 20, user_id=USER, query=query)
    vectors = {SPACE: UserVector(LAST_NIGHT, MIDNIGHT_MS)}
    user = release.features.user(USER, None)
    feed.user = replace(
        user,
        known=True,
        sequence=Sequence.of(events),
        scalars=scalars,
        followed_topics=FOLLOWED,
        vectors=vectors,
    )
    feed.candidates = Candidates.of("test", shown, np.zeros(len(shown)), 0, "")
    ids = np.unique(np.concatenate([shown, feed.user.sequence.pin_ids]))
    feed.pins = PinTable(ids, release.features.pins(ids), release.vectors(ids, release.space)[0])
    return ranking_features.score_heads(feed)


def trained(
    release: ServingRelease, events: list[Event], shown: np.ndarray, scalars: np.ndarray, query: str = ""
) -> np.ndarray:
    """(n, H) as the training forward has the logged rows."""
    features, n = release.features, len(shown)
    assert isinstance(features, FakeFeatures) and release.ranker is not None
    columns = {
        "user_ids": np.full(len(events), USER),
        **{
            name: np.array([getattr(e, field) for e in events])
            for name, field in (
                ("event_ids", "event_id"),
                ("pin_ids", "pin_id"),
                ("actions", "action"),
                ("surfaces", "surface"),
                ("timestamps_ms", "timestamp_ms"),
                ("durations_s", "duration_s"),
            )
        },
    }
    log = SequenceLog.from_columns([columns]) if events else SequenceLog.from_columns([])
    pins = catalogue(features)
    users, times = np.full(n, USER), np.full(n, NOW_MS)
    starts, ends = log.slice(users, times)

    def rows_of(ids: np.ndarray) -> np.ndarray:
        return np.where(ids <= PINS, ids - 1, -1)

    meetings = interactions(
        pins,
        ActionRows(rows_of(log.pin_ids), log.actions.astype(np.int32), log.timestamps_ms),
        RequestRows(rows_of(shown), shown, times, starts, ends, np.zeros(n, int), np.full(n, len(FOLLOWED))),
        FOLLOWED,
        release.signs,
    )
    at = pd.to_datetime(times, unit="ms", utc=True)
    keys = {"request_id": 1, "user_id": users, "pin_id": shown, "position": np.arange(n), "timestamp": at}
    block = Block(
        keys=pd.DataFrame(keys),
        user_scalars=np.tile(scalars, (n, 1)),
        pin_scalars=features.pins(shown).scalars,
        interactions=meetings,
        query=row_query_features(
            lambda: release.lexical, [query or None] * n, ["search" if query else "homefeed"] * n, shown
        ),
        position=np.arange(n, dtype=np.float32),
        label=np.zeros(n, np.int8),
        labels=np.zeros((n, 5), np.int8),
        weight=np.ones(n, np.float32),
    )
    nights = UserVectors(
        np.array([USER] * 3),
        np.array([MIDNIGHT_MS - 86_400_000, MIDNIGHT_MS, MIDNIGHT_MS + 86_400_000]),
        np.stack([LAST_NIGHT * 5, LAST_NIGHT, LAST_NIGHT * -7]),
    )
    return served_scores(release.ranker, block, Known(log, Vectors(pins.ids, pins.vectors), nights, SPACE))


CASES = [
    (0, 40, ""),
    (1, 1, ""),
    (3, 1, "chocolate cake"),
    (40, 500, "garden bench"),
    (100, 40, "cake"),
    (160, 1000, ""),
]


@pytest.mark.parametrize(("actions", "count", "query"), CASES)
def test_serving_scores_as_the_training_forward(
    release: ServingRelease, actions: int, count: int, query: str
) -> None:
    """No history and too long ones, 1 and 1,000 candidates, unknown pins and pins without a vector, NaN."""
    rng = np.random.default_rng(count)
    shown = rng.integers(1, PINS + 1, count)
    shown[::11] = UNKNOWN
    scalars = rng.exponential(4, len(USER_SCALARS)).astype(np.float32)
    scalars[:2] = np.nan
    events = acted(actions, seed=actions)
    made, wanted = (side(release, events, shown, scalars, query) for side in (served, trained))
    assert (made.shape == (count, 4) and made.std() > 0.01) or count == 1
    assert ((made >= 0) & (made <= 1)).all()
    np.testing.assert_allclose(made, wanted, atol=1e-5)
    if query and count > 1:
        assert np.abs(made - served(release, events, shown, scalars)).max() > 1e-3, "the query is read"


def test_an_action_of_later_is_not_seen(release: ServingRelease) -> None:
    events, shown = acted(5, seed=1), np.arange(1, 30)
    scalars = np.ones(len(USER_SCALARS), np.float32)
    late = [*events, Event(900, pin_of(1), SAVE, 1, NOW_MS + 5)]
    for side in (served, trained):
        np.testing.assert_array_equal(
            side(release, late, shown, scalars), side(release, events, shown, scalars)
        )


def test_a_user_without_last_nights_vector_has_none(release: ServingRelease) -> None:
    ranker = release.ranker
    assert isinstance(ranker, Ranker) and ranker.user_dim == USER_DIM
    assert release.user_spaces == (SPACE,), "the ranker's own space is read though nothing is searched there"
    feed = Feed(Surface.HOMEFEED, release, NOW_MS, 20, user_id=USER)
    feed.candidates = Candidates.of("test", [1, 2], np.zeros(2), 0, "")
    ids = np.array([1, 2])
    feed.pins = PinTable(ids, release.features.pins(ids), release.vectors(ids, release.space)[0])
    request, given = ranking_features.inputs(feed)
    assert request.user.tolist() == [0] * USER_DIM and len(given) == 2


def test_a_ranker_of_other_vectors_is_rejected_before_it_serves(release: ServingRelease) -> None:
    ranker = release.ranker
    assert isinstance(ranker, TransActRanker)
    with pytest.raises(ReleaseRejected, match=r"reads users in pinnerformer@2, the release makes .* in None"):
        check_ranker(release)
    wider = TransActRanker(seeded(ranker.network.config, DIM + 1, 0))
    with pytest.raises(ReleaseRejected, match=f"reads {DIM + 1}-d content; the release holds {DIM}-d pins"):
        check_ranker(replace(release, ranker=wider))
    fitting = replace(release, ranker=TransActRanker(ranker.network))
    check_ranker(fitting)
    request, given = probe(fitting)
    assert len(request.actions) == len(given) == 3 and request.history.any(axis=1).all()
    served = ranker.fitted_to([(request, given)])
    wanted = ranker.score_heads(request, given)
    np.testing.assert_allclose(served.score_heads(request, given), wanted, atol=0.03)
