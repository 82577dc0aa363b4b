"""A small planted catalogue in memory: pins of a topic lie together, and every store can be made to fail.

Topic t (1..TOPICS) has the unit direction e_t; its pins are e_t plus a little noise. So what is near, what is
popular and what a user likes can all be said by hand.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bentos.engines import Engines, LocalRanking, LocalRetrieval
from bentos.event_log import EventLog
from bentos.features import Card, PinStats, User
from bentos.feed_service import FeedService
from bentos.ids import Ids
from bentos.impressions import STREAM, Impressions, ServedPins
from bentos.pool import Pool
from bentos.release import ServingRelease, TopicName
from bentos.sources import popular_by_topic
from bentos.walker import Walker
from feature_repo.history import History
from feature_repo.schema import PIN_SCALARS, PIN_TOPICS, USER_SCALARS
from feature_repo.sequence import Event, Sequence, merge
from feature_repo.vectors.replica import Replica
from feature_repo.vectors.rows import PinRows
from training.models.interactions import INTERACTION_FEATURES
from training.models.pin_board_graph import GraphInfo, from_edges
from training.models.pinnability import FeatureSpec, LogisticRanker
from training.models.pinnersage import Interests, PinnerSageConfig
from training.models.pixie import PixieConfig, PixieSettings, ReleasedPixie
from validation.ids import IdMap
from validation.manifest import CollectionCheck, Part, ReleaseManifest
from validation.tables import DEFAULT_VOCABULARY, Contract, EntityKind

TOPICS = 6
PER_TOPIC = 60
PINS = TOPICS * PER_TOPIC
DIM = 16
SPACE = "content@1"
ABOUT = ("", "chocolate cake", "garden benches", "winter coats", "oak tables", "night photography", "yoga")
"""What the pins of each topic are about, from topic 1."""
NOW_MS = 1_780_000_000_000 - 1_780_000_000_000 % 86_400_000 + 15 * 3_600_000
"""15:00 UTC of a day in 2026."""

CLOSEUP, CLICK, SAVE, HIDE = (DEFAULT_VOCABULARY.code(a) for a in ("closeup", "click", "save", "hide"))
STRANGER, COOK, GARDENER, FOLLOWER = 99, 1, 2, 3
"""Users: nobody knows 99; 1 likes topic 1; 2 likes topic 2 and hid pins of 3; 3 only follows things."""


def pin_of(topic: int, place: int = 0) -> int:
    """The `place`-th pin of a topic; places count from the most popular."""
    return (topic - 1) * PER_TOPIC + place + 1


def topic_of(pin_id: int) -> int:
    return (pin_id - 1) // PER_TOPIC + 1


def board_of(topic: int, place: int = 0) -> int:
    """The `place`-th board of a topic, 0 to 2."""
    return 1_000 * topic + place


@dataclass
class FakeFeatures:
    """`bentos.features.Features` in memory. Reads named in `broken` raise, those in `slow_s` sleep first."""

    matrix: np.ndarray
    users: dict[int, User] = field(default_factory=dict)
    board_pins: dict[int, np.ndarray] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    slow_s: dict[str, float] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    stored: dict[int, Sequence] = field(default_factory=dict)
    pictures: Mapping[int, Card] = field(default_factory=dict)
    spaces: dict[str, np.ndarray] = field(default_factory=dict)
    """(PINS, d) of each space that is not the content space."""

    def user(
        self, user_id: int, space: str | None, embedded: Items[str] = (), *, history: bool = False
    ) -> User:
        self._enter("user")
        base = self.users.get(user_id, User.unknown(user_id, DIM))
        sequence = self.stored.get(user_id, base.sequence)
        vectors = {name: base.vectors[name] for name in embedded if name in base.vectors}
        past = base.history if history else History.none()
        known = base.known or len(sequence) > 0
        return replace(base, known=known, sequence=sequence, vectors=vectors, history=past)

    def pins(self, ids: np.ndarray) -> PinStats:
        self._enter("pins")
        count, known = len(ids), (ids > 0) & (ids <= PINS)
        topics = np.zeros((count, PIN_TOPICS), np.int64)
        topics[known, 0] = (ids[known] - 1) // PER_TOPIC + 1
        scalars = np.zeros((count, len(PIN_SCALARS)), np.float32)
        scalars[known, PIN_SCALARS.index("positives_7d")] = PER_TOPIC - (ids[known] - 1) % PER_TOPIC
        created = np.where(known, NOW_MS - 30 * 86_400_000, 0)
        return PinStats(scalars, created.astype(np.int64), topics, known)

    def vectors(self, ids: np.ndarray, space: str) -> tuple[np.ndarray, np.ndarray]:
        self._enter("vectors")
        known = (ids > 0) & (ids <= PINS)
        matrix = self.spaces.get(space, self.matrix)
        out = np.zeros((len(ids), matrix.shape[1]), np.float32)
        out[known] = matrix[ids[known] - 1]
        return out, known & out.any(axis=1)

    def cards(self, ids: np.ndarray) -> dict[int, Card]:
        self._enter("cards")
        if self.pictures:
            return {i: self.pictures[i] for i in ids.tolist() if i in self.pictures}
        return {
            i: Card(i, f"Pin {i}", f"About {ABOUT[topic_of(i)]}", "example.com", "", (topic_of(i),))
            for i in ids.tolist()
            if 0 < i <= PINS
        }

    def popular(self, topic_ids: list[int]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        self._enter("popular")
        places = np.arange(40)
        scores = (40.0 - places).astype(np.float32)
        found = {t: (pin_of(t, 0) + places, scores) for t in topic_ids if 1 <= t <= TOPICS}
        if 0 in topic_ids:
            found[0] = (np.array([pin_of(t, p) for p in range(7) for t in range(1, TOPICS + 1)][:40]), scores)
        return found

    def boards(self, board_ids: list[int]) -> dict[int, np.ndarray]:
        self._enter("boards")
        return {board: self.board_pins[board] for board in board_ids if board in self.board_pins}

    def sequences(self, user_ids: list[int]) -> dict[int, Sequence]:
        self._enter("sequences")
        return {u: self.stored.get(u, self.user(u, None).sequence) for u in user_ids}

    def push_sequences(self, sequences: Mapping[int, Sequence]) -> None:
        self._enter("push_sequences")
        self.stored.update(sequences)

    def _enter(self, name: str) -> None:
        self.calls.append(name)
        if name in self.slow_s:
            time.sleep(self.slow_s[name])
        if name in self.broken:
            raise ConnectionError(f"the fake store's {name} is down")


def planted_matrix(seed: int = 0) -> np.ndarray:
    """(PINS, DIM) unit vectors, pins of a topic together."""
    rng = np.random.default_rng(seed)
    centres = np.eye(DIM, dtype=np.float32)[:TOPICS]
    matrix = np.repeat(centres, PER_TOPIC, axis=0) + rng.normal(0, 0.12, (PINS, DIM)).astype(np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def history(pins: list[int], action: int = SAVE, *, before_ms: int = NOW_MS, first_event: int = 1) -> Sequence:
    """A sequence of one action on each pin, an hour apart, the last of `pins` newest."""
    hour = 3_600_000
    return merge(
        Sequence.empty(),
        [
            Event(first_event + i, pin, action, 1, before_ms - (len(pins) - i) * hour)
            for i, pin in enumerate(pins)
        ],
    )


def interests_in(matrix: np.ndarray, pins: list[int]) -> Interests:
    """Batch interests whose medoids are `pins`, of equal weight."""
    ids = np.array(pins, np.int64)
    ones = np.ones(len(pins))
    return Interests(ids, ones.astype(np.float32), ones.astype(np.int64), matrix[ids - 1])


def planted_features(seed: int = 0) -> FakeFeatures:
    """The catalogue and its three known users."""
    matrix = planted_matrix(seed)
    nothing = np.empty(0, np.int64)
    scalars = np.ones(len(USER_SCALARS), np.float32)
    yesterday = NOW_MS - 86_400_000

    def user(
        user_id: int, sequence: Sequence, topics: list[int], boards: list[int], medoids: list[int]
    ) -> User:
        return User(
            user_id,
            True,
            sequence,
            scalars,
            np.array(topics, np.int64),
            np.array(boards, np.int64),
            interests_in(matrix, medoids) if medoids else Interests.none(DIM),
            yesterday if medoids else 0,
        )

    liked = history([pin_of(2, p) for p in range(10, 14)], before_ms=yesterday)
    hidden = history([pin_of(3, 0), pin_of(3, 1)], HIDE, before_ms=yesterday, first_event=100)
    users = {
        COOK: user(COOK, history([pin_of(1, p) for p in range(20, 26)], before_ms=yesterday), [], [], [21, 22]),
        GARDENER: user(GARDENER, merge(liked, hidden.events()), [4], [], [pin_of(2, 10)]),
        FOLLOWER: user(FOLLOWER, Sequence.empty(), [5, 6], [700], []),
    }
    assert len(nothing) == 0
    boards = {700: np.array([pin_of(4, p) for p in range(12)], np.int64)}
    return FakeFeatures(matrix, users, boards)


def likes_the_near(weight: float = 3.0) -> LogisticRanker:
    """A ranker that prefers pins near the user's recent likes and far from what they hid."""
    spec = FeatureSpec()
    weights = np.zeros(len(spec.names), np.float32)
    weights[spec.names.index("cos_recent_max")] = weight
    weights[spec.names.index("cos_negative_max")] = -weight
    weights[spec.names.index("pin_positives_7d")] = 0.05
    assert "cos_recent_max" in INTERACTION_FEATURES
    return LogisticRanker(
        spec, np.zeros(len(weights), np.float32), np.ones(len(weights), np.float32), weights, bias=-1.0
    )


