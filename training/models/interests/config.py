"""What one multi-interest user model is made of, and the methods it is compared as."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Construction(StrEnum):
    """How a history becomes K conditions."""

    CAPSULES = "capsules"
    """Clusters of the history by routing; with one interest, the mean of the history."""
    SELF_ATTENTION = "self_attention"
    TOKENS = "tokens"
    PFS = "pfs"
    TOPICS = "topics"
    """Nothing is built: the caller names topics (conditional retrieval)."""


class Association(StrEnum):
    """Which of a user's embeddings an engagement trains."""

    ARGMAX = "argmax"
    """The one that scores it highest."""
    GUMBEL = "gumbel"
    """One drawn by straight-through Gumbel-softmax over the scores, where argmax would starve the others."""
    LABEL_AWARE = "label_aware"
    """All of them, mixed by softmax(p * score) (MIND)."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RoutingConfig(_Frozen):
    """Capsule routing. The defaults are DCM's; both switches off are MIND's."""

    farthest_point: bool = True
    """Centroids start at items far from each other (VA-FPI); else from random-normal logits."""
    single_assignment: bool = True
    """An item adds to the centroid nearest to it alone (SAR); else to all, by softmax."""
    iterations: int = Field(3, ge=1)
    sharpness: float = Field(8.0, gt=0)
    """Factor on centroid-item products before the softmax; unit vectors would leave it almost flat."""
    adaptive: bool = False
    """Random starts only: a user has max(1, min(K, log2 of their items)) interests, as MIND proposes."""
    shared_map: bool = False
    """Whether items pass one learned map S first (MIND's bilinear map); else S is the identity."""


class ItemTowerConfig(_Frozen):
    """W2 GELU(W1 [content, topics]), and V2 GELU(V1 [content, topics, performance]) for the last places."""

    hidden: int = Field(128, ge=1)
    topic_dim: int = Field(16, ge=0)
    """Width of a topic's embedding; a pin enters with the mean of its topics'. 0 leaves topics out."""
    performance: bool = False
    """Whether a pin enters with its recent appeal too: its vector is then one of a day, and made anew daily."""
    performance_dim: int = Field(8, ge=1)
    """How many of a vector's last places appeal may move; the others say what a pin is, on any day."""


class UserTowerConfig(_Frozen):
    """DHEN, two levels: (transformer || MLP), then (parallel MaskNet || MLP), summed level by level."""

    token: int = Field(16, ge=2)
    """Width of each field's token."""
    layers: int = Field(1, ge=1)
    heads: int = Field(2, ge=1)
    mlp: int = Field(64, ge=1)
    blocks: int = Field(2, ge=1)
    block: int = Field(32, ge=1)
    """Output width of one MaskNet block."""
    mask_ratio: float = Field(0.5, gt=0)
    """Hidden width of a block's mask over the width of its input."""
    residual: bool = True
    """Whether the condition is added to what the tower says of it: learning then starts at the condition."""

    @classmethod
    def paper(cls) -> UserTowerConfig:
        """The size of arXiv 2506.23060."""
        return cls(token=256, layers=2, heads=4, mlp=1024, blocks=4, block=128, mask_ratio=0.5, residual=False)


class InterestsConfig(_Frozen):
    """One user model. The paper serves K = 7 implicit interests and 5 explicit ones."""

    construction: Construction = Construction.CAPSULES
    association: Association = Association.ARGMAX
    interests: int = Field(7, ge=1, le=64)
    dim: int = Field(64, ge=2)
    """Width of every vector of the space."""
    length: int = Field(64, ge=1)
    """Newest actions of a history that are looked at."""
    routing: RoutingConfig = RoutingConfig()
    item_tower: ItemTowerConfig = ItemTowerConfig()
    user_tower: UserTowerConfig = UserTowerConfig()
    temperature: float = Field(0.07, gt=0)
    """Divides cosines in the loss."""
    label_power: float = Field(8.0, ge=0)
    """p of label-aware attention."""
    gumbel_temperature: float = Field(1.0, gt=0)
    """Temperature of straight-through Gumbel over scores that `temperature` has divided already."""
    clusters: int = Field(32, ge=1)
    """K-means clusters of the catalogue by which PFS splits a history."""

    @property
    def by_day(self) -> bool:
        """Whether a pin's vector is one of a day: it knows how the pin performed until a midnight."""
        return self.item_tower.performance

    @property
    def lasting(self) -> int:
        """How many of a vector's first places are the same on every day; histories are clustered by those."""
        return self.dim - self.item_tower.performance_dim * self.item_tower.performance


class Method(StrEnum):
    """The compared user models, in the order of the paper's table."""

    SINGLE = "single"
    SELF_ATTENTION = "self_attention"
    TOKENS = "tokens"
    MIND = "mind"
    PFS = "pfs"
    DCM = "dcm"

    def config(self, base: InterestsConfig | None = None) -> InterestsConfig:
        """`base` with what makes this method."""
        base = base or InterestsConfig()
        mind = base.routing.model_copy(
            update={"farthest_point": False, "single_assignment": False, "shared_map": True}
        )
        dcm = base.routing.model_copy(update={"farthest_point": True, "single_assignment": True})
        changes: dict[Method, dict[str, object]] = {
            Method.SINGLE: {"construction": Construction.CAPSULES, "interests": 1, "routing": dcm},
            Method.SELF_ATTENTION: {
                "construction": Construction.SELF_ATTENTION,
                "association": Association.GUMBEL,
            },
            Method.TOKENS: {"construction": Construction.TOKENS, "association": Association.GUMBEL},
            Method.MIND: {
                "construction": Construction.CAPSULES,
                "association": Association.LABEL_AWARE,
                "routing": mind,
            },
            Method.PFS: {"construction": Construction.PFS, "association": Association.ARGMAX},
            Method.DCM: {"construction": Construction.CAPSULES, "routing": dcm},
        }
        return base.model_copy(update=changes[self])
