"""Query rewards: clusters that users engage with are sampled more often (Pinterest Engineering, 2022).

PinnerSage's importances say what a user did anywhere; rewards say what came of the pins that each medoid, as
the query of a search, put before the user. A cluster is sampled in proportion to importance times reward, its
engagement rate on what it retrieved over the usual rate; a cluster without a record gets the average weight of
those that have one. The follow-up gives no figures; the smoothing is ours.

Online this needs an impression log that names the retrieving medoid: `source` (pinnersage) and `anchor` (pin
id of the medoid) beside user, pin and time of every impression. Where a log has no anchors, `nearest_anchor`
guesses them from vectors. A medoid that changes from day to day starts a new record.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.models.pinnersage import Interests

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


class RewardConfig(BaseModel):
    """How much of a record it takes to move a weight."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_rate: float = Field(0.05, gt=0, le=1)
    """Engagements an impression of the source over all users: the rate that no record is taken for."""
    prior_impressions: float = Field(50.0, gt=0)
    """Impressions at `base_rate` added to every record; as many real ones weigh as much."""
    least: float = Field(0.1, gt=0)
    """Smallest reward: a cluster that failed is still tried now and then, or it could never recover."""
    most: float = Field(10.0, ge=1)


@dataclass(frozen=True)
class Record:
    """What one user was shown by each medoid and engaged with; parallel arrays, ids distinct and ascending."""

    medoid_pin_ids: Ints  # (k,)
    impressions: Doubles  # (k,)
    engagements: Doubles  # (k,)

    def __post_init__(self) -> None:
        ids, shown, engaged = self.medoid_pin_ids, self.impressions, self.engagements
        if not ids.shape == shown.shape == engaged.shape:
            raise ValueError(f"a record of {ids.shape} medoids has {shown.shape} and {engaged.shape} counts")
        if (np.diff(ids) <= 0).any():
            raise ValueError("a record's medoids must be distinct and ascend; `tally` makes one")
        wrong = (shown < 0) | (engaged < 0) | (engaged > shown) | ~np.isfinite(shown)
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(f"medoid {ids[row]}: {engaged[row]:g} engagements on {shown[row]:g} impressions")


def tally(anchors: Ints, engaged: NDArray[np.bool_]) -> Record:
    """The record of one user's impressions: `anchors` (n,) medoid pin ids, 0 = not by a medoid, and whether the
    user engaged with each pin shown, (n,).
    """
    known = anchors > 0
    ids, inverse = np.unique(anchors[known], return_inverse=True)
    return Record(
        ids,
        np.bincount(inverse, minlength=len(ids)).astype(np.float64),
        np.bincount(inverse, weights=engaged[known], minlength=len(ids)).astype(np.float64),
    )


def rewards(medoid_pin_ids: Ints, record: Record, config: RewardConfig) -> Doubles:
    """Reward of each cluster, (n,) float64, 1 where it did as well as usual.

    `(engagements + prior * base) / (impressions + prior) / base`, within [least, most]; a medoid that is not in
    the record, or in it without an impression, gets the mean reward of those that are, 1 where none is.
    """
    out = np.full(len(medoid_pin_ids), np.nan)
    if len(record.medoid_pin_ids):
        place = np.searchsorted(record.medoid_pin_ids, medoid_pin_ids)
        place = np.minimum(place, len(record.medoid_pin_ids) - 1)
        found = (record.medoid_pin_ids[place] == medoid_pin_ids) & (record.impressions[place] > 0)
        prior = config.prior_impressions
        rate = (record.engagements + prior * config.base_rate) / (record.impressions + prior)
        reward = np.clip(rate / config.base_rate, config.least, config.most)
        out[found] = reward[place[found]]
    known = np.isfinite(out)
    return np.where(known, out, out[known].mean() if known.any() else 1.0)


def rewarded(interests: Interests, record: Record, config: RewardConfig) -> Interests:
    """The interests with importances times rewards, heaviest first: what `sample_medoids` then draws from."""
    weights = interests.importances * rewards(interests.medoid_pin_ids, record, config)
    order = np.lexsort((interests.medoid_pin_ids, -weights))
    return replace(
        interests,
        medoid_pin_ids=interests.medoid_pin_ids[order],
        importances=weights[order].astype(np.float32),
        sizes=interests.sizes[order],
        vectors=interests.vectors[order],
    )


def nearest_anchor(shown: Floats, interests: Interests, least: float = 0.5) -> Ints:
    """Medoid that each shown pin lies nearest to, (n,) int64; 0 where no cosine reaches `least`.

    A guess for logs without anchors. `shown` is (n, d) unit vectors of the interests' space.
    """
    if len(interests) == 0 or len(shown) == 0:
        return np.zeros(len(shown), np.int64)
    likeness = shown @ interests.vectors.T  # (n, k)
    best = likeness.argmax(axis=1)
    near = likeness[np.arange(len(shown)), best] >= least
    return np.where(near, interests.medoid_pin_ids[best], 0)
