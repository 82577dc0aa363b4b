"""Builds a `ServingRelease` from a release's manifest, and answers with it once before anyone else may."""

from __future__ import annotations

import enum
import logging
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from bentos.breaker import BreakerRules, Breakers
from bentos.campaigns import Campaigns
from bentos.catalogue import topic_names
from bentos.engines import Engines, LocalRanking, LocalRetrieval
from bentos.features import Features
from bentos.feed import Feed, Surface
from bentos.feed_service import run_blocking
from bentos.funnel import FUNNELS, HOMEFEED
from bentos.ids import Ids
from bentos.networks import Learned, load_networks
from bentos.pool import Pool
from bentos.ranking_stages import CALIBRATION_FEATURES
from bentos.registry import ModelRegistry
from bentos.rehearsal import check_ranker, probe, rehearse
from bentos.release import ServingRelease
from bentos.search_parts import query_vectors, with_fusion, with_words
from bentos.serving import ReleaseRejected
from bentos.settings import Settings
from bentos.shared_parts import SharedParts
from bentos.sources import popular_by_topic
from bentos.stages import Merge, ReadUser, Retrieve, Stage
from bentos.tombstones import Tombstones
from bentos.walker import Walker
from feature_repo.vectors.index import VectorIndex
from training.models.ads.ranking import AdsPolicy, AdsPolicyError, read_ads_policy
from training.models.calibration import Calibrator
from training.models.light_ranking import LightRanker
from training.models.pinnersage import History, PinnerSageConfig, recent_interests
from training.models.pixie import ReleasedPixie
from training.models.ranker import Ranker
from validation.lake import Lake
from validation.manifest import ADS, Part, ReleaseManifest
from validation.queries import normal
from validation.tables import Contract, EntityKind

logger = logging.getLogger("corkboard.release")


class Role(enum.Flag):
    """What a process does with a release; it loads no more than that."""

    FEED = 0
    RETRIEVE = enum.auto()
    RANK = enum.auto()


WHOLE = Role.RETRIEVE | Role.RANK

RETRIEVING = tuple(stage for stage in HOMEFEED if isinstance(stage, ReadUser | Retrieve | Merge))

ADS_POLICY = "ads.yaml"
"""File in the home: how many ads a page has, and which. Read once a load; a bad one costs no release."""

TRIALS = 8
TRIAL_PAUSE_S = 1.0


