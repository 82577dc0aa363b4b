"""Small networks and random rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from training.models.pinnability import FeatureSpec
from training.models.transact import Head, Rows, SequenceConfig, TransAct, TransActConfig
from training.models.transact.network import seeded

HOUR = 3_600_000
NOW = 1_760_000_000_000
PINS, WIDTH, LENGTH, ACTIONS = 40, 6, 12, 5
SPEC = FeatureSpec(user=("actions_7d",), pin=("actions_7d", "impressions_7d"), interactions=("cos_recent_max",))
HEADS = (Head(action="save", weights={"save": 3.0}), Head(action="hide", base=0.5))
SEQUENCE = SequenceConfig(length=LENGTH, k=3, action_dim=4, pin_dim=4, actions=ACTIONS, ffn=8)
CONFIG = TransActConfig(spec=SPEC, sequence=SEQUENCE, heads=HEADS, user_dim=3, cross_layers=2, deep=(16, 8))


def network(config: TransActConfig = CONFIG, seed: int = 3) -> TransAct:
    """In evaluation mode, with norms and biases that are not the trivial ones."""
    made = seeded(config, WIDTH, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        made.learn_scale(torch.randn(50, len(config.spec.names), generator=generator) * 20)
    return made


def config(**changes: object) -> TransActConfig:
    """CONFIG with other settings of its sequence."""
    return CONFIG.model_copy(update={"sequence": SequenceConfig(**{**SEQUENCE.model_dump(), **changes})})


def rows(lengths: Sequence[int], seed: int = 0, length: int = LENGTH, gap_h: float = 3.0) -> Rows:
    """One row a history of that many actions, `gap_h` hours between them, the newest an hour old."""
    rng = np.random.default_rng(seed)
    b = len(lengths)
    content = rng.standard_normal((PINS, WIDTH))
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    content[0] = 0
    there = np.arange(length) < np.array(lengths)[:, None]
    times = NOW - HOUR - (np.arange(length) * gap_h * HOUR).astype(np.int64)

    def kept(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.where(there, values, 0))

    return Rows(
        content=torch.from_numpy(content.astype(np.float32)),
        pins=kept(rng.integers(0, PINS, (b, length))),
        actions=kept(rng.integers(1, ACTIONS + 1, (b, length))),
        surfaces=kept(rng.integers(0, 3, (b, length))),
        times_ms=kept(np.broadcast_to(times, (b, length))),
        request_ms=torch.full((b,), NOW),
        candidates=torch.from_numpy(rng.integers(1, PINS, b)),
        features=torch.from_numpy((rng.standard_normal((b, len(SPEC.names))) * 30).astype(np.float32)),
        users=torch.from_numpy(rng.standard_normal((b, 3)).astype(np.float32)),
    )


def changed(given: Rows, **arrays: torch.Tensor) -> Rows:
    return replace(given, **arrays)
