"""Users who save what is like the pin they saved, and hide what is like the pin they hid."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd

from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from feature_repo.sequence import SequenceLog
from training.data.training_set import Block
from training.models.interactions import INTERACTION_FEATURES
from training.models.query_features import QUERY_FEATURES
from training.transact.examples import PinTable

GROUPS, PINS = 4, 80
ACTIONS = ("click", "save", "hide")
START = 1_760_000_000_000
HOUR = 3_600_000


def pin_table(seed: int = 0) -> PinTable:
    """Pin id i + 1 is of group i % GROUPS."""
    rng = np.random.default_rng(seed)
    content = np.eye(8)[np.arange(PINS) % GROUPS] + 0.1 * rng.standard_normal((PINS, 8))
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    return PinTable(np.arange(1, PINS + 1), content.astype(np.float32))


@lru_cache
def world(rows: int, seed: int = 1) -> tuple[Block, SequenceLog]:
    """One user a row: a save of one group and a hide of another, 30 and 45 hours before the impression.

    The impression is answered by a save or a hide where its pin is of such a group, at its very time.
    """
    rng = np.random.default_rng(seed)
    liked = rng.integers(0, GROUPS, rows)
    hidden = (liked + rng.integers(1, GROUPS, rows)) % GROUPS
    shown = rng.integers(0, GROUPS, rows)

    def pin(group: np.ndarray) -> np.ndarray:
        return 1 + group + GROUPS * rng.integers(0, PINS // GROUPS, rows)

    users, times = np.arange(1, rows + 1), START + np.arange(rows) * 1000
    candidates = pin(shown)
    first = rng.random(rows) < 0.5  # whether the save came first: only its type tells it from the hide
    acts = [
        (pin(liked), 2, times - np.where(first, 45, 30) * HOUR),
        (pin(hidden), 3, times - np.where(first, 30, 45) * HOUR),
        (candidates, np.where(shown == hidden, 3, 2), times),  # the answer: it must not be seen
    ]
    log = pd.DataFrame(
        {
            "user_id": np.tile(users, 3),
            "event_id": np.arange(1, 3 * rows + 1),
            "pin_id": np.concatenate([a[0] for a in acts]),
            "action": np.concatenate([np.broadcast_to(a[1], rows) for a in acts]).astype(np.int8),
            "timestamp": pd.to_datetime(np.concatenate([a[2] for a in acts]), unit="ms", utc=True),
        }
    )
    labels = np.zeros((rows, 3), np.int8)
    labels[shown == liked, 1], labels[shown == hidden, 2] = 1, 1
    keys = pd.DataFrame(
        {
            "request_id": users,
            "user_id": users,
            "pin_id": candidates,
            "position": 0,
            "timestamp": pd.to_datetime(times, unit="ms", utc=True),
        }
    )
    block = Block(
        keys=keys,
        user_scalars=np.full((rows, len(USER_SCALARS)), np.nan, np.float32),
        pin_scalars=rng.exponential(3, (rows, len(PIN_SCALARS))).astype(np.float32),
        interactions=rng.standard_normal((rows, len(INTERACTION_FEATURES))).astype(np.float32),
        query=np.zeros((rows, len(QUERY_FEATURES)), np.float32),
        position=rng.integers(0, 20, rows).astype(np.float32),
        label=labels[:, 1],
        labels=labels,
        weight=np.ones(rows, np.float32),
    )
    return block, SequenceLog.from_actions(log)
