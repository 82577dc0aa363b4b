"""What many people search for, to be offered while somebody types."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from validation.queries import normal

if TYPE_CHECKING:
    import pandas as pd

FEWEST_USERS = 3
"""A query that fewer made may say who they are, and is never offered."""
MOST = 10_000
"""Queries kept, those that most people made."""
LONGEST = 80
"""Characters of a query worth offering."""

FILE = "popular_queries.json"


@dataclass(frozen=True)
class PopularQueries:
    """Queries in their normal spelling, those that most people made first."""

    users: dict[str, int]
    """How many people made each."""

    @classmethod
    def of(cls, searches: pd.DataFrame) -> PopularQueries:
        """From one row a search, columns `user_id` and `query`; a person counts once a query.

        Queries that differ in case or spaces alone are one. Equal counts stand by the alphabet.
        """
        distinct = searches.dropna(subset=["query"]).drop_duplicates(["user_id", "query"])
        spoken = {query: normal(query) for query in distinct["query"].unique()}
        made = distinct.assign(query=distinct["query"].map(spoken)).drop_duplicates(["user_id", "query"])
        counts = made["query"].value_counts()
        kept = [(q, int(n)) for q, n in counts.items() if n >= FEWEST_USERS and 0 < len(q) <= LONGEST]
        return cls(dict(sorted(kept, key=lambda pair: (-pair[1], pair[0]))[:MOST]))

    def starting(self, prefix: str, n: int) -> list[tuple[str, int]]:
        """At most `n` (query, people) that begin with `prefix`, then those of which a later word does."""
        typed = normal(prefix)
        first = [pair for pair in self.users.items() if pair[0].startswith(typed)]
        later = [pair for pair in self.users.items() if f" {typed}" in pair[0]] if len(first) < n else []
        return list(dict.fromkeys(first + later))[:n]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps(self.users, ensure_ascii=False, indent=0), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> PopularQueries:
        """Raises FileNotFoundError where the folder holds none."""
        return cls(json.loads((folder / FILE).read_text(encoding="utf-8")))
