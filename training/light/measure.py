"""What each order of a request's candidates keeps of what users then acted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.funnel_recall import FunnelRecall, funnel_recall
from training.evaluation.served import Queries
from training.light.replay import Replayed
from training.light.rows import Request, World, candidates
from training.models.light_ranking import LightRanker
from training.models.source_lists import source_scores

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LIGHT, TWO_TOWER, MERGE, TURNS, SOURCE_SCORE = "light", "two_tower", "merge", "turns", "source_score"
"""The trees; the two-tower's product; reciprocal rank fusion, the funnel's merge; sources in turns; each
source's score over its best in the request, the largest over sources."""


@dataclass(frozen=True)
class Kept:
    """How much every order keeps, on the users of one replay."""

    recall: FunnelRecall
    fetched: float
    """Candidates of a request that stood in line, on average."""
    reached: float
    """Share of the held-out pins that any source brought: what is lost before light ranking."""

    def metrics(self, budget: int) -> dict[str, float]:
        """`<order>/kept`, the share among `budget`; half the width of the 95 % interval of the trees' gain."""
        out = {f"{order}/kept": self.recall.mean(order, budget) for order in self.recall.values}
        for order in self.recall.values:
            if order != LIGHT and LIGHT in self.recall.values:
                gain = self.recall.gain(LIGHT, order, budget)
                out[f"{LIGHT}/gain_error_over_{order}"] = gain.error or 0.0
        return out | {
            f"{LIGHT}/users": float(self.recall.requests),
            "fetched/mean": self.fetched,
            "fetched/share_of_engaged": self.reached,
        }

    def table(self, budget: int) -> str:
        """The orders in Markdown, best first."""
        orders = sorted(self.recall.values, key=lambda order: -self.recall.mean(order, budget))
        lines = [f"| order | engaged pins kept among {budget} | the trees keep more by |", "|---|---|---|"]
        for order in orders:
            gain = self.recall.gain(LIGHT, order, budget) if LIGHT in self.recall.values else None
            more = "" if gain is None or order == LIGHT else f"{gain.mean:+.3f} +- {gain.error or 0:.3f}"
            lines.append(f"| {order} | {self.recall.mean(order, budget):.3f} | {more} |")
        return "\n".join(lines)


def measure(world: World, ranker: LightRanker, replayed: Replayed, budgets: Sequence[int]) -> Kept:
    """The ranker beside the other orders on every candidate of a replay.

    Raises ValueError where no source brought a pin that its user then acted on.
    """
    requests = requests_of(replayed)
    held, orders = replayed.held, dict[str, list[Floats]]()
    owner, engaged, found = [], [], 0
    for place, made in enumerate(candidates(world, ranker.spec, requests)):
        ids, lists = made.fetched.pin_ids, requests[place].lists
        wanted = held.pins[held.offsets[place] : held.offsets[place + 1]]
        happened = np.isin(ids, wanted)
        found += int(happened.sum())
        owner.append(np.full(len(ids), place))
        engaged.append(happened)
        scored = {
            LIGHT: ranker.score(made.features),
            MERGE: made.fetched.fused,
            TURNS: -np.arange(len(ids), dtype=np.float64),
            SOURCE_SCORE: source_scores(lists, ids),
        }
        if replayed.two_tower is not None:
            scored[TWO_TOWER] = products(replayed.two_tower, place, world.pins.ids, ids)
        for name, scores in scored.items():
            orders.setdefault(name, []).append(scores.astype(np.float64))
    recall = funnel_recall(
        np.concatenate(owner),
        np.concatenate(engaged),
        {name: np.concatenate(scores) for name, scores in orders.items()},
        budgets,
    )
    fetched = sum(map(len, owner)) / max(len(requests), 1)
    return Kept(recall, fetched, found / max(len(held.pins), 1))


def requests_of(replayed: Replayed) -> list[Request]:
    """The replay's requests, one a held-out user."""
    users = replayed.held.users.tolist()
    return [Request(user, replayed.time_ms, lists) for user, lists in zip(users, replayed.lists, strict=True)]


def products(two_tower: Queries, user: int, catalogue: Ints, ids: Ints) -> Floats:
    """The two-tower's product of one user with each pin; the mean of those it knows where it does not."""
    vectors = two_tower.vectors[np.searchsorted(catalogue, ids)]
    scores = vectors @ two_tower.queries[user]
    known = vectors.any(axis=1)
    if known.any():
        scores[~known] = scores[known].mean()
    return scores
