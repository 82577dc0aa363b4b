"""Train the ads model: point-in-time rows of the `related_ads` surface, towers, curves, and what they beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.schema import PINNABILITY_SERVICE
from training.ads import baselines, evaluation, examples, trainer
from training.ads.baselines import LOGISTIC, MIXED, SEPARATE, TOWERS, Scores, run_arm
from training.ads.evaluation import Measured, flat, measure, table
from training.ads.examples import AdExamples, read_examples
from training.ads.trainer import AdsTraining, layout_of, train_model
from training.context import TrainingContext
from training.data.splits import DAY, TimeSplit, time_split
from training.data.training_set import TrainingSet, TrainingSetConfig
from training.data.training_set_facts import TrainingSetInfo
from training.digests import digest_files, digest_of
from training.model_log import FLAVOURS, Dataset, ModelLog, columns_signature, pinned
from training.models.ads.config import DENSE
from training.models.ads.model import AdsModel
from training.models.calibration.sampling import restore_rate
from training.models.interactions import Pins
from training.pipelines.pinnability import build_training_set
from training.pipelines.registering import flat_params, register, unchanged
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import Part

if TYPE_CHECKING:
    from feast import FeatureStore

MODEL = "ads_multi_tower"
SET = "ads"
"""Folder of the training set below the home's training sets."""

TUNED = "ads_model.json"
"""File in the home: the training that `corkboard tune ads_multi_tower` chose."""

LEAST_AUC = 0.55

DAYS = 4
"""Days that test, and days before them that curves are fitted on, where the set has them."""

_MODELS = Path(baselines.__file__).parents[1] / "models"
CODE = (
    *sorted((_MODELS / "ads").glob("*.py")),
    *sorted((_MODELS / "calibration").glob("*.py")),
    *(Path(m.__file__ or "") for m in (baselines, evaluation, examples, trainer)),
    Path(__file__),
)


def build_ads_set(ctx: TrainingContext, store: FeatureStore, content: Part, pins: Pins) -> TrainingSet:
    """The point-in-time rows of ads, in the content space; see `pinnability.build_training_set`.

    Raises NoTrainingRows where no ad was shown in the window.
    """
    config = TrainingSetConfig(seed=ctx.seed, ads=True)
    return build_training_set(ctx, store, content, pins, config=config, folder=SET)


