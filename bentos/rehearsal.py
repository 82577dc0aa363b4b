"""What a stranger's trial never reaches: the learned retrievers, run once for a user made up of real pins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bentos import ad_scores, light_scores
from bentos.candidates import Candidates
from bentos.features import PinTable, User
from bentos.feed import Feed, Surface
from bentos.networks import Learned
from bentos.release import ServingRelease
from bentos.serving import ReleaseRejected
from bentos.sources import conditional, dcm, pinnerformer, two_tower
from feature_repo.sequence import Event, Sequence

MS_PER_HOUR = 3_600_000


def rehearse(release: ServingRelease) -> None:
    """Load the compiled kernels of every network the process holds, and prove that it fits its pins.

    Raises ReleaseRejected naming the part that reads or makes vectors of another dimension than the release's.
    """
    if release.ads is not None:
        _rehearse_ads(release)
    held = [role for role in Learned if getattr(release.networks, role) is not None]
    if not held:
        return
    for role in held:
        _check_dimensions(release, role)
    feed = _somebody(release)
    for role in held:
        _RUNS[role](feed)


def _rehearse_ads(release: ServingRelease) -> None:
    """Price some popular pins as ads. Raises ReleaseRejected where the model reads other vectors."""
    reads, held = release.ads.network.seen.vector_dim, release.dim(release.space)
    if reads != held:
        raise ReleaseRejected(
            f"{release.ads_name} reads {reads}-d vectors; the release holds {held}-d pins in {release.space};"
            " train ads on this content version and release both"
        )
    feed = _somebody(release)
    ids = np.unique(feed.candidates.pin_ids)
    if not len(ids):
        return
    feed.pin_id = int(ids[0])
    known = np.union1d(ids, feed.user.sequence.pin_ids)
    feed.pins = PinTable(known, release.features.pins(known), release.vectors(known, release.space)[0])
    if not ad_scores.score(feed).sound.all():
        raise ReleaseRejected(f"{release.ads_name} gives probabilities that are none")


def _check_dimensions(release: ServingRelease, role: Learned) -> None:
    network = getattr(release.networks, role)
    part = release.manifest.parts[role]
    reads, makes = network.content_dim, network.config.dim
    if reads != release.dim(release.space) or makes != release.dim(part.space):
        raise ReleaseRejected(
            f"{part.model}@{part.version} reads {reads}-d content and makes {makes}-d vectors; the release"
            f" holds {release.dim(release.space)}-d pins in {release.space} and {release.dim(part.space)}-d"
            f" pins in {part.space}; train {part.model} on this content version and release both"
        )


def _somebody(release: ServingRelease) -> Feed:
    """A user who saved the catalogue's popular pins and follows every topic, on the home feed."""
    popular = release.features.popular([0]).get(0, (np.empty(0, np.int64),))[0][:3].tolist()
    now_ms = int(release.manifest.data_end.timestamp() * 1000)
    positive = int(np.flatnonzero(release.signs > 0)[0])
    events = [Event(i + 1, pin, positive, 0, now_ms - (i + 1) * MS_PER_HOUR) for i, pin in enumerate(popular)]
    topics = np.array(sorted(release.topics), np.int64)
    user = replace(User.unknown(1), known=True, sequence=Sequence.of(events), followed_topics=topics)
    feed = Feed(Surface.HOMEFEED, release, now_ms, limit=20, user_id=1)
    feed.user, feed.candidates = user, Candidates.of("rehearsal", popular, np.zeros(len(popular)), 0, "popular")
    return feed


def _two_tower(feed: Feed) -> None:
    two_tower.candidates(feed)
    light_scores.user_vector(feed)


_RUNS = {
    Learned.PINNERFORMER: pinnerformer.candidates,
    Learned.DCM: dcm.candidates,
    Learned.CONDITIONAL: conditional.candidates,
    Learned.TWO_TOWER: _two_tower,
}
