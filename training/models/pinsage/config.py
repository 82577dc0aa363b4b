"""What one PinSage network is made of, and the rungs of the ladder that leads to it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Pooling(StrEnum):
    """How a neighbourhood becomes one vector (gamma of the paper's algorithm 1)."""

    IMPORTANCE = "importance"
    """Mean weighted by the random walks' visits."""
    MEAN = "mean"
    MAX = "max"


class PinSageConfig(BaseModel):
    """Shape of the network. The paper runs dim 1024, hidden 2048, 50 neighbours, two layers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(64, ge=2, le=4096)
    """Width of a pin's vector."""
    hidden: int = Field(128, ge=2, le=8192)
    """Width m of projected neighbours, of the latents between layers and of the head."""
    layers: int = Field(2, ge=0, le=4)
    """Convolutions; 0 leaves the head alone on the pin's own inputs (content only)."""
    neighbours: int = Field(50, ge=1, le=1024)
    """T: neighbours kept per pin, the most visited ones."""
    pooling: Pooling = Pooling.IMPORTANCE
    degree: bool = True
    """Whether the log of the pin's degree is an input beside its content."""
    length_power: float = Field(0.25, ge=0, le=1)
    """What is left of a vector's length when it leaves: length ** this. The loss compares vectors as they are
    (1, the paper's), and their length comes to say how much a pin appeals: at 1 an inner-product index gives
    popular pins of other topics before near ones. 0 is unit rows, ranked by likeness alone. A little length
    orders pins of equal likeness by appeal, and leaves rows so nearly of one length that clusters and
    cosines hardly notice. Served rows are scaled to mean length one."""


class Rung(StrEnum):
    """The compared models: those of the paper's table 1, and GraphSAGE."""

    CONTENT = "content"
    """The head on the content vector alone: no graph at all."""
    CONTENT_DEGREE = "content+degree"
    """The same with the log degree: what popularity alone brings."""
    GRAPHSAGE = "graphsage"
    """Neighbours drawn uniformly, pooled by their mean: no importance at all."""
    MAX = "max"
    MEAN = "mean"
    """The most visited neighbours, as PinSage has them, pooled by their mean."""
    MEAN_HARD = "mean+hard"
    IMPORTANCE = "importance"
    """Importance pooling without hard negatives."""
    PINSAGE = "pinsage"
    """Importance pooling with hard negatives."""

    @property
    def hard_negatives(self) -> bool:
        return self in (Rung.MEAN_HARD, Rung.PINSAGE)

    def network(self, base: PinSageConfig) -> PinSageConfig:
        """`base` with what makes this rung."""
        changes: dict[Rung, dict[str, object]] = {
            Rung.CONTENT: {"layers": 0, "degree": False},
            Rung.CONTENT_DEGREE: {"layers": 0},
            Rung.GRAPHSAGE: {"pooling": Pooling.MEAN},
            Rung.MAX: {"pooling": Pooling.MAX},
            Rung.MEAN: {"pooling": Pooling.MEAN},
            Rung.MEAN_HARD: {"pooling": Pooling.MEAN},
            Rung.IMPORTANCE: {"pooling": Pooling.IMPORTANCE},
            Rung.PINSAGE: {"pooling": Pooling.IMPORTANCE},
        }
        return base.model_copy(update=changes[self])