def split_of(info: TrainingSetInfo) -> TimeSplit:
    """The last days test, those before them validate, the rest train: up to DAYS each, a sixth of the set."""
    days = max(1, min(DAYS, (info.end - info.start).days // 6))
    return time_split(info.start, info.end, validation=days * DAY, test=days * DAY)


def training_of(ctx: TrainingContext) -> AdsTraining:
    """What `corkboard tune ads_multi_tower` left in the home, or the defaults; with the run's seed."""
    file = Path(ctx.feast_home) / TUNED
    chosen = AdsTraining.model_validate_json(file.read_text()) if file.exists() else AdsTraining()
    return chosen.model_copy(update={"seed": ctx.seed})


def train_ads(
    ctx: TrainingContext,
    rows: TrainingSet,
    content: Part,
    pins: Pins,
    training: AdsTraining | None = None,
    *,
    force: bool = False,
) -> Part:
    """Fit, measure beside its baselines and register the ads model, on a finished training set of ads.

    The version already made from the same rows, settings and code is returned as it is, unless `force`.
    Raises TooShort for a set of less than three days, NothingToLearn where nothing was clicked.
    """
    training, info, lake = training or training_of(ctx), rows.info, Lake(ctx.lake)
    inputs = digest_of(MODEL, info.fingerprint, content.space, training, digest_files(CODE))
    version = unchanged(ctx, MODEL, inputs, force=force)
    if version is not None:
        return _part(ctx, version, content)
    split = split_of(info)
    parts = [read_examples(rows, lake, pins, i) for i in (split.train, split.validation, split.test)]
    layout = layout_of(parts[0], training)
    ctx.progress(f"{MODEL}: fitting on {len(parts[0]):,} impressions of ads, {len(layout.sources)} towers")
    name = f"{MODEL}@{Registry(ctx.mlflow_uri, ctx.mlflow_artifacts).next_version(MODEL)}"
    model = train_model(*parts[:2], training, name=name, layout=layout, progress=ctx.progress)
    measured = {TOWERS: measure(parts[2], _scores(model, parts[2], training), layout.heads)}
    for arm in (MIXED, SEPARATE, LOGISTIC):
        scores = run_arm(arm, *parts, training, layout)
        measured[arm] = measure(parts[2], scores, layout.heads)
    log = ModelLog(
        name=MODEL,
        flavour=FLAVOURS / "ads.py",
        description="Probabilities of click, good click and hide of a sponsored pin beside a related one: a "
        "shared bottom, a tower an ad source, a Platt curve a head and source.",
        params={
            **flat_params(training),
            "sources": ", ".join(layout.sources),
            "heads": ", ".join(layout.heads),
            "space": content.space,
            "train": split.train,
            "validation": split.validation,
            "test": split.test,
            "rows": info.rows,
            "seed": training.seed,
        },
        metrics=flat(measured, TOWERS),
        interval=(split.train.start, split.validation.end),
        datasets=(Dataset("training_set", str(rows.path), info.fingerprint),),
        signature=columns_signature({f.name: "float" for f in DENSE}),
        requirements=pinned("numba", "numpy", "pandas", "pydantic", "safetensors", "torch"),
        inputs=inputs,
        tags={"feature_service": PINNABILITY_SERVICE, "space": content.space or ""},
        notes=card(measured, layout.fallbacks | layout.left_out, model, split) + lake.contract().notes,
    )
    version = register(ctx, log, model.save)
    return _part(ctx, version, content)


def shortfall(part: Part) -> str | None:
    """Why a version must not price ads; None where it may. A coin would do as well below LEAST_AUC."""
    auc = part.metrics.get(f"auc/{trainer.HEADS[0]}/{evaluation.ALL}")
    if auc is not None and auc >= LEAST_AUC:
        return None
    found = "nothing" if auc is None else f"{auc:.3f}"
    name = f"{part.model}@{part.version}"
    return f"{name} needs an AUC of clicks of {LEAST_AUC} to price ads; its test days give {found}"


def _scores(model: AdsModel, test: AdExamples, training: AdsTraining) -> Scores:
    raw = model.raw(test.rows, test.sources)
    return Scores(restore_rate(raw, training.negative_rate), model.calibrated(raw, test.sources))


def card(
    measured: Mapping[str, Sequence[Measured]], missing: Mapping[str, str], model: AdsModel, split: TimeSplit
) -> str:
    """What the model card says beside its metrics: the arms, each day's calibration, and what fell back."""
    lines = [f"Measured on {split.test}; every arm saw the same rows.", "", table(measured), ""]
    lines += ["| source | head | day | error before Platt | after |", "|---|---|---|---|---|"]
    for row in measured[TOWERS]:
        lines += [f"| {row.source} | {row.head} | {d} | {b:+.3f} | {a:+.3f} |" for d, b, a in row.days]
    lines += ["", "Sources never seen are answered by the shared tower."]
    lines += [
        f"{name}: {why}; the shared tower answers." for name, why in missing.items() if name in model.fallbacks
    ]
    lines += [f"Without a head: {why}." for name, why in missing.items() if name not in model.fallbacks]
    for source, calibrator in model.calibrators.items():
        lines += [f"No curve of its own, {source}: {why}." for why in calibrator.fallbacks.values()]
    return "\n".join([*lines, ""])


def _part(ctx: TrainingContext, version: int, content: Part) -> Part:
    return Part(
        model=MODEL,
        version=version,
        space=content.space,
        feature_service=PINNABILITY_SERVICE,
        metrics=Registry(ctx.mlflow_uri, ctx.mlflow_artifacts).metrics(MODEL, version),
    )
