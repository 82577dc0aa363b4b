"""Impressions of the Complete Journey, made of what its stores promoted.

Nobody logged what a shopper saw. What is known is which products a store promoted in a week,
in its mailer or on a display. For every basket the promoted products that were bought are impressions, with
propensity 1, and so is a uniform sample of the promoted products that were not bought, with the sampling rate
as propensity: weighting by 1 / propensity gives back the whole promotion. There was no order, so every
position is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import duckdb

SAMPLED_PER_BASKET = 8
"""Promoted products not bought that become impressions of a basket."""

_WEEKS, _PINS = 100, 1_000_000_000
"""More than any week, more than any product number."""

_PLACES = np.array(["", "mailer", "display", "display+mailer"])


def impressions(db: duckdb.DuckDBPyConnection, rng: np.random.Generator) -> tuple[pa.Table | None, str]:
    """Promoted products of each basket's store and week: those bought, and a sample of the others.

    Reads the tables `bought` and `promotions` of `db`. Returns rows of the contract's impressions, baskets in
    time order, and a note for the contract; no rows where nothing was promoted to anybody who bought.
    """
    promoted, where = _promoted(db)
    pins = promoted % _PINS
    baskets = db.sql(
        """
        SELECT store_id, week, board_id, any_value(user_id) AS user_id, min(timestamp) AS timestamp,
               list(DISTINCT pin_id ORDER BY pin_id) AS pins
        FROM bought WHERE quantity > 0 GROUP BY store_id, week, board_id ORDER BY min(timestamp), board_id
    """
    ).to_arrow_table()
    trip = (baskets.column("store_id").to_numpy() * _WEEKS + baskets.column("week").to_numpy()) * _PINS
    starts = np.searchsorted(promoted, trip)
    ends = np.searchsorted(promoted, trip + _PINS)
    bought = baskets.column("pins").combine_chunks()
    bought_ends = bought.offsets.to_numpy()
    bought_pins = bought.values.to_numpy()
    basket, row, propensity = [], [], []
    for b, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        if start == end:
            continue
        mine = bought_pins[bought_ends[b] : bought_ends[b + 1]]
        seen = _members(pins[start:end], mine)
        others = _sample_without(rng, end - start, seen, SAMPLED_PER_BASKET)
        rate = len(others) / max(1, end - start - len(seen))
        basket.append(np.full(len(seen) + len(others), b))
        row.append(start + np.concatenate([seen, others]))
        propensity.append(np.repeat([1.0, rate], [len(seen), len(others)]))
    if not basket:
        return None, "No basket is of a store and week with promotions, so there are no impressions."
    chosen, at = np.concatenate(basket), np.concatenate(row)
    weights = np.concatenate(propensity).astype(np.float32)
    trips = baskets.drop_columns(["pins"]).take(pa.array(chosen))
    times = trips.column("timestamp").cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
    table = pa.table(
        {
            "request_id": trips.column("board_id"),
            "user_id": trips.column("user_id"),
            "pin_id": pa.array(pins[at]),
            "position": pa.array(np.zeros(len(at), np.int32)),
            "timestamp": times,
            "surface": pa.array(["store"] * len(at)),
            "source": pa.array(_PLACES[where[at]]),
            "propensity": pa.array(weights),
        }
    )
    return table, (
        f"Impressions are made, not logged: {len(at):,} products promoted in the basket's store and week "
        f"(source: display, mailer or both), all {int((weights == 1).sum()):,} that were bought and up to "
        f"{SAMPLED_PER_BASKET} others a basket, drawn uniformly, with the rate as propensity. Nothing is known "
        "of their order: every position is 0. Purchases of products not promoted have no impression."
    )


def _promoted(db: duckdb.DuckDBPyConnection) -> tuple[np.ndarray, np.ndarray]:
    """Every promotion of a product that was ever bought, in a store where somebody bought.

    (n,) int64 keys, ascending and distinct: `(store * _WEEKS + week) * _PINS + pin`, so that those of one
    store and week are a slice; and (n,) int8 places in _PLACES. Twenty million rows: sorted here as numbers,
    which takes half the time and memory of grouping them in SQL.
    """
    rows = db.sql(
        f"""
        SELECT (store_id * {_WEEKS} + week) * {_PINS} + pin_id AS key,
               display::TINYINT * 2 + mailer::TINYINT AS place
        FROM promotions
        WHERE (display OR mailer) AND pin_id IN (SELECT pin_id FROM bought)
              AND store_id IN (SELECT store_id FROM bought)
    """
    ).to_arrow_table()
    if not rows.num_rows:
        return np.zeros(0, np.int64), np.zeros(0, np.int8)
    key = rows.column("key").to_numpy()
    order = np.argsort(key)
    key, place = key[order], rows.column("place").to_numpy()[order]
    first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    return key[first], np.bitwise_or.reduceat(place, first)


def _members(ordered: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Ascending places in `ordered` (distinct, ascending) of those of `wanted` (ascending) that it holds."""
    places = np.searchsorted(ordered, wanted)
    inside = places < len(ordered)
    places, wanted = places[inside], wanted[inside]
    return places[ordered[places] == wanted]


def _sample_without(rng: np.random.Generator, size: int, without: np.ndarray, count: int) -> np.ndarray:
    """At most `count` distinct places of range(size), ascending, uniform over those not in `without`.

    `without` is ascending. The k-th free place is k plus the number of taken places up to it.
    """
    free = size - len(without)
    drawn = np.sort(rng.choice(free, min(count, free), replace=False, shuffle=False))
    return drawn + np.searchsorted(without - np.arange(len(without)), drawn, side="right")
