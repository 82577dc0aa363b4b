"""A search under a budget: seeded, resumable, and never worse than what it began with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.ads.planted import planted_ads
from training.ads.trainer import AdsTraining, train_model
from training.ads.tuning import Tuned, TuningError, tune, validation_loss
from training.models.ads.network import AdsNetwork
from training.models.ads.representation import Batch

pytest.importorskip("optuna")

TRAIN, VALIDATION = planted_ads(1_200, seed=1), planted_ads(800, seed=2)
BASE = AdsTraining(epochs=2, learning_rate=1e-3, min_positives=20)


def searched(folder: Path, trials: int, study: str = "a") -> Tuned:
    return tune(TRAIN, VALIDATION, storage=folder / "ads.db", study=study, base=BASE, trials=trials)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return searched(tmp_path_factory.mktemp("whole"), 4)


def test_the_first_trial_is_what_there_is_and_the_best_is_no_worse(whole: Tuned) -> None:
    first = whole.trials[0]
    assert (first["epochs"], first["learning_rate"]) == (2, 1e-3)
    assert whole.loss <= whole.first
    assert whole.loss == min(t["loss"] for t in whole.trials if t["state"] == "complete")
    model = train_model(TRAIN, VALIDATION, whole.best, name="again")
    assert validation_loss(model, VALIDATION, whole.best.negative_rate) == pytest.approx(whole.loss, rel=1e-5)
    assert whole.best.seed == BASE.seed


def test_a_search_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first = searched(tmp_path, 2)
    more = searched(tmp_path, 3)
    assert len(first.trials) == 2
    assert len(more.trials) == 3
    assert more.trials[:2] == first.trials
    assert searched(tmp_path, 3).trials == more.trials  # nothing left to do
    assert len(searched(tmp_path, 1, study="another data set").trials) == 1


def test_a_search_killed_in_its_first_trial_begins_again_with_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("training.ads.tuning.train_model", killed)
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path, 1)
    trials = searched(tmp_path, 2).trials
    ended = [t for t in trials if t["state"] == "complete"]
    assert trials[0]["state"] != "complete"
    assert (ended[0]["epochs"], ended[0]["learning_rate"]) == (2, 1e-3)


def test_a_trial_that_diverges_does_not_end_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([float("nan"), 0.9])
    monkeypatch.setattr("training.ads.tuning.train_model", lambda *_, **__: None)
    monkeypatch.setattr("training.ads.tuning.validation_loss", lambda *_: next(losses))
    found = searched(tmp_path, 2)
    assert [t["state"] for t in found.trials] == ["pruned", "complete"]
    assert found.loss == 0.9 and np.isnan(found.first)


def test_training_that_diverges_is_pruned_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(network: AdsNetwork, batch: Batch, *_: object) -> torch.Tensor:
        return network.hidden(batch).sum() * torch.nan

    monkeypatch.setattr(AdsNetwork, "loss", loss)
    with pytest.raises(TuningError, match="no trial ended with a loss"):
        searched(tmp_path, 2)


def test_equal_seeds_search_alike(whole: Tuned, tmp_path: Path) -> None:
    again = searched(tmp_path, 4)
    assert [t["learning_rate"] for t in again.trials] == [t["learning_rate"] for t in whole.trials]
    assert again.best == whole.best


def test_the_loss_is_one_of_who_knows_only_the_rate() -> None:
    class Rate:
        heads = ("click",)

        def raw(self, rows: object, sources: object) -> np.ndarray:
            return np.full((len(VALIDATION), 1), VALIDATION.of(["click"]).mean(), np.float32)

    assert validation_loss(Rate(), VALIDATION, 1.0) == pytest.approx(1.0, abs=1e-5)  # type: ignore[arg-type]


def test_a_search_without_a_budget_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="needs a budget"):
        tune(TRAIN, VALIDATION, storage=tmp_path / "ads.db", study="a")