@dataclass
class ReleaseLoader:
    """Loads releases of one home. The feature store is opened once and shared by all of them."""

    settings: Settings
    registry: ModelRegistry
    features: Features
    role: Role = WHOLE
    _shared: SharedParts = field(init=False)

    def __post_init__(self) -> None:
        self._shared = SharedParts(self.registry.files)

    def newest(self) -> int | None:
        """The version the followed alias names."""
        return self.registry.version_of(self.settings.alias)

    def served_last(self) -> int | None:
        """The version noted last as served for that alias."""
        return self.registry.served_last(self.settings.alias)

    def served(self, release: ServingRelease) -> None:
        """Note that `release` is served, for a start while the registry is down."""
        self.registry.keep(self.settings.alias, release.manifest, release.version)

    def load(self, version: int) -> ServingRelease:
        """Everything of release `version` that this process's role needs.

        Raises ReleaseRejected for a manifest this code cannot serve and for files that cannot be read or are
        not those that were released, FilesGone for a version that is not there, and whatever the registry or
        the vector store raises when it is down.
        """
        manifest = self.registry.manifest(version)
        if unknown := [part.name for part in manifest.parts.values() if part.files is None]:
            logger.warning(
                "release %d keeps no digests of %s: their files are loaded unchecked; `corkboard release` makes"
                " one that does",
                version,
                ", ".join(unknown),
            )
        lake = Lake(self.settings.lake)
        contract = lake.contract()
        content, pinsage = manifest.parts.get("content"), manifest.parts.get("pinsage")
        searched = pinsage or content
        release = ServingRelease(
            version=version,
            manifest=manifest,
            contract=contract,
            ids=Ids(lake.id_map(), contract.string_ids, Tombstones(lake.path)),
            features=self.features,
            topics=topic_names(lake),
            space=content.space if content else None,
            pin_space=searched.space if searched else None,
        )
        release = with_fusion(with_words(release, self._shared), self._shared)
        if self.role & Role.RETRIEVE:
            release = replace(
                release,
                indexes=self._open_indexes(manifest),
                pinnersage=self._pinnersage(manifest),
                networks=load_networks(manifest, tuple(Learned), self._shared),
                walker=self._walker(manifest, contract),
                queries=query_vectors(manifest, self._shared),
            )
        elif self.role & Role.RANK:
            networks = load_networks(manifest, (Learned.TWO_TOWER,), self._shared)
            release = replace(release, networks=networks)
        if self.role & Role.RANK:
            release = self._with_ranker(replace(release, light=self._light(manifest)))
        if self.role is not Role.RETRIEVE:
            release = self._with_calibrator(self._with_popular(release))
        return self._with_ads(release, lake) if release.has_ads else release

    def _open_indexes(self, manifest: ReleaseManifest) -> dict[str, VectorIndex]:
        opened = {}
        for check in manifest.collections:
            index = self._shared.get(
                (check.space, check.collection), partial(self._open_index, check.collection, check.rows)
            )
            if index.rows != check.rows or index.dim != check.dim:
                raise ReleaseRejected(
                    f"collection {check.collection} holds {index.rows} rows of {index.dim} dimensions, the"
                    f" manifest says {check.rows} of {check.dim}; build the collection again and release it"
                )
            opened[check.space] = index
        return opened

    def _open_index(self, collection: str, rows: int) -> VectorIndex:
        from feature_repo.vectors.milvus import connect
        from feature_repo.vectors.replica import from_milvus

        if self.settings.milvus_uri is None:
            raise ReleaseRejected(
                "CORKBOARD_MILVUS_URI is not set, and the release searches a Milvus collection"
            )
        index = connect(self.settings.milvus_uri).open(collection)
        if rows > self.settings.replica_rows:
            return index
        return from_milvus(index, cache=self.settings.home / "replicas")

    def _pinnersage(self, manifest: ReleaseManifest) -> PinnerSageConfig | None:
        part = manifest.parts.get("pinnersage")
        return None if part is None else self._shared.read(part, PinnerSageConfig.load)

    def _walker(self, manifest: ReleaseManifest, contract: Contract) -> Walker | None:
        part = manifest.parts.get("pixie")
        if part is None:
            return None
        released = self._shared.of(part, ReleasedPixie.load)
        return Walker.open(released, contract.vocabulary, self.settings.events)

    def _light(self, manifest: ReleaseManifest) -> LightRanker | None:
        part = manifest.parts.get("light")
        return None if part is None else self._shared.of(part, LightRanker.load)

    def _with_ranker(self, release: ServingRelease) -> ServingRelease:
        part = release.manifest.parts.get("ranker")
        if part is None:
            return release
        release = replace(release, ranker_name=part.name)
        fitted = partial(self._fitted_ranker, release, part)
        return replace(release, ranker=self._shared.get((part.model, part.version, release.space), fitted))

    def _fitted_ranker(self, release: ServingRelease, part: Part) -> Ranker:
        from training.models.ranker import load_ranker

        ranker = self._shared.read(part, load_ranker)
        release = replace(release, ranker=ranker)
        check_ranker(release)
        return ranker.fitted_to([probe(release)])

    def _with_popular(self, release: ServingRelease) -> ServingRelease:
        """What a feed holds where stores fail: what is popular, with the names of its pins in memory."""
        popular = popular_by_topic.kept(self.features)
        release.ids.outside(EntityKind.PIN, popular.pin_ids)
        return replace(release, popular=popular)

    def _with_ads(self, release: ServingRelease, lake: Lake) -> ServingRelease:
        """Campaigns and their policy in every process; the model where this one ranks."""
        release = replace(release, campaigns=Campaigns(lake.file("ads")), ads_policy=self._ads_policy())
        if not self.role & Role.RANK:
            return release
        from training.models.ads.model import AdsModel

        return replace(release, ads=self._shared.of(release.manifest.parts[ADS], AdsModel.load))

    def _ads_policy(self) -> AdsPolicy:
        """What the home's file says; the defaults, said in the log, where it is refused."""
        try:
            return read_ads_policy(self.settings.home / ADS_POLICY)
        except AdsPolicyError as error:
            logger.error("the ads policy is refused, the defaults serve until the next load: %s", error)
            return AdsPolicy()

    def _with_calibrator(self, release: ServingRelease) -> ServingRelease:
        part = release.manifest.parts.get("ranker")
        if part is None:
            return release
        calibrator = released_calibrator(self._shared.folder(part), part.name, release.heads)
        return replace(release, calibrator=calibrator)

    def check(self, release: ServingRelease) -> None:
        """Warm and prove what this process's role does with the release. Raises ReleaseRejected."""
        if self.role is WHOLE:
            check_release(release)
        elif self.role is Role.RETRIEVE:
            _compile(release)
            _check_answer(_trial(release, Surface.HOMEFEED, stages=RETRIEVING))
        elif self.role is Role.RANK:
            rehearse(release)
            if release.ranker is not None:
                _check_answer(_trial(replace(release, indexes={}), Surface.HOMEFEED))


