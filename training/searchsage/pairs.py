"""(query, engaged pin), by time: what people saved and stayed with after they searched.

Where nobody searched, a pin's title stands for a query that it answers. That teaches words and not what people
mean by them, and whoever uses such pairs says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.evaluation.retrieval import NothingHeldOut
from validation.lake import Lake
from validation.queries import logged, normal
from validation.tables import Polarity, Vocabulary

Ints = NDArray[np.int64]

STRONG = ("save", "long_click", "download")
"""Actions that say a pin answered the query. A vocabulary with none of them has its positive ones instead."""

HOLDOUT_DAYS = (1, 2, 4, 7)
HOLDOUT_PAIRS = 1_000
"""The last day is held out, or as many of these days as it takes until so many pairs are in them."""
LEAST_PAIRS = 200
"""Fewer pairs from searches teach nothing: titles are taken."""
TITLES_HELD = 2_000
"""Titles held out, the newest pins'; never more than a tenth of all."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TooFewQueries(ValueError):
    """Neither searches nor titles make enough pairs to learn from."""


@dataclass(frozen=True)
class QueryPairs:
    """n pairs of a query and a pin, in ascending time; parallel arrays."""

    queries: tuple[str, ...]
    """Distinct, as `validation.queries.normal` writes them."""
    query: Ints  # (n,) place in `queries`
    pins: Ints  # (n,) pin ids
    times_ms: Ints  # (n,)

    def __len__(self) -> int:
        return len(self.pins)

    def where(self, kept: NDArray[np.bool_]) -> QueryPairs:
        """The pairs of a mask (n,), with the queries that they have."""
        used, query = np.unique(self.query[kept], return_inverse=True)
        queries = tuple(self.queries[place] for place in used.tolist())
        return QueryPairs(queries, query.astype(np.int64), self.pins[kept], self.times_ms[kept])

    def capped(self, most: int, seed: int) -> QueryPairs:
        """At most `most` pairs of each pin, drawn evenly: without a cap popular pins are the answer to all."""
        order = np.random.default_rng([seed, 3]).permutation(len(self))
        nth = pd.Series(self.pins[order]).groupby(self.pins[order]).cumcount().to_numpy()
        kept = np.zeros(len(self), bool)
        kept[order] = nth < most
        return self.where(kept)


@dataclass(frozen=True)
class SplitPairs:
    """Pairs to learn from and later ones to measure on."""

    train: QueryPairs
    held: QueryPairs
    cut: datetime
    """UTC. Everything to learn from lies before it; so do the pins of held-out pairs."""
    of_titles: bool = False
    """Whether titles stand for queries. Then the held-out pairs are those of the newest pins."""


def strong_codes(vocabulary: Vocabulary) -> tuple[int, ...]:
    """Codes of the actions that make a pair."""
    named = [name for name in STRONG if name in vocabulary.names]
    return tuple(vocabulary.code(n) for n in named) or vocabulary.codes(Polarity.POSITIVE)


def searched_pairs(lake: Lake, start: datetime | None, end: datetime) -> QueryPairs:
    """What people did after they searched, `start` <= time < `end`: one pair a (user, query, pin), its first.

    Raises LakeError without an actions table.
    """
    columns = ["user_id", "query", "pin_id", "action", "timestamp"]
    rows = lake.read("actions", columns, start=start, end=end)
    rows = rows[rows["query"].notna() & rows["action"].isin(strong_codes(lake.contract().vocabulary))]
    plain = {text: logged(text) for text in rows["query"].unique()}
    rows = rows.assign(query=rows["query"].map(plain)).drop_duplicates(["user_id", "query", "pin_id"])
    return _pairs(rows[rows["query"] != ""], rows["timestamp"])


def title_pairs(lake: Lake, end: datetime) -> QueryPairs:
    """(title, pin) of every pin made before `end`, oldest first."""
    pins = lake.read("pins", ["pin_id", "created_at", "title"])
    pins = pins[pins["title"].notna() & (pins["created_at"] < end)]
    pins = pins.assign(query=pins["title"].map(normal)).sort_values(["created_at", "pin_id"], kind="stable")
    return _pairs(pins[pins["query"] != ""], pins["created_at"])


def split_pairs(
    lake: Lake, end: datetime, days: int | None = None, *, since: datetime | None = None
) -> SplitPairs:
    """Pairs of the `days` before `end` (UTC) are held out, those before are learned from.

    By default of the last day, or of up to a week until HOLDOUT_PAIRS are held out; of what came before
    `since` nothing is, for weights may have been learned from it. Only pins made before the cut can be found,
    so later ones are not held out. Titles are taken where searches make too few pairs. Raises TooFewQueries,
    and NothingHeldOut where nobody searched after the cut.
    """
    pairs = searched_pairs(lake, None, end)
    created = lake.read("pins", ["pin_id", "created_at"]).set_index("pin_id")["created_at"]
    made_ms = _ms(created.reindex(pairs.pins))
    split = None
    for tried in HOLDOUT_DAYS if days is None else (days,):
        cut = end - timedelta(days=tried)
        cut = cut if since is None else max(cut, since)
        at = int((cut - _EPOCH) / timedelta(milliseconds=1))
        split = SplitPairs(
            pairs.where(pairs.times_ms < at), pairs.where((pairs.times_ms >= at) & (made_ms < at)), cut
        )
        if cut == since or len(split.held) >= HOLDOUT_PAIRS:
            break
    assert split is not None
    if len(split.train) < LEAST_PAIRS:
        return _split_titles(lake, end, since)
    if not len(split.held):
        raise NothingHeldOut(f"nothing was saved or stayed with after a search from {split.cut} on")
    return split


def _split_titles(lake: Lake, end: datetime, since: datetime | None) -> SplitPairs:
    """The newest pins' titles are held out, of those made from `since` on where that is given."""
    pairs = title_pairs(lake, end)
    most = min(TITLES_HELD, len(pairs) // 10)
    if len(pairs) - most < LEAST_PAIRS or not most:
        raise TooFewQueries(
            f"fewer than {LEAST_PAIRS} pins were saved or stayed with after a search, and {len(pairs)} pins "
            "have a title; bring actions with a query"
        )
    held = np.arange(len(pairs)) >= len(pairs) - most
    if since is not None:
        held &= pairs.times_ms >= since.timestamp() * 1000
        if not held.any():
            raise NothingHeldOut(f"no pin with a title was made from {since} on")
    return SplitPairs(pairs.where(~held), pairs.where(held), end, of_titles=True)


def _pairs(rows: pd.DataFrame, times: pd.Series) -> QueryPairs:
    codes, queries = pd.factorize(rows["query"])
    times_ms = _ms(times.reindex(rows.index))
    order = np.argsort(times_ms, kind="stable")
    return QueryPairs(
        tuple(str(query) for query in queries),
        codes.astype(np.int64)[order],
        rows["pin_id"].to_numpy(np.int64)[order],
        times_ms[order],
    )


def _ms(times: pd.Series) -> Ints:
    """Unix ms; 0 where unknown."""
    known = pd.to_datetime(times, utc=True).fillna(pd.Timestamp(0, tz="UTC"))
    return known.dt.as_unit("ms").astype("int64").to_numpy()
