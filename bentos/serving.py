"""Which release is served: follow the alias, load the new beside the old, check it, swap one reference."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Sequence

from bentos.errors import NoRelease, ReleaseMismatch
from bentos.metrics import metrics
from bentos.rejected import Rejected, ReleaseRejected
from bentos.release import ServingRelease
from bentos.trouble import Trouble
from validation.kept_release import nothing_noted
from validation.lease import Lease

logger = logging.getLogger("corkboard.release")


Elsewhere = Callable[[int], Sequence[str]]
"""Names of the services that a request goes on to and that do not hold a release of this version."""

FIRST_WAIT_S = 60.0
"""How long a process that holds no release yet waits for the services behind it; then it serves without."""


def nowhere(version: int) -> Sequence[str]:
    """`Elsewhere` of a process that does everything itself."""
    return ()


def _nobody_notes(release: ServingRelease) -> None:
    """`served` of a holder whose releases nobody notes down."""


class ReleaseHolder:
    """Holds the release that requests are given; a thread follows the alias.

    `newest` gives the version the alias names, None for none; `load` builds that release; `check` answers
    requests with it, raising ReleaseRejected if it is not fit to serve. `lease` says which versions must not be
    cleared away: those in memory, and one that is about to be loaded. The release before stays in memory, and
    going back to it loads nothing. `served` is told of each release that is swapped in; `served_last` gives the
    last it was told of, in this process or one before, and is asked where the alias cannot be read and there
    is no release to serve on.

    A release is served once the services behind this one (`elsewhere`) hold it too: they answer for the one
    before as well, so that no request meets two releases. Where one of them never does, the old one serves on.
    What stays in memory behind a home feed is the release that it last asked for, or whether it is held: when
    the alias goes back and on again between two looks, that is an older one than the one before.
    """

    def __init__(
        self,
        newest: Callable[[], int | None],
        load: Callable[[int], ServingRelease],
        check: Callable[[ServingRelease], None],
        *,
        poll_s: float,
        lease: Lease | None = None,
        elsewhere: Elsewhere = nowhere,
        served_last: Callable[[], int | None] = nothing_noted,
        served: Callable[[ServingRelease], None] = _nobody_notes,
    ) -> None:
        self._newest, self._load, self._check, self._lease = newest, load, check, lease
        self._served_last, self._served = served_last, served
        self._elsewhere, self._started = elsewhere, time.monotonic()
        self._poll_s = poll_s
        self._current: ServingRelease | None = None
        self._previous: ServingRelease | None = None
        self._loaded: ServingRelease | None = None
        """Checked, and waiting for the services behind this one."""
        self._asked: int | None = None
        """The version that a home feed in front of this process last asked for and was given."""
        self._rejected = Rejected()
        self._unloaded = Trouble(logger, "the release cannot be loaded")
        self._why = "no release was promoted yet; run `corkboard promote`"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="release", daemon=True)

    def start(self) -> ReleaseHolder:
        """Follow the alias from now on, in the background."""
        self._thread.start()
        return self

    def close(self) -> None:
        self._stop.set()
        if self._lease is not None:
            self._lease.close()

    @property
    def ready(self) -> bool:
        return self._current is not None

    @property
    def why(self) -> str:
        """Why the newest release is not served; empty when it is."""
        return self._why

    @property
    def rejected(self) -> int | None:
        """The version that was loaded last and is not fit to serve, until it is tried again."""
        return self._rejected.version

    def current(self) -> ServingRelease:
        """The release being served. Raises NoRelease, saying why there is none."""
        if self._current is None:
            raise NoRelease(f"no release is loaded: {self._why}")
        return self._current

    def at(self, version: int | None) -> ServingRelease:
        """The release of `version` (the current one, if None), while it is in memory.

        Raises ReleaseMismatch, NoRelease.
        """
        current, previous = self.current(), self._previous
        if version is None:
            return current
        for release in (current, previous):
            if release is not None and release.version == version:
                self._asked = version
                return release
        raise ReleaseMismatch(f"release {version} is not served here, release {current.version} is; ask again")

    def serve(self, version: int) -> bool:
        """`refresh` to `version`, in place of what an alias names, though it was rejected before."""
        self._newest = lambda: version
        self._rejected.put(None)
        return self.refresh()

    def refresh(self) -> bool:
        """Look at the alias once; True if another release is served now.

        A release that is rejected is left alone until the alias moves, or for AGAIN_S; an alias that cannot be
        read, or files that cannot be fetched or are gone, are tried again at the next look.
        """
        try:
            version = self._wanted()
            release = self._to_serve(version)
        except ReleaseRejected as error:
            self._rejected.put(version)
            self._why = str(error)
            metrics().swaps.labels("rejected").inc()
            logger.error("release %s is rejected: %s", version, error)
            return False
        except Exception as error:
            # Whatever is wrong with the new release, the registry or the network, the old one serves on.
            self._why = f"{type(error).__name__}: {error}"
            metrics().swaps.labels("failed").inc()
            self._unloaded.met(error)
            return False
        self._unloaded.over()
        if release is None:
            return False
        self._previous, self._current, self._loaded = self._beside(release), release, None
        self._rejected.put(None)
        self._why = ""
        metrics().release.set(release.version)
        metrics().swaps.labels("served").inc()
        # What was loaded now lives as long as the release: keep the collector from walking it on every pass.
        gc.collect()
        gc.freeze()
        logger.info("serving release %d (%s)", release.version, ", ".join(release.spaces))
        try:
            self._hold()  # what was said before the load says more, not less
            self._served(release)
        except OSError as error:
            logger.warning("what is served cannot be noted down: %s", error)
        return True

    def _to_serve(self, version: int | None) -> ServingRelease | None:
        """The release of `version`, loaded, checked and held by the services behind; None where nothing is to
        be swapped in at this look. Raises ReleaseRejected, and what `load` and `check` do."""
        if version != self._rejected.version:
            self._rejected.put(None)
        served = self._current.version if self._current is not None else None
        if version is None or version in (self._rejected.version, served):
            self._let_go()
            if version is not None and version == served:
                self._why = ""
            return None
        release = self._kept(version)
        if release is None:
            self._hold(version)
            release = self._load(version)
            self._check(release)
            self._loaded = release
        return None if self._waits(version) else release

    def _wanted(self) -> int | None:
        """What the alias names. Raises what `newest` does, while a release is held or none is noted."""
        try:
            return self._newest()
        except Exception as error:
            last = self._served_last() if self._current is None else None
            if last is None:
                raise
            logger.warning("release %d, served last, stands for the alias: %r", last, error)
            return last

    def _kept(self, version: int) -> ServingRelease | None:
        """The release of `version` if it is in memory: it was checked when it was loaded."""
        for release in (self._previous, self._loaded):
            if release is not None and release.version == version:
                return release
        return None

    def _beside(self, release: ServingRelease) -> ServingRelease | None:
        """What stays in memory when `release` is swapped in."""
        previous = self._previous
        if previous is not None and previous is not release and previous.version == self._asked:
            return previous
        return self._current

    def _let_go(self) -> None:
        """Of a release that waited and is asked for no more."""
        if self._loaded is not None:
            self._loaded, self._why = None, ""
            self._hold()

    def _waits(self, version: int) -> bool:
        """Whether the release must wait for the services behind this one."""
        late = ", ".join(self._elsewhere(version))
        if not late:
            return False
        if self._current is None and time.monotonic() - self._started > FIRST_WAIT_S:
            logger.warning("release %d is served although %s does not hold it", version, late)
            return False
        why = f"release {version} waits until {late} holds it; see its log where it does not"
        if why != self._why:
            metrics().swaps.labels("waiting").inc()
            logger.info(why)
        self._why = why
        return True

    def _hold(self, *loading: int) -> None:
        if self._lease is not None:
            held = (self._previous, self._current, self._loaded)
            self._lease.hold([*(release.version for release in held if release is not None), *loading])

    def _follow(self) -> None:
        while not self._stop.is_set():
            self.refresh()
            self._stop.wait(self._poll_s)
