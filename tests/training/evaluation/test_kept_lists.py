"""The retrieval benchmark fits a model once for each settings, cut and set of users."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.benchmarks.kept_lists import kept, settings_of
from training.evaluation.as_of import AsOf, Recommend
from training.evaluation.seeded import Seeded, variants_of
from training.evaluation.temporal_models import models

USERS = np.array([3, 4], np.int64)

fitted: list[tuple[int, int, float]] = []


def planted(known: AsOf, *, seed: int, rate: float = 0.1) -> Recommend:
    fitted.append((seed, known.cut.day, rate))
    return lambda users, k: users[:, None] * 100 + np.arange(k) + seed


def lists(runs: Path, day: int = 1, seed: int = 7, users: np.ndarray = USERS, **settings: float) -> np.ndarray:
    known: AsOf = SimpleNamespace(cut=datetime(2026, 1, day, tzinfo=UTC))  # type: ignore[assignment]
    model = kept("planted", Seeded(lambda s: [partial(planted, seed=s, **settings)]), runs, "home")
    return variants_of(model, seed)[0](known)(users, 3)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def nothing_fitted() -> None:
    fitted.clear()


def test_a_fit_that_was_kept_is_not_made_again(tmp_path: Path) -> None:
    for _ in range(2):
        assert lists(tmp_path).tolist() == [[307, 308, 309], [407, 408, 409]]
    assert fitted == [(7, 1, 0.1)]
    lists(tmp_path, seed=8)
    lists(tmp_path, day=2)
    assert fitted[1:] == [(8, 1, 0.1), (7, 2, 0.1)]
    assert lists(tmp_path, users=USERS[:1]).tolist() == [[307, 308, 309]] and len(fitted) == 4


def test_other_settings_are_another_run(tmp_path: Path) -> None:
    lists(tmp_path)
    lists(tmp_path, rate=0.2)
    lists(tmp_path, rate=0.1)  # as it stands by default
    assert [rate for _, _, rate in fitted] == [0.1, 0.2]


def test_a_run_whose_settings_are_not_known_is_told_of_and_made_again(tmp_path: Path) -> None:
    lists(tmp_path)
    (text,) = tmp_path.glob("planted/*.txt")
    text.unlink()
    told: list[str] = []
    kept("planted", [partial(planted, seed=7)], tmp_path, "home", told.append)
    assert told == [f"planted: of unknown settings, to be made again: {text.stem}"]
    lists(tmp_path)
    assert len(fitted) == 2 and text.exists()


def test_the_text_of_a_fit_names_what_is_bound_and_what_stands_by_default() -> None:
    inner = partial(planted, seed=1)
    assert settings_of(inner) == "planted(rate=0.1, seed=1)"
    assert settings_of(partial(sorted, key=inner)) == ("sorted(key=planted(rate=0.1, seed=1), reverse=False)")


def test_settings_in_a_closure_are_refused() -> None:
    def made(rate: float) -> Callable[[], float]:
        return lambda: rate

    with pytest.raises(ValueError, match="bind them with partial"):
        settings_of(made(0.1))


def test_every_model_of_the_table_says_its_settings(tmp_path: Path) -> None:
    for name, model in models().items():
        kept(name, model, tmp_path, "home")
        if isinstance(model, Seeded):
            texts = [settings_of(fit) for seed in (0, 1) for fit in model.variants(seed)]
            assert len(set(texts)) == len(texts), name
