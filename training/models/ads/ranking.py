"""What the ads surface orders by: what showing an ad is expected to bring, less what hiding it costs.

    value = bid * p(click) - hide_penalty * p(hide)          micro-currency an impression

Probabilities are calibrated, or bids of two sources could not be compared. It is a ranking score and no charge:
nothing here bills a click, and daily budgets are not paced.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.models.settings_file import Unreadable, first_fault, read_settings

Floats = NDArray[np.float32]

CLICK, HIDE = "click", "hide"


class AdsPolicyError(ValueError):
    """A file of ads settings cannot be used; the message names it and the mend."""


class AdsPolicy(BaseModel):
    """How many ads a page of related pins has, and which. A file changes it; nothing is trained again."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    every: int = Field(4, ge=2)
    """At most one ad in so many places: the first stands at 0-based place `every` - 1."""
    relevance: float = Field(0.3, ge=-1, le=1)
    """Least inner product of an ad's vector with the pin it is shown beside, in the release's pin space."""
    hide_penalty: float = Field(500_000, ge=0)
    """What one hide costs, micro-currency."""
    least_value: float = Field(0.0, ge=0)
    """An ad whose value is not above this leaves its place to a related pin."""

    def slots(self, places: int) -> int:
        """Ads on a page of so many places."""
        return places // self.every

    def place(self, nth: int) -> int:
        """0-based place of the `nth` ad, counted from 0."""
        return (nth + 1) * self.every - 1


def expected_value(bids: NDArray[np.float64], p: Floats, heads: Sequence[str], policy: AdsPolicy) -> Floats:
    """Value (n,) float32 of n ads, micro-currency an impression; `p` is (n, H) calibrated.

    A model without a hide head costs nothing for hides. Raises ValueError without a click head.
    """
    if CLICK not in heads:
        raise ValueError(f"ads are ranked by {CLICK}; the model has heads {', '.join(heads)}")
    value = bids * p[:, list(heads).index(CLICK)]
    if HIDE in heads:
        value = value - policy.hide_penalty * p[:, list(heads).index(HIDE)]
    return value.astype(np.float32)


def read_ads_policy(file: Path) -> AdsPolicy:
    """The policy of a YAML or JSON file, `every: 5`; the defaults where there is no file.

    Raises AdsPolicyError for a file that does not parse or does not fit.
    """
    if not file.exists():
        return AdsPolicy()
    try:
        return AdsPolicy.model_validate(read_settings(file) or {})
    except Unreadable as error:
        raise AdsPolicyError(str(error)) from error
    except ValidationError as error:
        known = ", ".join(AdsPolicy.model_fields)
        raise AdsPolicyError(f"{file}: {first_fault(error)}; settings are {known}") from error
