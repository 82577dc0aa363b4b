"""What one PinnerFormer is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from feature_repo.sequence import SURFACES


class TokenFeatures(BaseModel):
    """Which features an input token has; the pin tower has its own inputs whatever is off here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pin: bool = True
    """The pin's content vector (and its id embedding, where the network has one)."""
    action: bool = True
    surface: bool = True
    duration: bool = True
    """log(1 + seconds)."""
    time: bool = True
    """155 values: absolute time, time since the newest action, gap to the previous one."""
    position: bool = True
    """A learned vector a position, counted from the newest action."""

    def without(self, name: str) -> TokenFeatures:
        """The same with one feature off."""
        return type(self).model_validate({**self.model_dump(), name: False})


class PinnerFormerConfig(BaseModel):
    """Shape of the network. The paper runs dim 256 and up to 6 layers of hidden 768, with 8 heads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(64, ge=2, le=4096)
    """D: width of user and pin vectors."""
    hidden: int = Field(128, ge=8, le=8192)
    """H: width of the transformer and of the pin tower's one hidden layer."""
    layers: int = Field(2, ge=1, le=48)
    heads: int = Field(4, ge=1)
    length: int = Field(256, ge=1, le=4096)
    """M: newest actions read."""
    days: float = Field(365, gt=0)
    """Actions longer ago than this before the newest one are not read."""
    features: TokenFeatures = TokenFeatures()
    action_dim: int = Field(16, ge=1)
    surface_dim: int = Field(8, ge=1)
    actions: int = Field(126, ge=1)
    """Largest action code; code 0 is none."""
    surfaces: int = Field(len(SURFACES), ge=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    """On tokens and on what each block adds."""
    id_dim: int = Field(0, ge=0)
    """Width of an embedding of the pin's id, for data without content; 0 has none. Such a network knows only
    the catalogue it was trained on; a pin outside it shares one vector."""
    temperature: float = Field(0.07, ge=0.01)
    """Where the learned temperature starts."""

    @model_validator(mode="after")
    def _heads_divide(self) -> PinnerFormerConfig:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is not a multiple of heads {self.heads}")
        return self
