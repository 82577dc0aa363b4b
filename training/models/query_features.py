"""Features of a query meeting a pin; the same function makes them for training rows and for a request.

They read nothing but the query and what pins say. Whatever a pin says was there when it was shown; pins made
later touch an earlier row only through how rare its words are over the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from validation.queries import logged
from validation.tables import SEARCH

if TYPE_CHECKING:
    from training.models.lexical import LexicalIndex

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

QUERY_MATCH, ON_SEARCH = "query_match", "on_search"
QUERY_FEATURES: tuple[str, ...] = (QUERY_MATCH, ON_SEARCH)
"""Float32 columns, in order.

query_match  BM25 of the pin as a share of what the query's words could reach; 0 without a query
on_search    1 where the pin is shown among results of a search
"""


def query_features(words: LexicalIndex | None, query: str | None, surface: str | None, pin_ids: Ints) -> Floats:
    """QUERY_FEATURES of one request's candidates, (n, 2) float32. Without `words` nothing matches."""
    out = np.zeros((len(pin_ids), len(QUERY_FEATURES)), np.float32)
    if words is not None and query:
        out[:, 0] = words.scores(logged(query), pin_ids)
    out[:, 1] = surface == SEARCH
    return out


def row_query_features(
    words: Callable[[], LexicalIndex | None],
    queries: Sequence[str | None],
    surfaces: Sequence[str | None],
    pin_ids: Ints,
) -> Floats:
    """QUERY_FEATURES of rows of many requests, (n, 2) float32; `words` is asked only where there is a query."""
    import pandas as pd

    out = np.zeros((len(pin_ids), len(QUERY_FEATURES)), np.float32)
    rows = pd.DataFrame({"query": queries, "surface": surfaces}, dtype=object)
    kept = rows[rows["query"].notna() | (rows["surface"] == SEARCH)]
    index = words() if kept["query"].notna().any() else None
    for (query, surface), at in kept.groupby(["query", "surface"], dropna=False).indices.items():
        own = kept.index.to_numpy()[at]
        out[own] = query_features(index, query if isinstance(query, str) else None, surface, pin_ids[own])
    return out
