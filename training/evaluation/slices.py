"""Slices of shown pins that calibration is looked at by: to whom, where, and what brought them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.data.training_set import Block
from training.evaluation.ranker_metrics import new_users
from validation.tables import SOURCE, SURFACE

Flags = NDArray[np.bool_]

MOST = 4
"""Values of one kind that get a slice of their own: the most frequent."""


def slices_of(
    surfaces: Sequence[str | None] | pd.Series, sources: Sequence[str | None] | pd.Series, new: Flags
) -> dict[str, Flags]:
    """Masks (n,) by name: new users, the most frequent surfaces and sources where there is more than one."""
    out = {"new users": new}
    for values in (surfaces, sources):
        column = pd.Series(values, dtype=object)
        frequent = column.value_counts().index[:MOST].tolist()
        if len(frequent) > 1:
            out |= {str(value): (column == value).to_numpy(bool) for value in frequent}
    return out


def block_slices(block: Block) -> dict[str, Flags]:
    """`slices_of` a training set's rows."""
    return slices_of(block.keys[SURFACE], block.keys[SOURCE], new_users(block))
