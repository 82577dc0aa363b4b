"""Ads whose answers are planted: what one source clicks on, the other leaves."""

from __future__ import annotations

import numpy as np

from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from training.ads.examples import AdExamples
from training.models.ads.rows import assemble
from training.models.interactions import INTERACTION_FEATURES

ACTIONS = ("closeup", "click", "long_click", "save", "hide")
DIM = 6


def planted_ads(n: int = 6_000, *, seed: int = 0, days: int = 4, base: float = -2.5) -> AdExamples:
    """`standard` ads are clicked where the pin is like the anchor, `shopping` ads where it is popular.

    The two read each other's feature backwards, so that one set of weights cannot serve both.
    """
    rng = np.random.default_rng(seed)
    sources = rng.choice(["standard", "shopping"], n)
    anchor = _unit(rng.standard_normal((n, DIM)))
    pin = _unit(rng.standard_normal((n, DIM)) + rng.choice([0.0, 2.0], (n, 1)) * anchor)
    likeness = (pin * anchor).sum(axis=1)
    scalars = rng.poisson(3.0, (n, len(PIN_SCALARS))).astype(np.float32)
    popular = (np.log1p(scalars[:, 0]) - 1.2) * 2
    meant = np.where(sources == "standard", 2.5 * likeness - popular, 1.5 * popular - 1.5 * likeness)
    clicked = rng.random(n) < 1 / (1 + np.exp(-(base + meant)))
    labels = np.zeros((n, len(ACTIONS)), np.int8)
    labels[:, 1] = clicked
    labels[:, 2] = clicked & (rng.random(n) < 0.5)
    labels[:, 4] = ~clicked & (rng.random(n) < 0.05)
    topics = rng.integers(1, 5, (n, 4))
    rows = assemble(
        user_scalars=rng.poisson(2.0, (n, len(USER_SCALARS))).astype(np.float32),
        pin_scalars=scalars,
        interactions=rng.standard_normal((n, len(INTERACTION_FEATURES))).astype(np.float32),
        sources=sources,
        user_ids=rng.integers(1, 200, n),
        pin_ids=rng.integers(1, 60, n),
        pin_topics=topics,
        anchor_topics=topics[::-1],
        pin_vectors=pin.astype(np.float32),
        anchor_vectors=anchor.astype(np.float32),
        positions=rng.integers(0, 8, n).astype(np.float32),
    )
    at = np.datetime64("2026-03-01") + np.sort(rng.integers(0, days, n)).astype("timedelta64[D]")
    return AdExamples(rows, sources, labels, ACTIONS, at)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)
