"""How a walk is done."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from training.models.pixie.engine import HALF_FULL


class PixieConfig(BaseModel):
    """Parameters of the walk; the defaults are the paper's and its 2018 follow-up's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(100_000, ge=1, le=2**26)
    """Steps of a whole query, shared among its pins."""
    restart: float = Field(0.5, gt=0, le=1)
    """Chance of returning to the query pin before a step: walks are 1 / restart long in the mean."""
    stop_pins: int = Field(100, ge=0)
    """n_p: a query pin's walk ends once so many pins have `stop_visits` visits; 0 never stops early. For the
    best 100 of a graph of a million pins, (100, 20) keeps as much of them as (500, 4); the paper's (2000, 4)
    is for 1000.
    """
    stop_visits: int = Field(20, ge=1, lt=HALF_FULL)
    """n_v."""
    steps_by_degree: bool = True
    """Query pins of many boards get more steps (paper, eq. 1); False shares by weight alone, which suits whole
    histories: their bestsellers would take most of the walk."""
    boost: bool = True
    """The multi-hit booster."""
    bias_strength: float = Field(0.9, ge=0, le=1)
    """Chance that a hop of a biased walk keeps to the preferred edges, where there are some."""
    popularity_discount: float = Field(0.0, ge=0, le=2)
    """A pin's score is divided by its degree to this power (RP3beta's beta). 0 is the paper's Pixie."""
    walkers: int = Field(128, ge=1, le=1024)
    """Walkers interleaved: a step takes 0.7-0.8x the time at 128 that it takes at 32, flat beyond. Part of what
    a seed means."""
    max_query_pins: int = Field(500, ge=1)
    """Heaviest query pins kept."""
