"""The online source: PinnerSage over one space and another, and plain neighbours of the last pins.

Everything is as of a cut: interests from the actions before it, vectors of the graph as it stood. Users ask for
99 pins that existed then and that they had not acted on; the days after the cut say what was found, the world's
truth what should have been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from training.data.world_truth import WorldTruth
from training.evaluation.pinnersage_alpha import choose_alpha
from training.evaluation.planted import interest_share, mean_affinity
from training.evaluation.retrieval import HeldOut, evaluate, hold_out
from training.models.interactions import Pins
from training.models.pinnersage import (
    History,
    PinnerSageConfig,
    sample_medoids,
    user_interests,
)
from training.pipelines.pinnersage import nearest
from training.pipelines.user_actions import UserActions
from validation.lake import Lake

Floats = NDArray[np.float32]

USERS = 700
ASKED = 99
LAST = 3
"""Last pins that plain neighbours start from: as many as PinnerSage samples medoids."""
ALPHAS = (1.0, 2.0, 4.0, 8.0)
SEED = 7


@dataclass(frozen=True)
class SourceRow:
    """One way to retrieve, over all users."""

    name: str
    alpha: float | None
    """The cut of PinnerSage's clusters; None for plain neighbours."""
    chosen: bool
    """Whether `choose_alpha` would take this alpha."""
    interests: float
    share: float
    """Of the pins found, those whose topic is a planted interest of the user."""
    affinity: float
    """Mean planted affinity of what was found: topic, second topic, style and strength of the interest."""
    recall: float

    def named(self) -> dict[str, float]:
        return {
            "interest_share": round(self.share, 4),
            "affinity": round(self.affinity, 4),
            "recall_at_100": round(self.recall, 4),
        }


def compare_sources(
    lake: Lake,
    truth: WorldTruth,
    pins: Pins,
    spaces: Mapping[str, Floats],
    cut: datetime,
    end: datetime,
) -> list[SourceRow]:
    """PinnerSage over content and over each of `spaces` at every alpha, and content's plain neighbours.

    `pins` carry content vectors; `spaces` are rows of the same pins. Alphas apply to vectors scaled to mean
    square length one, which changes no order.
    """
    held = hold_out(lake, cut, end).sample(USERS, SEED)
    actions = UserActions.read(lake, pins, cut - timedelta(days=PinnerSageConfig().window_days), end)
    rows = []
    for name, vectors in {"content": pins.vectors, **spaces}.items():
        scaled = vectors / np.sqrt((vectors**2).sum(axis=1).mean())
        asked = _Asked(
            held, replace(actions, pins=replace(pins, vectors=scaled.astype(np.float32))), truth, cut
        )
        if name == "content":
            rows.append(asked.row("content, neighbours of the last pin", last=1))
            rows.append(asked.row(f"content, neighbours of the last {LAST} pins", last=LAST))
        chosen = asked.chosen_alpha()
        for alpha in sorted({*ALPHAS, chosen}):
            rows.append(asked.row(f"{name}, PinnerSage at {alpha:g}", alpha=alpha, chosen=alpha == chosen))
    return rows


def sources_markdown(rows: Sequence[SourceRow]) -> str:
    """The table; alphas that PinnerSage would choose are starred."""
    lines = ["| source | interests | planted share | affinity | recall@100 |", "|---|---|---|---|---|"]
    for row in rows:
        star = " *" if row.chosen else ""
        count = f"{row.interests:.1f}"
        lines.append(
            f"| {row.name}{star} | {count} | {row.share:.4f} | {row.affinity:.4f} | {row.recall:.4f} |"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class _Asked:
    held: HeldOut
    actions: UserActions
    truth: WorldTruth
    cut: datetime

    @property
    def now_ms(self) -> int:
        return int(self.cut.timestamp() * 1000)

    def chosen_alpha(self) -> float:
        return choose_alpha(self.actions, self.now_ms, PinnerSageConfig(), seed=SEED).alpha

    def row(
        self, name: str, *, alpha: float | None = None, last: int = LAST, chosen: bool = False
    ) -> SourceRow:
        """Retrieve for every held-out user: medoids at `alpha`, or else the `last` pins."""
        pins, config = self.actions.pins, PinnerSageConfig(alpha=alpha or 1.0)
        unborn = np.flatnonzero(pins.created_at_ms >= self.now_ms)
        found, counts = np.zeros((len(self.held), ASKED + 1), np.int64), []
        at = np.minimum(np.searchsorted(self.actions.users, self.held.users), len(self.actions) - 1)
        for row, user in enumerate(at.tolist()):
            past = self.actions.history(user, self.now_ms)
            if self.actions.users[user] != self.held.users[row] or not len(past.pin_ids):
                continue
            queries = _last_pins(past, last)
            if alpha is not None:
                interests = user_interests(past, self.now_ms, config)
                queries = interests.vectors[sample_medoids(interests, config.sampled, seed=SEED + user)]
                counts.append(len(interests))
            barred = np.concatenate([np.searchsorted(pins.ids, np.unique(past.pin_ids)), unborn])
            near = nearest(pins, queries, barred, ASKED)
            found[row, : len(near)] = pins.ids[near]
        users = self.held.users
        return SourceRow(
            name,
            alpha,
            chosen,
            float(np.mean(counts)) if counts else float(last),
            interest_share(found, users, self.truth, self.cut),
            mean_affinity(found, users, self.truth, self.cut),
            evaluate(found, self.held, ks=(100,))["recall@100"],
        )


def _last_pins(past: History, count: int) -> Floats:
    """Vectors of the `count` distinct pins acted on last, newest first."""
    newest = past.pin_ids[::-1]
    first = np.sort(np.unique(newest, return_index=True)[1])[:count]
    return past.vectors[::-1][first]