def manifest(version: int = 1, **changes: object) -> ReleaseManifest:
    base = {
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "git_commit": "0" * 40,
        "dataset": "planted",
        "data_start": datetime(2026, 1, 1, tzinfo=UTC),
        "data_end": datetime.fromtimestamp((NOW_MS - NOW_MS % 86_400_000) / 1000, UTC),
        "parts": {
            "content": Part(model="content", version=1, space=SPACE, collection="pins__content__1"),
            "pinnersage": Part(model="pinnersage", version=version, space=SPACE),
            "pixie": Part(model="pixie", version=version),
            "ranker": Part(model="pinnability_lr", version=version),
        },
        "sources": (
            "pinnersage",
            "pixie",
            "followed_boards",
            "followed_topics",
            "popular_by_topic",
            "saved_together",
            "similar_pins",
        ),
        "collections": (
            CollectionCheck(
                collection="pins__content__1",
                space=SPACE,
                dim=DIM,
                rows=PINS,
                recall_at_100=1.0,
                filtered_fill=1.0,
            ),
        ),
        "metrics": {},
        "evaluation": "planted",
    }
    return ReleaseManifest.model_validate({**base, **changes})


def planted_pixie() -> ReleasedPixie:
    """Three boards a topic, every pin of the topic on two of them; the last pin of a topic is on none."""
    pins, boards = [], []
    for topic in range(1, TOPICS + 1):
        for place in range(PER_TOPIC - 1):
            for board in (place % 3, (place + 1) % 3):
                pins.append(pin_of(topic, place))
                boards.append(board_of(topic, board))
    info = GraphInfo(as_of_ms=NOW_MS - 3_600_000)
    named = np.arange(1, PINS + 1)
    graph = from_edges(np.array(pins), np.array(boards), pin_ids=named, info=info)
    return ReleasedPixie(PixieSettings(walk=PixieConfig(steps=5_000)), graph)


