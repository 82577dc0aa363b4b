"""Who comes when, with what in mind: the requests of a block of planted users on one day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.data.world_config import MS_DAY, WorldConfig
from training.data.world_topics import TopicTree
from training.data.world_users import Users

_LAST_SESSION_MS = MS_DAY - 2 * 3_600_000
"""No session starts in a day's last two hours: a day's rows all lie within the day."""


@dataclass(frozen=True)
class Visits:
    """Requests of one block on one day; arrays (R,)."""

    who: np.ndarray
    """Rows of users."""
    at_ms: np.ndarray
    intent: np.ndarray
    """Interest slot that the session follows."""
    search: np.ndarray
    """bool."""
    word: np.ndarray
    """0 to 19; a search with an even one names the style."""

    @classmethod
    def draw(
        cls,
        users: Users,
        start: int,
        stop: int,
        day_ms: int,
        config: WorldConfig,
        tree: TopicTree,
        rng: np.random.Generator,
    ) -> Visits:
        rate = np.where(users.created_ms[start:stop] < day_ms, users.rate[start:stop], 0.0)
        session_user = start + np.repeat(np.arange(stop - start), rng.poisson(rate))
        n = len(session_user)
        hour = np.clip(rng.normal(16.5, 4.5, n), 0.0, _LAST_SESSION_MS / 3_600_000 - 0.01)
        begins = day_ms + (hour * 3_600_000).astype(np.int64)
        weight = users.weight[session_user]
        intent = (rng.random(n)[:, None] >= np.cumsum(weight, axis=1)).sum(axis=1)
        intent = np.minimum(intent, (weight > 0).sum(axis=1) - 1)
        pages = 1 + np.minimum(rng.poisson(config.requests_per_session - 1, n), 9)
        session = np.repeat(np.arange(n), pages)
        nth = np.arange(len(session)) - np.repeat(np.cumsum(pages) - pages, pages)
        gap = 300_000 + (rng.random(len(session)) * 60_000).astype(np.int64)
        return cls(
            who=session_user[session],
            at_ms=begins[session] + nth * gap,
            intent=intent[session],
            search=rng.random(len(session)) < config.search_share,
            word=rng.integers(0, 20, len(session)),
        )
