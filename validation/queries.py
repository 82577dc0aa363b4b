"""One spelling for queries that read the same, so that they can be compared and joined."""

from __future__ import annotations

import unicodedata

MAX_QUERY = 2_000
"""Characters of one query, as typed and in normal spelling: NFKC can make 18 of one."""

LOGGED_QUERY = 200
"""Characters of a query that each of its impressions repeats, and that is all that is learned from."""


def normal(query: str) -> str:
    """`query` in Unicode form NFKC, case folded, without control characters and lone surrogates, which no file
    takes, its words one space apart.

    Empty where nothing is left of it, or only what nobody sees (Unicode's format characters).
    """
    text = unicodedata.normalize("NFKC", query).casefold()
    kept = " ".join("".join(c if unicodedata.category(c) not in ("Cc", "Cs") else " " for c in text).split())
    return kept if any(unicodedata.category(c) not in ("Cf", "Zs") for c in kept) else ""


def logged(query: str) -> str:
    """The beginning of `query` in normal spelling, as impressions keep it and training reads it."""
    return normal(query)[:LOGGED_QUERY].rstrip()
