"""The page policy of a home: a file that is read again when it changes, while requests go on."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from bentos.release import ServingRelease
from training.models.page_policy import PagePolicy, read_policy
from training.models.utility import UtilityError
from validation.file_stamp import file_stamp

logger = logging.getLogger("corkboard.policy")


@dataclass(frozen=True)
class ServedPolicy:
    """The policy that a request is answered by."""

    policy: PagePolicy
    refused: str | None = None
    """Why the file as it is now is not that policy; None where it is."""


class PolicyFile:
    """Gives each request the policy of `file`: its newest version, the defaults where there is none.

    A version that does not parse, or does not fit the data set or the ranker, is refused by name, once in the
    log and in every answer until it is mended; the last good one serves on. Where `named`, a file that is not
    there is refused too; otherwise it stands for the defaults. Thread-safe.
    """

    def __init__(self, file: Path, *, named: bool = False) -> None:
        self._file, self._named = file, named
        self._seen: object = None
        self._served: ServedPolicy | None = None
        self._door = threading.Lock()

    def current(self, release: ServingRelease) -> ServedPolicy:
        """The policy of now for `release`; a stat where nothing has changed."""
        stamp = self._stamp()
        with self._door:
            if self._served is None or (release.version, stamp) != self._seen:
                self._served = self._read(release, there=bool(stamp))
                self._seen = (release.version, stamp)
            return self._served

    def _stamp(self) -> tuple[int, ...]:
        """What changes when the file does; empty where there is none."""
        try:
            return file_stamp(self._file)
        except OSError:
            return ()

    def _read(self, release: ServingRelease, *, there: bool) -> ServedPolicy:
        if not there and not self._named:
            return ServedPolicy(release.policy)
        try:
            policy = read_policy(self._file, release.contract.vocabulary, release.heads)
        except UtilityError as error:
            logger.error("the page policy is refused: %s", error)
            # Whoever asks for a feed reads this; where the file lies is the operator's to know.
            told = str(error).replace(str(self._file), self._file.name)
            return ServedPolicy(self._last_good(release), told)
        logger.info("pages are made by policy %s of %s", policy.digest, self._file)
        return ServedPolicy(policy)

    def _last_good(self, release: ServingRelease) -> PagePolicy:
        """The policy before; the defaults where there was none, or it weighs no head of the ranker."""
        kept = self._served.policy if self._served else release.policy
        try:
            if release.heads:
                kept.vector(release.heads)
        except UtilityError:
            return release.policy
        return kept