def planted_release(
    folder: Path,
    features: FakeFeatures | None = None,
    *,
    version: int = 1,
    string_ids: frozenset[EntityKind] = frozenset(),
    learned: bool = False,
    search: bool = False,
    **changes: object,
) -> ServingRelease:
    """A whole release over the planted catalogue, with the learned retrievers too if `learned`, and with words
    and a query encoder if `search`.

    `changes` replace its fields.
    """
    features = features or planted_features()
    ids = np.arange(1, PINS + 1)
    rows = PinRows.of(
        ids, features.matrix, [[topic_of(i)] for i in ids.tolist()], np.full(PINS, NOW_MS), np.ones(PINS)
    )
    contract = Contract(name="planted", string_ids=string_ids)
    base = {
        "version": version,
        "manifest": manifest(version),
        "contract": contract,
        "ids": Ids(IdMap(folder / "ids.sqlite"), string_ids),
        "features": features,
        "topics": {t: TopicName(t, f"Topic {t}") for t in range(1, TOPICS + 1)},
        "popular": popular_by_topic.kept(FakeFeatures(features.matrix)),
        "space": SPACE,
        "pin_space": SPACE,
        "indexes": {SPACE: Replica.of("pins__content__1", rows)},
        "pinnersage": PinnerSageConfig(alpha=1.0),
        "walker": Walker.open(planted_pixie(), contract.vocabulary, folder / "events"),
        "ranker": likes_the_near(),
        "ranker_name": "pinnability_lr@1",
    }
    if learned:
        from tests.bentos.planted_networks import learned_parts

        base |= learned_parts(features, base["indexes"], version)  # type: ignore[arg-type]
    if search:
        from tests.bentos.planted_search import search_parts

        base |= search_parts(features, base["manifest"])  # type: ignore[arg-type]
    return ServingRelease(**{**base, **changes})  # type: ignore[arg-type]


@dataclass
class Stack:
    """A feed service over a planted release, with everything a test may want to look at."""

    release: ServingRelease
    features: FakeFeatures
    pool: Pool
    service: FeedService
    events: Path

    def close(self) -> None:
        self.service.impressions.close()
        self.pool.close()


def planted_stack(
    folder: Path, features: FakeFeatures | None = None, *, threads: int = 8, **changes: object
) -> Stack:
    """A service whose clock stands at NOW_MS. Close it."""
    features = features or planted_features()
    release = planted_release(folder, features, **changes)
    pool = Pool(threads)
    log = EventLog.open(folder / "events", STREAM)
    service = FeedService(
        lambda: release,
        Engines(pool, LocalRetrieval(pool), LocalRanking(pool)),
        Impressions(log, ServedPins()),
        clock_ms=lambda: NOW_MS,
    )
    return Stack(release, features, pool, service, folder / "events")
