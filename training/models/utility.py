"""Utility: one number to rank by, out of the calibrated probabilities of every action.

U = sum over actions a of W(a) * p(a) (Pinterest Engineering, September 2020). The weights are a business
decision kept outside the ranker: a file changes them, and no model is trained again. They mean something only
beside calibrated probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.models.ranker import ENGAGE
from validation.tables import Polarity, Vocabulary

Floats = NDArray[np.float32]

DEFAULTS: Mapping[str, float] = {
    "closeup": 0.1,
    "click": 0.3,
    "long_click": 0.6,
    "save": 1.0,
    "download": 1.0,
    "hide": -5.0,
    "report": -20.0,
}
"""A save is worth 1; what is rarer and means more weighs more, and one hide undoes five saves."""

_BY_POLARITY = {Polarity.POSITIVE: 1.0, Polarity.NEGATIVE: -5.0}
"""Of actions that DEFAULTS does not know."""


MOST = 1e6
"""Largest weight either way: sums stay far inside float32."""


class UtilityError(ValueError):
    """Weights that do not fit the data set or the ranker; the message names them and the mend."""


class UtilityWeights(BaseModel):
    """What one action of each kind is worth. Actions without a weight are worth nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: dict[str, Annotated[float, Field(ge=-MOST, le=MOST)]]
    """By action name: positive for what a user wants, negative for what they do not."""

    @classmethod
    def default(cls, vocabulary: Vocabulary) -> Self:
        """Weights for any data set: those of DEFAULTS, else 1 for positive actions and -5 for negative ones."""
        known = {n: _BY_POLARITY[p] for n, p in vocabulary.actions.items() if p is not Polarity.NEUTRAL}
        signs = {Polarity.POSITIVE: 1, Polarity.NEGATIVE: -1, Polarity.NEUTRAL: 0}
        for name, weight in DEFAULTS.items():
            if weight * signs.get(vocabulary.actions.get(name), 0) > 0:
                known[name] = weight
        return cls(weights=known)

    def check(self, vocabulary: Vocabulary) -> Self:
        """These weights, once they fit the data set.

        Raises UtilityError for an action it does not have, for a positive action that counts against a pin or a
        negative one that counts for it, and where no action counts at all.
        """
        unknown = sorted(set(self.weights) - set(vocabulary.actions))
        if unknown:
            raise UtilityError(
                f"utility weighs {', '.join(unknown)}; the data set's actions are {', '.join(vocabulary.names)}"
            )
        for name, weight in self.weights.items():
            polarity = vocabulary.actions[name]
            wrong = {Polarity.POSITIVE: weight < 0, Polarity.NEGATIVE: weight > 0}.get(polarity, False)
            if wrong:
                side = "below" if polarity is Polarity.NEGATIVE else "above"
                raise UtilityError(
                    f"utility weighs {name} with {weight:g}; it is a {polarity.value} action, "
                    f"give a weight {side} 0"
                )
        if not any(self.weights.values()):
            raise UtilityError("every utility weight is 0; give one action a weight, or the order is chance")
        return self

    def vector(self, heads: Sequence[str]) -> Floats:
        """Weight of each head of a ranker, (H,) float32, 0 for heads without one.

        A ranker whose one head is ENGAGE orders by it, whatever actions are worth. Raises UtilityError where
        no head has a weight; `without_head` names those a ranker cannot honour.
        """
        if tuple(heads) == (ENGAGE,):
            return np.ones(1, np.float32)
        out = np.array([self.weights.get(head, 0.0) for head in heads], np.float32)
        if not out.any():
            weighed = ", ".join(name for name, weight in self.weights.items() if weight)
            raise UtilityError(
                f"the ranker has heads {', '.join(heads)}; utility weighs none of them but {weighed}"
            )
        return out

    def without_head(self, heads: Sequence[str]) -> tuple[str, ...]:
        """Actions with a weight that `heads` does not have."""
        return tuple(name for name, weight in self.weights.items() if weight and name not in heads)


def utility(p: Floats, weights: Floats) -> Floats:
    """U (n,) float32 of calibrated probabilities (n, H) and `UtilityWeights.vector` (H,)."""
    return p @ weights
