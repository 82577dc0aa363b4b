"""The retrieval benchmark fits a model once for each cut and set of users, in however many calls."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from tests.benchmarks.retrieval_quality import kept
from training.evaluation.as_of import AsOf, Recommend
from training.evaluation.seeded import Seeded, variants_of

USERS = np.array([3, 4], np.int64)


def test_a_fit_that_was_kept_is_not_made_again(tmp_path: Path) -> None:
    fitted: list[tuple[int, int]] = []

    def fit(known: AsOf, seed: int) -> Recommend:
        fitted.append((seed, known.cut.day))
        return lambda users, k: users[:, None] * 100 + np.arange(k) + seed

    def lists(day: int, seed: int, users: np.ndarray) -> np.ndarray:
        known: AsOf = SimpleNamespace(cut=datetime(2026, 1, day, tzinfo=UTC))  # type: ignore[assignment]
        model = kept("planted", Seeded(lambda s: [lambda k: fit(k, s)]), tmp_path, "home")
        return variants_of(model, seed)[0](known)(users, 3)  # type: ignore[arg-type]

    for _ in range(2):
        assert lists(1, 7, USERS).tolist() == [[307, 308, 309], [407, 408, 409]]
    assert fitted == [(7, 1)]
    lists(1, 8, USERS)
    lists(2, 7, USERS)
    assert fitted == [(7, 1), (8, 1), (7, 2)]
    assert lists(1, 7, USERS[:1]).tolist() == [[307, 308, 309]] and len(fitted) == 4
