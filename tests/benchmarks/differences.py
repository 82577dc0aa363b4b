"""Differences between two models as benchmarks tell them: a table, and whether each is told apart from none."""

from __future__ import annotations

from collections.abc import Iterable

from training.evaluation.spread import Spread


def verdict(spread: Spread) -> str:
    """Whether a difference is told apart from none by users and by seeds, and which way."""
    if spread.level or abs(spread.mean) <= (spread.seeds or 0.0):
        return "level"
    return "shown" if spread.mean > 0 else "reversed"


def markdown(title: str, differences: Iterable[tuple[str, Spread]]) -> str:
    """The differences by name, as a table whose first column is `title`."""
    lines = [f"| {title} | difference, 95 % over users | over seeds | |", "|---|---|---|---|"]
    for name, spread in differences:
        change = f"{spread.mean:+.4f} ± {spread.error or 0.0:.4f}"
        lines.append(f"| {name} | {change} | {spread.seeds or 0.0:.4f} | {verdict(spread)} |")
    return "\n".join(lines)
