"""Transforms and sizes of an ads model, chosen by trials under a budget (Optuna: TPE, median pruning).

Trials are judged on days after those they learn from, and never on the test days. The first trial is the
settings the search begins with, so that what is chosen is no worse on the days it was chosen by. Every trial is
in a SQLite file: a search that was cut short goes on where it stopped. A trial whose loss is no number is
pruned.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.ads.examples import AdExamples
from training.ads.trainer import AdsTraining, Diverged, layout_of, train_model
from training.evaluation import metrics
from training.models.ads.config import AdsModelConfig
from training.models.ads.model import AdsModel
from training.models.calibration.sampling import restore_rate

Progress = Callable[[str], None]

STARTUP = 6
"""Trials drawn evenly before any is pruned or the sampler leans on what it has seen."""

_SIZES: dict[str, tuple] = {
    "numeric": ("standardise", "squash"),
    "count": ("signed_log", "squash"),
    "id_dim": (0, 2, 4, 8),
    "width": (8, 16, 24, 32),
    "cross": (True, False),
    "bottom": (24, 48, 96),
    "tower": (8, 16, 32),
    "dropout": (0.0, 0.1, 0.2, 0.3),
}
_FITS: dict[str, tuple] = {
    "epochs": (2, 3, 4, 6),
    "learning_rate": (5e-4, 1e-3, 2e-3, 4e-3),
    "weight_decay": (1e-3, 1e-2, 1e-1, 0.5),
    "negative_rate": (0.1, 0.25, 0.5, 1.0),
}


class TuningError(RuntimeError):
    """A search that cannot run or found nothing; the message says why."""


@dataclass(frozen=True)
class Tuned:
    """What a search found."""

    best: AdsTraining
    loss: float
    """Of the best on the validation days, see `validation_loss`."""
    first: float
    """Of the settings the search began with; NaN where that is no number."""
    trials: tuple[dict[str, object], ...]
    """number, state, loss and settings of every trial, in order; pruned ones among them."""


def tune(
    train: AdExamples,
    validation: AdExamples,
    *,
    storage: Path,
    study: str,
    base: AdsTraining | None = None,
    trials: int | None = None,
    budget_s: float | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Search until `trials` are done in all, those of an earlier run included, or `budget_s` have passed.

    `study` names what is searched: trials of another data set or code do not count. Raises TuningError without
    a budget, without Optuna, or where no trial ended, and NothingToLearn where nothing was clicked.
    """
    if trials is None and budget_s is None:
        raise TuningError("a search needs a budget: a number of trials, or of minutes")
    optuna = _optuna()
    base = base or AdsTraining()
    layout = layout_of(train, base)
    storage.parent.mkdir(parents=True, exist_ok=True)
    search = _search(optuna, storage, study, base.seed)
    done = len(_ended(optuna, search))

    def objective(trial: Any) -> float:
        chosen = _chosen(trial, base)

        def judged(model: AdsModel) -> float:
            loss = validation_loss(model, validation, chosen.negative_rate)
            if not np.isfinite(loss):
                raise Diverged(f"validation loss {loss}")
            return loss

        def watch(epoch: int, model: AdsModel) -> None:
            trial.report(judged(model), epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            return judged(train_model(train, validation, chosen, name=study, layout=layout, watch=watch))
        except Diverged as reason:
            raise optuna.TrialPruned(str(reason)) from reason

    def told(search: Any, trial: Any) -> None:
        if progress is not None:
            loss = "pruned" if trial.value is None else f"loss {trial.value:.5f}"
            progress(f"tune ads_multi_tower: trial {trial.number + 1}, {loss}")

    left = None if trials is None else max(0, trials - done)
    if left != 0:
        _enqueue(optuna, search, _settings(base))
        search.optimize(objective, n_trials=left, timeout=budget_s, callbacks=[told])
    return _tuned(optuna, search, base)


def validation_loss(model: AdsModel, validation: AdExamples, negative_rate: float) -> float:
    """Mean over heads of the log loss, over that of always saying the head's rate (normalised entropy).

    Of probabilities corrected for thinning and not yet calibrated: curves are fitted on these days too. A head
    with one outcome on these days is left out.
    """
    p = restore_rate(model.raw(validation.rows, validation.sources), negative_rate)
    labels = validation.of(model.heads)
    out = []
    for column in range(len(model.heads)):
        rate = labels[:, column].mean()
        if 0 < rate < 1:
            entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
            out.append(metrics.log_loss(labels[:, column], p[:, column]) / entropy)
    if not out:
        raise TuningError(f"{len(validation)} validation rows hold one outcome of every head; bring more days")
    return float(np.mean(out))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise TuningError("tuning needs Optuna: pip install 'corkboard[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return optuna


def _search(optuna: Any, storage: Path, study: str, seed: int) -> Any:
    """The study of this name in the file, made where there is none."""
    url = f"sqlite:///{storage}"
    pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=0)
    search = optuna.create_study(
        storage=url, study_name=study, direction="minimize", load_if_exists=True, pruner=pruner
    )
    # a resumed search must not draw again what the first run drew
    search.sampler = optuna.samplers.TPESampler(
        seed=seed + len(search.trials),
        n_startup_trials=STARTUP,
        multivariate=True,
    )
    return search


def _enqueue(optuna: Any, search: Any, settings: dict[str, object]) -> None:
    """Have these settings tried next, unless a trial has their loss or they wait already.

    A trial that was killed counts for neither.
    """
    state = optuna.trial.TrialState
    tried = [t.params for t in search.get_trials(deepcopy=False, states=(state.COMPLETE,))]
    waiting = search.get_trials(deepcopy=False, states=(state.WAITING,))
    tried += [t.system_attrs.get("fixed_params") for t in waiting]
    if settings not in tried:
        search.enqueue_trial(settings)


def _ended(optuna: Any, search: Any) -> list:
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    return search.get_trials(deepcopy=False, states=states)


def _chosen(trial: Any, base: AdsTraining) -> AdsTraining:
    """The settings of a trial: what is searched is drawn, everything else is the base's."""
    own = _settings(base)

    def drawn(space: dict[str, tuple]) -> dict[str, object]:
        return {
            name: trial.suggest_categorical(name, _with(values, own[name])) for name, values in space.items()
        }

    sizes, fits = drawn(_SIZES), drawn(_FITS)
    model = AdsModelConfig.model_validate(base.model.model_dump() | sizes)
    return AdsTraining.model_validate(base.model_dump() | fits | {"model": model})


def _settings(base: AdsTraining) -> dict[str, object]:
    return {n: getattr(base.model, n) for n in _SIZES} | {n: getattr(base, n) for n in _FITS}


def _with(values: tuple, own: object) -> tuple:
    """The values, and the base's own where it is none of them."""
    return values if own in values else (*values, own)


def _tuned(optuna: Any, search: Any, base: AdsTraining) -> Tuned:
    complete = search.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if not complete:
        raise TuningError(
            "no trial ended with a loss within the budget; give it more minutes, or a lower learning_rate"
        )
    first = next((t.value for t in complete if t.params == _settings(base)), np.nan)
    best = search.best_trial
    chosen = _chosen(optuna.trial.FixedTrial(best.params), base)
    rows = [
        {"number": t.number, "state": t.state.name.lower(), "loss": t.value, **t.params}
        for t in search.get_trials(deepcopy=False)
    ]
    return Tuned(chosen, float(best.value), float(first), tuple(rows))
