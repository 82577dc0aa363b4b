"""Users as they were last read, for the time in which the feature store cannot be."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from bentos.features import User

USERS = 2_000
"""Users kept: about 20 KB each, with a full history 90."""

OLDEST_S = 3_600.0
"""A user read longer ago is a stranger."""


class LastGoodUsers:
    """The users read last, at most `users` of them. Thread-safe; `clock` gives seconds.

    A user is kept for one set of spaces: vectors of another release's spaces are never given.
    """

    def __init__(
        self,
        users: int = USERS,
        oldest_s: float = OLDEST_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._oldest_s, self._clock = users, oldest_s, clock
        self._kept: OrderedDict[int, tuple[float, tuple[str | None, ...], User]] = OrderedDict()
        self._door = threading.Lock()

    def keep(self, user: User, spaces: tuple[str | None, ...]) -> None:
        """Remember a user just read; one of whom nothing is known is not worth it."""
        if not user.known:
            return
        with self._door:
            self._kept[user.user_id] = (self._clock(), spaces, user)
            self._kept.move_to_end(user.user_id)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def of(self, user_id: int, spaces: tuple[str | None, ...]) -> tuple[User, float] | None:
        """The user and their age in seconds; None where there is none of these spaces, or it is too old."""
        with self._door:
            kept = self._kept.get(user_id)
        if kept is None or kept[1] != spaces:
            return None
        age_s = self._clock() - kept[0]
        return (kept[2], age_s) if age_s <= self._oldest_s else None
