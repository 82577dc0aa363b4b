"""A loaded release: everything a request reads, as one immutable bundle behind one reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bentos.campaigns import Campaigns, SponsoredVectors
from bentos.candidates import Candidates
from bentos.features import Features, Flags, Floats, Ints, User
from bentos.ids import Ids
from bentos.networks import Learned, Networks
from bentos.query_vectors import QueryVectors
from bentos.sources import lexical, searchsage
from bentos.walker import Walker
from feature_repo.schema import TRANSACT_LIFELONG_SERVICE
from feature_repo.vectors.index import VectorIndex
from training.models.ads.ranking import AdsPolicy
from training.models.calibration import Calibrator
from training.models.interactions import polarity_signs
from training.models.lexical import LexicalIndex, PopularQueries
from training.models.light_ranking import LightRanker
from training.models.page_policy import PagePolicy
from training.models.pinnersage import PinnerSageConfig
from training.models.ranker import Ranker
from training.models.search_fusion import SearchFusion
from validation.manifest import ADS, ReleaseManifest
from validation.tables import Contract

if TYPE_CHECKING:
    from training.models.ads.model import AdsModel


@dataclass(frozen=True)
class TopicName:
    """A topic as people know it."""

    topic_id: int
    name: str
    parent_id: int = 0


@dataclass(frozen=True)
class ServingRelease:
    """One release in memory. A request holds one of these from its first stage to its last."""

    version: int
    manifest: ReleaseManifest
    contract: Contract
    ids: Ids
    features: Features
    topics: Mapping[int, TopicName] = field(default_factory=dict)
    popular: Candidates = field(default_factory=Candidates.none)
    """What was popular in the whole catalogue as the release was loaded; none where it only retrieves."""
    space: str | None = None
    """The space that ranking and filters compare pins in, the content space; None where there is none."""
    pin_space: str | None = None
    """The space that interests and similar pins are searched in: PinSage's, else the content space."""
    indexes: Mapping[str, VectorIndex] = field(default_factory=dict)
    """Vector indexes by space; empty in a process that does not retrieve."""
    pinnersage: PinnerSageConfig | None = None
    networks: Networks = field(default_factory=Networks)
    """The learned retrievers this process runs."""
    walker: Walker | None = None
    """Walks on the pin-board graph; None in a process that does not retrieve, and without Pixie."""
    lexical: LexicalIndex | None = None
    """Search by words; None in a release without it."""
    popular_queries: PopularQueries = field(default_factory=lambda: PopularQueries({}))
    fusion: SearchFusion = field(default_factory=SearchFusion)
    """What meaning and words count in search."""
    queries: QueryVectors | None = None
    """Vectors of queries; None in a process that does not retrieve, and without SearchSage."""
    light: LightRanker | None = None
    """Trees that order candidates before heavy ranking; None where the two-tower does, or this process does not
    rank."""
    ranker: Ranker | None = None
    """None in a process that does not rank, and in a release without a ranker."""
    ranker_name: str = ""
    campaigns: Campaigns = field(default_factory=lambda: Campaigns(Path("no campaigns")))
    """Ads that run, read again when an ingest has changed them."""
    sponsored_vectors: SponsoredVectors = field(default_factory=SponsoredVectors)
    ads_policy: AdsPolicy = field(default_factory=AdsPolicy)
    ads: AdsModel | None = None
    """None in a process that does not rank, and in a release without an ads model."""
    calibrator: Calibrator | None = None
    """Fitted for that ranker; None where its scores pass as they are, and in a process that only retrieves."""

    @property
    def heads(self) -> tuple[str, ...]:
        """The ranker's heads as far as this process knows them; empty where it holds neither it nor its
        calibrator."""
        if self.ranker is not None:
            return self.ranker.heads
        return self.calibrator.head_names if self.calibrator else ()

    @cached_property
    def policy(self) -> PagePolicy:
        """What pages are made by where no file says otherwise."""
        return PagePolicy.default(self.contract.vocabulary)

    @property
    def ranks_searches(self) -> bool:
        """Whether this process's ranker learned from searches, and the words it reads of them are here."""
        return self.ranker is not None and bool(self.ranker.spec.query) and self.lexical is not None

    @property
    def cannot_search_by(self) -> list[str]:
        """Parts of search that the release has not, each with the manifest's reason if it gives one."""
        absent = [name for name in (searchsage.NAME, lexical.NAME) if name not in self.manifest.parts]
        return [f"{name}: {self.manifest.skipped.get(name, 'not of this release')}" for name in absent]

    @property
    def has_ads(self) -> bool:
        """Whether the release has an ads model, in this process or another."""
        return ADS in self.manifest.parts

    @property
    def no_ads(self) -> str:
        """What is said where there is no ads model: with the manifest's reason, if it gives one."""
        why = self.manifest.skipped.get(ADS)
        return f"release {self.version} prices no ads" + (f": {why}" if why else "")

    @property
    def ads_name(self) -> str:
        """`model@version` of the ads model; empty where there is none."""
        part = self.manifest.parts.get(ADS)
        return part.name if part else ""

    @property
    def spaces(self) -> list[str]:
        return list(self.manifest.spaces())

    @property
    def light_by(self) -> str | None:
        """Role of the part that orders candidates before heavy ranking; None where the merge's order stands."""
        return self.manifest.light_by if self.manifest.light_by in self.manifest.parts else None

    def space_of(self, role: str) -> str | None:
        """The space of a part, None where the release has no such part."""
        part = self.manifest.parts.get(role)
        return part.space if part else None

    def index_of(self, role: str) -> VectorIndex | None:
        """The index of a part's own pins, None in a process that does not retrieve."""
        return self.indexes.get(self.space_of(role) or "")

    @property
    def user_spaces(self) -> tuple[str, ...]:
        """Spaces of users' vectors from the nightly run that this process reads: it searches there, or its
        ranker takes them in."""
        searched = self.space_of(Learned.PINNERFORMER)
        read = {searched} & set(self.indexes) | {self.ranker.user_space if self.ranker else None}
        return tuple(sorted(space for space in read if space is not None))

    @cached_property
    def reads_history(self) -> bool:
        """Whether the release's ranker, here or elsewhere, selects from users' histories; for others none is
        read. Where it is elsewhere, the log says what it had."""
        if self.ranker is not None:
            return self.ranker.reads_history
        part = self.manifest.parts.get("ranker")
        return part is not None and part.feature_service == TRANSACT_LIFELONG_SERVICE

    def user(self, user_id: int) -> User:
        """One user, with all that the release's parts in this process read of one."""
        if self.reads_history:
            return self.features.user(user_id, self.pin_space, self.user_spaces, history=True)
        return self.features.user(user_id, self.pin_space, self.user_spaces)

    def dim(self, space: str | None) -> int:
        """Dimension of a space of the release, 0 of any other."""
        return self._dims.get(space or "", 0)

    @cached_property
    def _dims(self) -> dict[str, int]:
        return {collection.space: collection.dim for collection in reversed(self.manifest.collections)}

    @cached_property
    def signs(self) -> NDArray[np.int8]:
        """Sign of each action code: 1 positive, -1 negative, 0 neutral or padding."""
        return polarity_signs(self.contract.vocabulary)

    def serves(self, source: str) -> bool:
        """Whether the release can serve a candidate source."""
        return source in self.manifest.sources

    def vectors(self, ids: Ints, space: str | None) -> tuple[Floats, Flags]:
        """Vectors (n, dim) of `ids` in a space of the release, and which of them exist (n,).

        They come from the copy in memory where there is one, else from the feature store.
        """
        if space is None or len(ids) == 0:
            return np.zeros((len(ids), self.dim(space)), np.float32), np.zeros(len(ids), bool)
        index = self.indexes.get(space)
        if index is None:
            vectors, present = self.features.vectors(ids, space)
            # A store that knows none of the ids does not know the space's dimension either.
            return (vectors if present.any() else np.zeros((len(ids), self.dim(space)), np.float32)), present
        found = index.fetch(ids)
        return found.vectors, found.present
