"""What an ads model reads and how large it is: declared features, and one frozen configuration."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from training.models.interactions import INTERACTION_FEATURES


class Kind(StrEnum):
    """What a feature's values are; it decides how they are transformed."""

    NUMERIC = "numeric"
    COUNT = "count"
    CATEGORY = "category"
    VECTOR = "vector"


class Feature(BaseModel):
    """One declared feature."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Kind
    group: str
    """Features of one group are summarised together."""


_COUNTED = (
    "hours_since_topic",
    "pin_positive_count",
    "pin_negative_count",
    "hours_since_pin",
    "sequence_positives",
    "sequence_negatives",
    "hours_since_action",
    "pin_age_days",
)
"""Interaction features that count something; the others are cosines, shares and flags."""

CONTEXT = ("anchor_cosine", "anchor_shares_topic", "position")
"""How the ad lies to the pin it stands beside, and at which 0-based place of the page."""

IDS = ("source", "user", "pin", "pin_topic", "anchor_topic")
VECTORS = ("pin_vector", "anchor_vector")

FEATURES: tuple[Feature, ...] = (
    *(Feature(name=f"user_{name}", kind=Kind.COUNT, group="user") for name in USER_SCALARS),
    *(Feature(name=f"pin_{name}", kind=Kind.COUNT, group="pin") for name in PIN_SCALARS),
    *(
        Feature(name=name, kind=Kind.COUNT if name in _COUNTED else Kind.NUMERIC, group="meeting")
        for name in INTERACTION_FEATURES
    ),
    *(Feature(name=name, kind=Kind.NUMERIC, group="context") for name in CONTEXT),
    *(Feature(name=name, kind=Kind.CATEGORY, group="ids") for name in IDS),
    *(Feature(name=name, kind=Kind.VECTOR, group="content") for name in VECTORS),
)
"""Everything an ads model reads, in order. What an ad pays is not among them: it makes no click likelier."""

DENSE = tuple(f for f in FEATURES if f.kind in (Kind.NUMERIC, Kind.COUNT))
"""Columns of `AdRows.dense`."""

SHARED = "shared"
"""The tower of sources that have none of their own."""


class AdsModelConfig(BaseModel):
    """Transforms and sizes; what `corkboard tune ads_multi_tower` chooses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    numeric: Literal["standardise", "squash"] = "standardise"
    """standardise: (x - mean) / deviation. squash: z / (1 + |z|) of that: outliers are heard no louder."""
    count: Literal["signed_log", "squash"] = "signed_log"
    """signed_log: standardised sign(x) log(1 + |x|)."""
    id_dim: int = Field(4, ge=0, le=64)
    """Longest embedding of an id; 0 leaves ids out."""
    collisions: float = Field(0.05, gt=0, lt=1)
    """Share of a feature's ids that may share a bucket with another."""
    max_buckets: int = Field(2**18, ge=2)
    """Where more would be needed, an id has two buckets, and is their sum."""
    width: int = Field(24, ge=1)
    """Of a summarised group."""
    cross: bool = True
    """Whether groups are multiplied with each other."""
    bottom: int = Field(48, ge=1)
    """Width of the shared fully connected layer."""
    tower: int = Field(16, ge=1)
    """Width of a source's own layer."""
    dropout: float = Field(0.1, ge=0, lt=1)
    sources: tuple[str, ...] = ()
    """Ad sources with a tower of their own; every other is answered by the shared tower."""
    heads: tuple[str, ...] = ("click",)
    """Actions foretold, in order."""

    @model_validator(mode="after")
    def _named_once(self) -> AdsModelConfig:
        for what, names in (("sources", self.sources), ("heads", self.heads)):
            if len(set(names)) != len(names):
                raise ValueError(f"{what} are named twice: {names}")
        if not self.heads:
            raise ValueError("an ads model needs at least one head")
        if SHARED in self.sources:
            raise ValueError(f"{SHARED!r} is the tower of sources without one; name the source otherwise")
        return self


def buckets(distinct: int, config: AdsModelConfig) -> tuple[int, int]:
    """(buckets, hashes) for `distinct` ids, collision-safe.

    With B buckets an id shares its own with probability 1 - (1 - 1/B)^(n-1), about (n-1)/B; B is the power of
    two at which that is at most `collisions`. Beyond `max_buckets` ids get two buckets of that many: both
    coincide for one pair in B^2 (hash embeddings, Svenstrup et al., NIPS 2017).
    """
    needed = max(2.0, (distinct - 1) / -math.log1p(-config.collisions))
    size = 2 ** math.ceil(math.log2(needed))
    return (size, 1) if size <= config.max_buckets else (config.max_buckets, 2)


def embedding_dim(distinct: int, config: AdsModelConfig) -> int:
    """Numbers an id becomes: twice the fourth root of how many there are, at most `id_dim`."""
    return min(config.id_dim, max(1, round(2 * distinct**0.25)))
