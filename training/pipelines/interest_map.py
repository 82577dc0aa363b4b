"""A picture of one user's interests: what PinnerSage clusters, and where it cuts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.evaluation.user_embeddings import points_of
from training.models.interest_clusters import medoids, ward_labels
from training.models.pinnersage import PinnerSageConfig
from training.pipelines.figures import interest_map
from training.pipelines.user_actions import UserActions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKED_AT = 200
"""Users among whom the one to draw is looked for."""


def interest_maps(actions: UserActions, config: PinnerSageConfig, now_ms: int, seed: int) -> dict[str, Figure]:
    """`interest_map` of the user with the most pins in the window among some drawn by `seed`, by name.

    Empty where nobody has two pins: there is nothing to see.
    """
    drawn = [
        points_of(actions.history(user, now_ms), now_ms, config) for user in actions.sample(LOOKED_AT, seed)
    ]
    points = max(drawn, key=lambda points: len(points.pin_ids), default=None)
    if points is None or len(points.pin_ids) < 2:
        return {}
    labels = ward_labels(points.vectors, config.alpha)
    title = f"{len(labels)} pins of a user in {labels.max() + 1} interests"
    return {"interest_map": interest_map(points.vectors, labels, medoids(points.vectors, labels), title)}
