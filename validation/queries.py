"""One spelling for queries that read the same, so that they can be compared and joined."""

from __future__ import annotations

import unicodedata


def normal(query: str) -> str:
    """`query` in Unicode form NFKC, case folded, without control characters and lone surrogates, which no file
    takes, its words one space apart.

    Empty where nothing is left of it.
    """
    text = unicodedata.normalize("NFKC", query).casefold()
    return " ".join("".join(c if unicodedata.category(c) not in ("Cc", "Cs") else " " for c in text).split())