def released_calibrator(folder: Path, ranker: str, heads: tuple[str, ...]) -> Calibrator | None:
    """The calibrator of a ranker's files; None where they have none. `heads` are empty where not known.

    Raises ReleaseRejected for one that is of another ranker, cannot be read, or reads what serving has not.
    """
    try:
        calibrator = Calibrator.load(folder)
        calibrator.check(ranker, heads or calibrator.head_names)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ReleaseRejected(f"calibration of {ranker}: {error}") from error
    unknown = [name for name in calibrator.features if name not in CALIBRATION_FEATURES]
    if unknown:
        raise ReleaseRejected(
            f"calibration of {ranker} reads {', '.join(unknown)}, and serving has no such column"
        )
    return calibrator


def check_release(release: ServingRelease) -> None:
    """Answer a stranger, and a pin, with the release: warms every code path and proves that it answers.

    Raises ReleaseRejected naming what is wrong.
    """
    _compile(release)
    home = _trial(release, Surface.HOMEFEED)
    _check_answer(home)
    anchor = int(home.candidates.pin_ids[0])
    _check_answer(_trial(release, Surface.RELATED, pin_id=anchor))
    if len(release.cannot_search_by) < 2:
        _check_scores(_trial(release, Surface.SEARCH, query=_title(release, anchor)))
    if release.has_ads:  # a page without an ad is an answer too
        _check_scores(_trial(release, Surface.RELATED_ADS, pin_id=anchor))


def _compile(release: ServingRelease) -> None:
    """Load the compiled kernels that only users with actions reach."""
    if dim := release.dim(release.pin_space):
        points = np.eye(3, dim, dtype=np.float32)
        recent_interests(
            History(np.arange(1, 4), points, np.zeros(3, np.int64)), 0, release.pinnersage or PinnerSageConfig()
        )
    if release.walker is not None:
        release.walker.warm()
    rehearse(release)


def _title(release: ServingRelease, pin_id: int) -> str:
    """What a pin calls itself, as a query."""
    cards = release.features.cards(np.array([pin_id], np.int64))
    return normal(cards[pin_id].title if pin_id in cards else "") or "pin"


def _trial(
    release: ServingRelease,
    surface: Surface,
    pin_id: int = 0,
    stages: tuple[Stage, ...] = (),
    query: str = "",
) -> Feed:
    """A stranger's request; asked again while parts of it miss their deadlines, as the first ones may."""
    pool = Pool(4, Breakers(BreakerRules(least=TRIALS + 1)))  # every trial is to ask everything
    engines = Engines(pool, LocalRetrieval(pool), LocalRanking(pool))
    now_ms = int(release.manifest.data_end.timestamp() * 1000)
    try:
        for attempt in range(TRIALS):
            feed = Feed(
                surface,
                release,
                now_ms,
                limit=20,
                pin_id=pin_id,
                query=query,
                request_id=attempt,
                log_level=logging.DEBUG,  # what is missing in the end rejects the release, and says so
            )
            run_blocking(feed, engines, stages or FUNNELS[surface])
            broken = _broken(feed)
            if not broken:
                break
            logger.info("the trial of release %d is made again: %s", release.version, ", ".join(broken))
            time.sleep(TRIAL_PAUSE_S)
    finally:
        pool.close()
    return feed


def _broken(feed: Feed) -> list[str]:
    """Parts the answer went without, but for those the release does not claim to have."""
    return [
        part
        for part in feed.missing
        if not part.startswith("stale") and not (part.startswith("rank:") and feed.release.ranker is None)
    ]


def _check_answer(feed: Feed) -> None:
    version = feed.release.version
    _check_scores(feed)
    if len(feed.candidates) == 0:
        raise ReleaseRejected(
            f"release {version} answers its {feed.surface} trial with no pins; materialize the features"
        )


def _check_scores(feed: Feed) -> None:
    version, broken = feed.release.version, _broken(feed)
    if broken:
        raise ReleaseRejected(f"release {version} answers its trial without {', '.join(broken)}")
    if not np.isfinite(feed.candidates.scores).all():
        raise ReleaseRejected(f"release {version} gives scores that are not numbers")
