"""What is read online of a user and of pins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from feature_repo.history import History
from feature_repo.sequence import Sequence as UserSequence

_DAY_S = 86_400.0


class Freshness(BaseModel):
    """How old features may be before they count as missing, in seconds by view; None: any age.

    A daily view is as old as its last run (its row 0), any other as old as the row itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_sequence: float | None = None
    user_history: float | None = 30 * _DAY_S
    user_profile: float | None = 30 * _DAY_S
    pin_content: float | None = None
    pin_stats: float | None = 30 * _DAY_S
    pin_embedding: float | None = None
    topic_features: float | None = 30 * _DAY_S
    board_features: float | None = 30 * _DAY_S
    user_embedding: float | None = None
    user_interests: float | None = None

    @classmethod
    def unbounded(cls) -> Freshness:
        """Any age will do: for data whose clock is not the present one."""
        return cls(**dict.fromkeys(cls.model_fields))


@dataclass(frozen=True, eq=False)
class Interests:
    """A user's interests in one space, most important first as written."""

    medoid_pin_ids: np.ndarray  # (k,) int64
    importances: np.ndarray  # (k,) float32
    cluster_sizes: np.ndarray  # (k,) int64
    vectors: np.ndarray  # (k, d) float32


@dataclass(frozen=True, eq=False)
class UserFeatures:
    """What is known of one user. An unknown user has an empty sequence, zero scalars and nothing else."""

    user_id: int
    sequence: UserSequence
    scalars: np.ndarray
    """(len(USER_SCALARS),) float32."""
    country: str | None
    language: str | None
    state: str | None
    created_at_ms: int
    """0 where unknown."""
    followed_topics: np.ndarray  # int64
    followed_boards: np.ndarray  # int64
    interests: Mapping[str, Interests]
    """By space; only spaces with a fresh row."""
    embeddings: Mapping[str, np.ndarray]
    """The user's vector (d,) float32 by space; only spaces with a fresh row."""
    history: History
    """Empty where it was not asked for, and for a user of whom the last batch knew nothing."""
    event_times_ms: Mapping[str, int]
    """Event time of each view's row that was found, stale ones included."""
    stale: tuple[str, ...]
    """Views whose row was found and too old to use."""

    @property
    def known(self) -> bool:
        return bool(self.event_times_ms)


@dataclass(frozen=True, eq=False)
class PinFeatures:
    """What the ranker reads of n pins, in the order asked; rows of absent pins are zero."""

    ids: np.ndarray  # (n,) int64
    scalars: np.ndarray  # (n, len(PIN_SCALARS)) float32
    created_at_ms: np.ndarray  # (n,) int64
    topics: np.ndarray  # (n, PIN_TOPICS) int64, zero-padded
    present: np.ndarray  # (n,) bool
    age_s: float | None
    """Seconds since the counters were last computed; None where they never were."""
    stale: bool
    """True when the counters were too old, and all pins count as absent."""


@dataclass(frozen=True)
class PinCard:
    """What a page shows of a pin."""

    pin_id: int
    title: str = ""
    description: str = ""
    link_domain: str = ""
    image: str = ""
    topics: tuple[int, ...] = ()
    present: bool = False
