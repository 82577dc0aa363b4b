"""Which impressions are of sponsored pins."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from validation.tables import RELATED_ADS


def of_surfaces(surfaces: pa.ChunkedArray | pa.Array, ads: bool) -> np.ndarray:
    """bool (n,): impressions of sponsored pins, or all the others, those without a surface among them."""
    sponsored = pc.fill_null(pc.equal(surfaces, RELATED_ADS), False).to_numpy(zero_copy_only=False)
    return sponsored if ads else ~sponsored
