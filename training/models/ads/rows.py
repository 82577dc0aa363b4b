"""The rows of an ads model as arrays: one assembly for training and for serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from training.models.ads.config import DENSE, IDS, VECTORS
from training.models.interactions import INTERACTION_FEATURES
from validation.tables import PADDING_ID

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

SERVING_POSITION = 3.0
"""The place every ad is scored at when serving, so that scores compare; where the first ad of a page stands."""


@dataclass(frozen=True)
class AdRows:
    """n ads beside the pins they are shown with."""

    dense: Floats
    """float32 (n, len(DENSE)), NaN where unknown."""
    ids: Ints
    """int64 (n, len(IDS)), 0 for none. A source is `source_id` of its name."""
    vectors: Floats
    """float32 (n, len(VECTORS), d), zeros where there is none."""

    def __len__(self) -> int:
        return len(self.dense)

    def take(self, index: NDArray) -> AdRows:
        """The rows a mask or positions name."""
        return AdRows(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def source_id(name: str) -> int:
    """A number for a source's name: the same everywhere, never 0. A name never seen has one too."""
    import hashlib

    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 1) or 1


def assemble(
    *,
    user_scalars: Floats,
    pin_scalars: Floats,
    interactions: Floats,
    sources: Sequence[str] | NDArray[np.str_],
    user_ids: Ints,
    pin_ids: Ints,
    pin_topics: Ints,
    anchor_topics: Ints,
    pin_vectors: Floats,
    anchor_vectors: Floats,
    positions: Floats | None = None,
) -> AdRows:
    """The rows of n ads.

    `user_scalars` is (U,) of one user or (n, U), `pin_scalars` (n, P), `interactions` (n, I), in the columns of
    the schema; `pin_topics` and `anchor_topics` (n, T) with 0 for none; vectors (n, d) unit rows or zeros.
    `positions` (n,) are the places of a page in training, None (the serving place) otherwise. Raises ValueError
    naming a block of another shape.
    """
    n = len(pin_ids)
    shapes = {
        "user_scalars": (user_scalars, len(USER_SCALARS)),
        "pin_scalars": (pin_scalars, len(PIN_SCALARS)),
        "interactions": (interactions, len(INTERACTION_FEATURES)),
    }
    for name, (block, width) in shapes.items():
        if block.shape != (n, width) and not (name == "user_scalars" and block.shape == (width,)):
            raise ValueError(f"{name} is {block.shape}; {(n, width)} is expected")
    if pin_vectors.shape != anchor_vectors.shape or len(pin_vectors) != n:
        raise ValueError(f"vectors of pins {pin_vectors.shape} and anchors {anchor_vectors.shape} differ")
    dense = np.empty((n, len(DENSE)), np.float32)
    start = 0
    for block, width in shapes.values():
        dense[:, start : start + width] = block
        start += width
    dense[:, start] = np.einsum("nd,nd->n", pin_vectors, anchor_vectors)
    dense[:, start + 1] = _share_topic(pin_topics, anchor_topics)
    dense[:, start + 2] = SERVING_POSITION if positions is None else positions
    ids = np.empty((n, len(IDS)), np.int64)
    named = {name: source_id(str(name)) for name in np.unique(np.asarray(sources, np.str_))}
    ids[:, 0] = [named[name] for name in np.asarray(sources, np.str_)]
    for column, values in enumerate((user_ids, pin_ids, pin_topics[:, 0], anchor_topics[:, 0]), start=1):
        ids[:, column] = values
    vectors = np.empty((n, len(VECTORS), pin_vectors.shape[1]), np.float32)
    vectors[:, 0], vectors[:, 1] = pin_vectors, anchor_vectors
    return AdRows(dense, ids, vectors)


def _share_topic(a: Ints, b: Ints) -> NDArray[np.bool_]:
    """bool (n,): whether rows of two (n, T) lists have a topic in common."""
    return ((a[:, :, None] == b[:, None, :]) & (a[:, :, None] != PADDING_ID)).any(axis=(1, 2))
