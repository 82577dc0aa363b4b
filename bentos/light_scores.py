"""Light scores, cheap enough for every candidate: the release's trees, or the two-tower's products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bentos.breaker import PartAbsent
from bentos.candidates import Candidates
from bentos.features import Floats
from bentos.networks import Learned
from bentos.user_inputs import histories
from training.models.light_ranking import Asker, LightSpec, request_rows
from training.models.source_lists import SourceList, fetched_of

if TYPE_CHECKING:
    from bentos.feed import Feed

LIGHT = "light"
"""Role of the trees."""


class NoTwoTower(PartAbsent):
    """The release has no two-tower, or this process did not load it."""


class NoLightRanker(PartAbsent):
    """The release has no light ranker, or this process did not load it."""


def score(feed: Feed) -> Floats:
    """By whichever the release says, for each of `feed.candidates`, (n,) float32.

    Raises NoLightRanker, NoTwoTower.
    """
    return _by_trees(feed) if feed.release.light_by == LIGHT else _by_two_tower(feed)


def source_lists(parts: Sequence[Candidates]) -> list[SourceList]:
    """What each source brought, those that brought nothing left out."""
    return [SourceList(part.source, part.pin_ids, part.scores) for part in parts if len(part)]


def rows(feed: Feed, spec: LightSpec) -> Floats:
    """The trees' rows for `feed.candidates`, (n, len(spec.names)) float32: what the sources said and what
    `ReadPins` read."""
    ids, sequence = feed.candidates.pin_ids, feed.user.sequence
    acted = feed.pins.rows(sequence.pin_ids)[feed.positive_rows()]
    stats = feed.pins.stats.take(feed.pins.rows(ids))
    return request_rows(
        spec,
        fetched_of(feed.brought[1], spec.sources, ids),
        stats.scalars,
        stats.created_at_ms,
        stats.topics,
        Asker(feed.user.scalars, feed.user.followed_topics, feed.pins.stats.topics[acted]),
        feed.now_ms,
    )


def _by_trees(feed: Feed) -> Floats:
    release = feed.release
    if release.light is None:
        raise NoLightRanker(f"release {release.version} has no light ranker in this process")
    return release.light.score(rows(feed, release.light.spec))


def _by_two_tower(feed: Feed) -> Floats:
    """A pin that the space does not know yet gets the mean of those it knows: newness is no fault."""
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
