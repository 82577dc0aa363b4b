"""Users of planted groups: a user of group g acts on pins of group g, and content says the group."""

from __future__ import annotations

import numpy as np

from training.models.pinnerformer import ActionArrays
from training.pinnerformer.timelines import Timelines, first_times

PINS, GROUPS, WIDTH = 300, 10, 16
HOUR, DAY = 3_600_000, 86_400_000
START = 1_760_000_000_000

HIDE = 5
"""The planted negative action: on pins of the next group, and never a label."""


def planted_content() -> np.ndarray:
    """Pin p is of group p % GROUPS."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((GROUPS, WIDTH))
    content = centres[np.arange(PINS) % GROUPS] + 0.5 * rng.standard_normal((PINS, WIDTH))
    return (content / np.linalg.norm(content, axis=1, keepdims=True)).astype(np.float32)


def timelines(lengths: list[int], seed: int = 1, *, hides: float = 0.1, step: int = 8 * HOUR) -> Timelines:
    """Users of group (place % GROUPS), `lengths[u]` actions each, `step` apart on average."""
    rng = np.random.default_rng(seed)
    rows, actions, times = [], [], []
    for user, length in enumerate(lengths):
        hidden = rng.random(length) < hides
        group = (user + hidden) % GROUPS
        rows.append(group + GROUPS * rng.integers(0, PINS // GROUPS, length))
        actions.append(np.where(hidden, HIDE, rng.integers(1, 4, length)))
        times.append(START + np.cumsum(rng.integers(0, 2 * step + 1, length)))
    count = sum(lengths)
    arrays = ActionArrays(
        np.concatenate([*rows, np.empty(0)]).astype(np.int32),
        np.concatenate([*actions, np.empty(0)]).astype(np.int8),
        np.ones(count, np.int8),
        rng.exponential(10, count).astype(np.float32),
        np.concatenate([*times, np.empty(0)]).astype(np.int64),
    )
    owners = np.repeat(np.arange(len(lengths)), lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    users = np.arange(1, len(lengths) + 1) * 10
    return Timelines(users, offsets, arrays, arrays.actions != HIDE, first_times(owners, arrays))
