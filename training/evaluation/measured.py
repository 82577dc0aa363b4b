"""What a retriever reaches on held-out days, under the names that versions, releases and gates share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.evaluation.histories import Histories
from training.evaluation.retrieval import HeldOut, evaluate, popularity, user_metrics
from validation.lake import Lake

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

K = 100
POPULAR = 2_000
"""Popular pins from which each user's K unknown ones are taken."""


@dataclass(frozen=True)
class Measured:
    """One part's metrics, and the values they are means of where two releases may be compared by them."""

    metrics: dict[str, float]
    units: Mapping[str, Floats] = field(default_factory=dict)
    """By metric: one value a user or a row, in the evaluation's order."""
    owners: Mapping[str, Ints] = field(default_factory=dict)
    """By metric of rows: the user of each."""


def measured(role: str, recommended: Ints, held: HeldOut) -> Measured:
    """Recall, hit rate and NDCG at 10, 50 and 100, overall and by slice, as `<role>/...`."""
    metrics = {f"{role}/{_plain(n)}": v for n, v in evaluate(recommended, held).items()}
    units = user_metrics(recommended, held, ks=(K,))
    return Measured(
        metrics, {f"{role}/{_plain(n)}": v for n, v in units.items() if n.startswith(f"recall@{K}")}
    )


def measure_baselines(lake: Lake, past: Histories) -> dict[str, float]:
    """Popularity of the 30 days before the cut as `popularity/...`, each user's known pins taken out, and
    `chance/recall_at_100`, of K pins drawn blindly from those made before the cut.
    """
    held = past.held
    most_popular = popularity(lake, held.cut, POPULAR)
    popular = np.stack([unknown(most_popular, past.known(user)) for user in held.users.tolist()])
    created = lake.read("pins", ["created_at"])["created_at"]
    return measured("popularity", popular, held).metrics | {
        "chance/recall_at_100": K / max(int((created < held.cut).sum()), K)
    }


def unknown(ids: Ints, known: Ints, k: int = K) -> Ints:
    """The first k distinct ids that are neither padding nor `known`, zero-padded, (k,)."""
    kept = ids[(ids > 0) & ~np.isin(ids, known)]
    _, first = np.unique(kept, return_index=True)
    kept = kept[np.sort(first)][:k]
    return np.pad(kept, (0, k - len(kept)))


def _plain(name: str) -> str:
    """`recall@100/new_users` as `recall_at_100/new_users`: MLflow takes no @ in a metric's name."""
    return name.replace("@", "_at_")
