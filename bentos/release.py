"""A loaded release: everything a request reads, as one immutable bundle behind one reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bentos.features import Features, Flags, Floats, Ints
from bentos.ids import Ids
from feature_repo.vectors.index import VectorIndex
from training.models.interactions import polarity_signs
from training.models.pinnability import Ranker
from training.models.pinnersage import PinnerSageConfig
from validation.manifest import ReleaseManifest
from validation.tables import Contract


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
    space: str | None = None
    """The space of the pins' content vectors, `content@7`; None where the release has none."""
    indexes: Mapping[str, VectorIndex] = field(default_factory=dict)
    """Vector indexes by space; empty in a process that does not retrieve."""
    pinnersage: PinnerSageConfig | None = None
    ranker: Ranker | None = None
    """None in a process that does not rank, and in a release without a ranker."""
    ranker_name: str = ""

    @property
    def spaces(self) -> list[str]:
        return list(self.manifest.spaces())

    @property
    def dim(self) -> int:
        """Dimension of `space`, 0 without one."""
        return next((c.dim for c in self.manifest.collections if c.space == self.space), 0)

    @property
    def signs(self) -> NDArray[np.int8]:
        """Sign of each action code: 1 positive, -1 negative, 0 neutral or padding."""
        return polarity_signs(self.contract.vocabulary)

    def serves(self, source: str) -> bool:
        """Whether the release can serve a candidate source."""
        return source in self.manifest.sources

    def vectors(self, ids: Ints) -> tuple[Floats, Flags]:
        """Content vectors (n, dim) of `ids` and which of them exist (n,).

        They come from the copy in memory where there is one, else from the feature store.
        """
        if self.space is None or len(ids) == 0:
            return np.zeros((len(ids), self.dim), np.float32), np.zeros(len(ids), bool)
        index = self.indexes.get(self.space)
        if index is None:
            return self.features.vectors(ids, self.space)
        found = index.fetch(ids)
        return found.vectors, found.present
