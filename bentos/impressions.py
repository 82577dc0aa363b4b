"""What was shown: logged with position, source, propensity and release, and left out of the next answers."""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
import time
from collections import OrderedDict, deque
from concurrent.futures import Future

import numpy as np

from bentos.digests import record_id
from bentos.event_log import Appended, LogClosed, LogFull, RecordLog
from bentos.features import Ints
from bentos.feed import Feed
from bentos.ranking_stages import RANKED
from bentos.settings import MAKERS
from bentos.why import PIN_KINDS, TOPIC_KINDS
from training.models.ads.ranking import CLICK
from validation.events import to_lines
from validation.queries import logged

logger = logging.getLogger("corkboard.impressions")

STREAM = "impressions"
USERS = 100_000
PER_USER = 300

_EPOCH_MS = 1_577_836_800_000  # 2020-01-01
_COUNTER = itertools.count(secrets.randbelow(1 << 12))


def number_requests_of(maker: int) -> None:
    """From now on this process's request ids are none that makers of other numbers, 0 to MAKERS - 1, give."""
    global _COUNTER
    _COUNTER = itertools.count(maker + MAKERS * secrets.randbelow(1 << 8), MAKERS)


def new_request_id(now_ms: int | None = None) -> int:
    """A request id below 2^53, so that every JSON reader keeps it: 41 bits of time, 12 of a counter."""
    now = int(time.time() * 1000) if now_ms is None else now_ms
    return ((now - _EPOCH_MS) << 12) | (next(_COUNTER) & 0xFFF)


class ServedPins:
    """The last pins each user was shown, oldest first; the least recently seen users are forgotten."""

    def __init__(self, users: int = USERS, per_user: int = PER_USER) -> None:
        self._users, self._per_user = users, per_user
        self._pins: OrderedDict[int, deque[int]] = OrderedDict()
        self._door = threading.Lock()

    def add(self, user_id: int, pin_ids: list[int]) -> None:
        """Remember that `user_id` was shown `pin_ids`."""
        if user_id == 0:
            return
        with self._door:
            shown = self._pins.setdefault(user_id, deque(maxlen=self._per_user))
            shown.extend(pin_ids)
            self._pins.move_to_end(user_id)
            while len(self._pins) > self._users:
                self._pins.popitem(last=False)

    def of(self, user_id: int) -> Ints:
        """Pins shown to `user_id`, oldest first; empty for a stranger."""
        with self._door:
            return np.array(self._pins.get(user_id, ()), np.int64)


class Impressions:
    """Writes an answer's pins to the log behind the answer: a log that is full or closed never costs a feed."""

    def __init__(self, log: RecordLog | None, served: ServedPins) -> None:
        self._log = log
        self._served = served

    def served(self, user_id: int) -> Ints:
        return self._served.of(user_id)

    def record(self, feed: Feed) -> None:
        """Remember and log `feed.candidates`, in their order.

        Nobody's impressions are not logged: training needs a user.
        """
        if feed.user_id == 0 or len(feed.candidates) == 0:
            return
        if feed.surface == "homefeed":
            self._served.add(feed.user_id, feed.candidates.pin_ids.tolist())
        if self._log is None:
            return
        try:
            self._log.append_lines(*lines_of(feed)).add_done_callback(_report)
        except (LogClosed, LogFull) as error:
            logger.error("impressions of request %d are lost: %s", feed.request_id, error)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()


def lines_of(feed: Feed) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
    """Event ids and lines of an ImpressionRecord for each pin shown: what `to_line` writes, in a tenth of the
    time.

    The propensity is 1: given the user's medoids drawn for this request, the policy has no choice left.
    """
    columns, alike, ranked = feed.candidates, feed.recorded("impression"), _ranked(feed)
    query = logged(feed.query)
    pin_ids = columns.pin_ids.tolist()
    event_ids = tuple(impression_id(feed.request_id, pin_id) for pin_id in pin_ids)
    rows = zip(
        event_ids,
        pin_ids,
        columns.sources,
        columns.kinds,
        columns.anchors.tolist(),
        columns.scores.tolist(),
        feed.foretold(columns.pin_ids),
        feed.sponsors(columns.pin_ids),
        strict=True,
    )
    records: list[Record] = []
    for nth, (event_id, pin_id, source, kind, anchor, score, heads, ad) in enumerate(rows):
        record = {  # what is absent is left out
            **alike,
            "event_id": event_id,
            "pin_id": pin_id,
            "position": feed.place(nth),
            "source": ad.source if ad else source,
        }
        if anchor and (kind in TOPIC_KINDS or kind in PIN_KINDS):
            record["anchor" if kind in PIN_KINDS else "source_topic"] = anchor
        record |= {"propensity": 1.0, "stage": feed.ordered_by, "score": score, **ranked}
        if heads:
            record["heads"] = heads
        if ad:
            record["bid"] = ad.bid
        if ad and CLICK in heads:
            record["predicted"] = heads[CLICK]
        if query:
            record["query"] = query
        records.append(record)
    return event_ids, to_lines(records)


Record = dict[str, object]


def _ranked(feed: Feed) -> Record:
    """What the records of ranked pins say alike, and where `heads` stand among it."""
    heads, said = feed.heads, Record()
    if heads is not None:
        said |= {"ranker": heads.ranker, "heads": {}, "calibrated": heads.calibrated}
    if feed.ordered_by == RANKED:
        said["policy"] = feed.page_policy.digest
    return said


def impression_id(request_id: int, pin_id: int) -> int:
    """A 63-bit id that the same showing always has."""
    return record_id(b"%d:%d" % (request_id, pin_id))


def _report(done: Future[Appended]) -> None:
    error = done.exception()
    if error is not None:
        logger.error("impressions are lost: %s", error)
