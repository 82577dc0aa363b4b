"""`corkboard tune ads_multi_tower`: search settings on the home's rows, keep the best for the next `train`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from training.ads import tuning
from training.ads.examples import read_examples
from training.ads.trainer import AdsTraining
from training.ads.tuning import Tuned, tune
from training.commit import git_commit
from training.context import TrainingContext
from training.data.training_set import TrainingSet
from training.digests import digest_files, digest_of
from training.pipelines import content as content_pipeline
from training.pipelines.ads import CODE, SET, TUNED, split_of
from training.pipelines.content import content_part, load_catalogue
from training.registry import COMMIT_TAG, Registry
from validation.lake import Lake

STORAGE = Path("tuning") / "ads.db"
"""In the home: every trial of every search."""


def tune_ads(ctx: TrainingContext, *, trials: int | None = None, minutes: float | None = None) -> Tuned:
    """Search on the training and validation days of the last `train`; the best is written to TUNED.

    The test days are not read. Logged as one MLflow run with all its trials. Raises TuningError,
    TrainingSetError before the first `train`, and NothingToLearn where nothing was clicked.
    """
    home, registry = Path(ctx.feast_home), Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    rows = TrainingSet(ctx.training_sets / SET)
    # always from the defaults: a search that goes on must begin where it began
    info, base = rows.info, AdsTraining(seed=ctx.seed)
    version = registry.trained(content_pipeline.MODEL)
    content = None if version is None else content_part(registry, version)
    if content is None or content.space != info.space:
        raise tuning.TuningError(f"{rows.path} compares vectors of {info.space}; run `corkboard train` first")
    pins, split = load_catalogue(ctx, content), split_of(info)
    train, validation = (read_examples(rows, Lake(ctx.lake), pins, i) for i in (split.train, split.validation))
    study = digest_of("ads", info.fingerprint, digest_files((*CODE, Path(tuning.__file__))), ctx.seed)
    found = tune(
        train,
        validation,
        storage=home / STORAGE,
        study=study,
        base=base,
        trials=trials,
        budget_s=None if minutes is None else 60 * minutes,
        progress=ctx.progress,
    )
    staged = (home / TUNED).with_suffix(".tmp")
    staged.write_text(found.best.model_dump_json(indent=2))
    staged.replace(home / TUNED)
    _log(registry, found, study)
    ctx.progress(
        f"tune ads_multi_tower: {len(found.trials)} trials, loss {found.first:.5f} -> {found.loss:.5f}; the"
        f" next `train` uses {home / TUNED}"
    )
    return found


def _log(registry: Registry, found: Tuned, study: str) -> None:
    client = registry.client
    tags = {COMMIT_TAG: git_commit(), "study": study}
    run = client.create_run(registry.experiment(), run_name="tune_ads", tags=tags)
    for name, value in found.best.model_dump(mode="json", exclude={"model", "calibration"}).items():
        client.log_param(run.info.run_id, name, value)
    for name, value in found.best.model.model_dump(mode="json").items():
        client.log_param(run.info.run_id, f"model.{name}", value)
    for trial in found.trials:
        if trial["loss"] is not None:
            client.log_metric(
                run.info.run_id, "loss", float(str(trial["loss"])), step=int(str(trial["number"]))
            )
    client.log_metric(run.info.run_id, "best_loss", found.loss)
    client.log_text(run.info.run_id, pd.DataFrame(found.trials).to_csv(index=False), "trials.csv")
    client.set_terminated(run.info.run_id)
