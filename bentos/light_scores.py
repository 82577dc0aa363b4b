"""Light scores: the two-tower's products of one user with many pins, cheap enough for every candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bentos.features import Floats
from bentos.networks import Learned
from bentos.user_inputs import histories

if TYPE_CHECKING:
    from bentos.feed import Feed


class NoTwoTower(RuntimeError):
    """The release has no two-tower, or this process did not load it."""


def score(feed: Feed) -> Floats:
    """The user's product with each of `feed.candidates`, (n,) float32. Raises NoTwoTower.

    A pin that the space does not know yet gets the mean of those it knows: newness is no fault.
    """
    from training.models import two_tower

    ids, space = feed.candidates.pin_ids, feed.release.space_of(Learned.TWO_TOWER)
    user = user_vector(feed)
    vectors, present = feed.release.vectors(ids, space)
    if not present.any():
        raise NoTwoTower(f"space {space} knows none of the {len(ids)} candidates; publish its vectors again")
    scores = two_tower.score(user, vectors)
    scores[~present] = scores[present].mean()
    return scores


def user_vector(feed: Feed) -> Floats:
    """The user's side of the product, (d,) float32, unit. Raises NoTwoTower."""
    release = feed.release
    network = release.networks.two_tower
    if network is None:
        raise NoTwoTower(
            f"release {release.version} has no two-tower in this process; its manifest says why under `skipped`"
        )
    from training.models.two_tower import user_vectors

    return user_vectors(network, histories(feed, release.space, network.config.length))[0]
