"""What a stranger's trial never reaches: the learned retrievers, and the ranker on a history, run once for a
user made up of real pins."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from bentos import ad_scores, light_scores, ranking_features
from bentos.candidates import Candidates
from bentos.features import PinTable, User
from bentos.feed import Feed, Surface
from bentos.networks import Learned
from bentos.release import ServingRelease
from bentos.search_parts import check_queries
from bentos.serving import ReleaseRejected
from bentos.sources import conditional, dcm, pinnerformer, two_tower
from feature_repo.schema import USER_HISTORY
from feature_repo.sequence import Event, Sequence
from feature_repo.store import FeatureStoreError
from training.models.light_ranking import LightRanker
from training.models.ranker import Candidates as Ranked
from training.models.ranker import Past, Request

logger = logging.getLogger("corkboard.release")

MS_PER_HOUR = 3_600_000


def rehearse(release: ServingRelease) -> None:
    """Load the compiled kernels of every network the process holds, and prove that it fits its pins; run the
    light ranker and the query encoder once.

    Raises ReleaseRejected naming the part that reads or makes other vectors than the release's.
    """
    if release.ranker is not None:
        check_ranker(release)
        check_history(release)
        _score(release)
    if release.ads is not None:
        _rehearse_ads(release)
    if release.queries is not None:
        check_queries(release, release.queries)
    held = [role for role in Learned if getattr(release.networks, role) is not None]
    if not held and release.light is None:
        return
    for role in held:
        _check_dimensions(release, role)
    feed = _somebody(release)
    for role in held:
        _RUNS[role](feed)
    if release.light is not None:
        _light(feed, release.light)


def _score(release: ServingRelease) -> None:
    """Run the ranker once, where the feature store answers."""
    assert release.ranker is not None
    try:
        asked = probe(release)
    except Exception as error:
        # A store that is down is the trial's to find: it asks again, and says what the answer went without.
        logger.warning("release %d does not rehearse its ranker: %r", release.version, error)
        return
    release.ranker.score_heads(*asked)


def check_ranker(release: ServingRelease) -> None:
    """Raise ReleaseRejected where the ranker reads other vectors than the release's pins and users have."""
    ranker, name = release.ranker, release.ranker_name
    if ranker is None:
        return
    held = release.dim(release.space)
    if ranker.content_dim not in (0, held):
        raise ReleaseRejected(
            f"{name} reads {ranker.content_dim}-d content; the release holds {held}-d pins"
            f" in {release.space}; train it on this content version and release both"
        )
    if ranker.user_space not in (None, release.space_of(Learned.PINNERFORMER)):
        raise ReleaseRejected(
            f"{name} reads users in {ranker.user_space}, the release makes their vectors in"
            f" {release.space_of(Learned.PINNERFORMER)}; train it beside this PinnerFormer and release both"
        )


def check_history(release: ServingRelease) -> None:
    """Raise ReleaseRejected where the ranker selects from users' histories and the store has none at all. Those
    that are too old are done without, as every view is."""
    if not release.reads_history:
        return
    try:
        watermark = release.features.user(0, None, history=True)
    except FeatureStoreError as error:
        why = str(error)
    except Exception as error:
        # A store that is down is the trial's to find.
        logger.warning("release %d does not look for histories: %r", release.version, error)
        return
    else:
        why = "the view user_history is empty"
        if watermark.history.as_of_ms or USER_HISTORY in watermark.stale:
            return
    raise ReleaseRejected(
        f"{release.ranker_name} selects from users' histories, and the feature store has none ({why}); run"
        " `corkboard train --model features`"
    )


def probe(release: ServingRelease) -> tuple[Request, Ranked]:
    """What the ranker would read of the made-up user and the pins they saved."""
    feed = _somebody(release)
    ids = np.unique(feed.candidates.pin_ids)
    feed.pins = PinTable(ids, release.features.pins(ids), release.vectors(ids, release.space)[0])
    if release.reads_history:
        feed.past = _long_ago(feed)
    return ranking_features.inputs(feed)


def _long_ago(feed: Feed) -> Past:
    """The same saves half a year before, and the pins shown as long ago."""
    sequence, then = feed.user.sequence, feed.user.sequence.timestamps_ms // 1000 * 1000 - 4_000 * MS_PER_HOUR
    vectors = feed.pins.vectors[feed.pins.rows(sequence.pin_ids)]
    actions, surfaces = sequence.actions.astype(np.int64), sequence.surfaces.astype(np.int64)
    return Past(vectors, actions, surfaces, then, vectors, then)


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


def _light(feed: Feed, ranker: LightRanker) -> None:
    """Raises ReleaseRejected where the trees read another number of features than their file says."""
    ids = np.unique(feed.candidates.pin_ids)
    feed.pins = PinTable(ids, feed.release.features.pins(ids), np.zeros((len(ids), 0), np.float32))
    feed.parts = [feed.candidates]
    made = light_scores.rows(feed, ranker.spec)
    if made.shape[1] != ranker.booster.num_features():
        raise ReleaseRejected(
            f"the light ranker's file names {made.shape[1]} features, its trees read"
            f" {ranker.booster.num_features()}; train it again"
        )
    if not np.isfinite(ranker.score(made)).all():
        raise ReleaseRejected("the light ranker gives scores that are not numbers; train it again")


_RUNS = {
    Learned.PINNERFORMER: pinnerformer.candidates,
    Learned.DCM: dcm.candidates,
    Learned.CONDITIONAL: conditional.candidates,
    Learned.TWO_TOWER: _two_tower,
}
