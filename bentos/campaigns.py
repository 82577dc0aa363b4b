"""Ads that run now: the lake's campaigns, read again when an ingest has changed them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bentos.features import Flags, Floats, Ints
from validation.file_stamp import file_stamp
from validation.tables import BID, ENDS_AT, PIN_ID, SOURCE, STARTS_AT

Fetch = Callable[[Ints], tuple[Floats, Flags]]


@dataclass(frozen=True)
class Ad:
    """One live campaign, as an answer and the log name it."""

    source: str
    bid: float
    """Micro-currency a click."""


@dataclass(frozen=True)
class LiveAds:
    """n pins with a live campaign, by rising id; of a pin's campaigns the one that bids most."""

    pin_ids: Ints  # (n,)
    sources: NDArray[np.str_]  # (n,)
    bids: NDArray[np.float64]  # (n,) above 0

    def __len__(self) -> int:
        return len(self.pin_ids)

    def rows(self, pin_ids: Ints) -> tuple[Ints, Flags]:
        """Row of each of `pin_ids`, and whether it has one."""
        if len(self) == 0:
            return np.zeros(len(pin_ids), np.int64), np.zeros(len(pin_ids), bool)
        at = np.minimum(np.searchsorted(self.pin_ids, pin_ids), len(self) - 1)
        return at, self.pin_ids[at] == pin_ids

    def of(self, pin_id: int) -> Ad | None:
        """The ad of one pin, None where none runs."""
        at, here = self.rows(np.array([pin_id], np.int64))
        return Ad(str(self.sources[at[0]]), float(self.bids[at[0]])) if here[0] else None


class Campaigns:
    """The campaigns of one home. Thread-safe; a stat a request where nothing has changed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._door = threading.Lock()
        self._stamp: tuple[int, ...] | None = None
        self._rows: dict[str, np.ndarray] = {}

    def live(self, now_ms: int) -> LiveAds:
        """What runs at `now_ms` (Unix ms): begun, not ended, with a bid above 0. Ends are exclusive."""
        rows = self._read()
        if not rows:
            return LiveAds(np.empty(0, np.int64), np.empty(0, "U1"), np.empty(0))
        runs = (rows[STARTS_AT] <= now_ms) & (now_ms < rows[ENDS_AT]) & (rows[BID] > 0)
        order = np.lexsort((-rows[BID][runs], rows[PIN_ID][runs]))
        pins = rows[PIN_ID][runs][order]
        best = np.flatnonzero(np.append(True, pins[1:] != pins[:-1])[: len(pins)])
        return LiveAds(pins[best], rows[SOURCE][runs][order][best], rows[BID][runs][order][best])

    def _read(self) -> dict[str, np.ndarray]:
        try:
            stamp = file_stamp(self._file)
        except FileNotFoundError:
            return {}
        with self._door:
            if stamp != self._stamp:
                self._rows, self._stamp = _rows_of(self._file), stamp
            return self._rows


class SponsoredVectors:
    """Vectors of the pins that have campaigns, kept while the same pins do: a few thousand rows."""

    def __init__(self) -> None:
        self._kept: tuple[Ints, Floats, Flags] | None = None

    def of(self, pin_ids: Ints, fetch: Fetch) -> tuple[Floats, Flags]:
        """(n, d) and which exist (n,); `fetch(pin_ids)` reads them where the pins are others than before."""
        kept = self._kept
        if kept is None or not np.array_equal(kept[0], pin_ids):
            vectors, present = fetch(pin_ids)
            kept = self._kept = (pin_ids, vectors, present)
        return kept[1], kept[2]


def _rows_of(file: Path) -> dict[str, np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file, columns=[PIN_ID, SOURCE, BID, STARTS_AT, ENDS_AT])
    times = {name: table.column(name).cast(pa.int64()).to_numpy() // 1000 for name in (STARTS_AT, ENDS_AT)}
    return {
        PIN_ID: table.column(PIN_ID).to_numpy(),
        SOURCE: np.array(table.column(SOURCE).to_pylist(), np.str_),
        BID: table.column(BID).to_numpy(),
        **times,
    }
