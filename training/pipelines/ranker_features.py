"""Every ranker's features: which are read, that none knows a label, how they were spread in training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.data.training_set import Block
from training.data.training_set_facts import TrainingSetInfo
from training.evaluation.ranker_metrics import labels_of
from training.models.pinnability import FeatureSpec
from training.models.query_features import QUERY_FEATURES
from training.models.ranker import ENGAGE
from training.pipelines.fitting import NothingToLearn
from validation.drift import DriftBaseline, baseline_of, drift
from validation.leakage import check_leaks

EVERY = FeatureSpec(query=QUERY_FEATURES)
"""All the features there are, positions among them. To leave some out, copy it with what changes: a spec of
its own reads nothing of the query unless it names that."""

FILE = "feature_baseline.json"
"""Of a ranker version: how its features were spread in training."""

SAMPLE_ROWS = 100_000
"""Training rows that are looked at; of more, so many evenly spaced ones."""

CLOCKS = ("hour_sin", "hour_cos", "weekend", "user_active_days_30d")
"""Features that move by nature: with the calendar, or day by day while data is young."""

WARNING = 0.25
"""PSI from which on a feature is named in a release's metrics."""


def spec_of(chosen: FeatureSpec, info: TrainingSetInfo) -> FeatureSpec:
    """What a ranker of `info`'s rows reads: `chosen` without positions or query where no row has them,
    comparing vectors of the rows' space.

    Raises ValueError where nothing is left.
    """
    told = {
        "space": info.space,
        "position": chosen.position and info.has_position,
        "query": tuple(name for name in chosen.query if name in info.query_features),
    }
    return FeatureSpec.model_validate(chosen.model_dump() | told)


def vetted(block: Block, actions: Sequence[str], spec: FeatureSpec) -> DriftBaseline:
    """How the assembled features of training rows are spread, once none of them knows a label.

    Raises LabelLeak naming each feature that equals or nearly determines any positive action or one of
    `actions`, and NothingToLearn where there are no rows.
    """
    if len(block) == 0:
        raise NothingToLearn("no rows to train a ranker on")
    rows = np.linspace(0, len(block) - 1, min(len(block), SAMPLE_ROWS)).astype(np.int64)
    sample, heads = block.take(rows), (ENGAGE, *actions)
    features = spec.assemble(
        sample.user_scalars, sample.pin_scalars, sample.interactions, sample.position, sample.query
    )
    check_leaks(spec.names, features, heads, labels_of(heads, actions, sample))
    return baseline_of(spec.names, features)


def kept_baseline(files: Path) -> DriftBaseline | None:
    """The baseline beside a ranker's files; None for a version that was made without."""
    file = files / FILE
    return DriftBaseline.model_validate_json(file.read_text()) if file.exists() else None


def keep_baseline(baseline: DriftBaseline | None, files: Path) -> None:
    """Write it beside a ranker's files, where there is one."""
    if baseline is not None:
        (files / FILE).write_text(baseline.model_dump_json())


def drift_metrics(baseline: DriftBaseline, spec: FeatureSpec, block: Block) -> dict[str, float]:
    """How far the features of `block` have moved from `baseline`, as a release keeps it.

    `ranker/max_drift` is the largest PSI of any feature but CLOCKS, `ranker/drift_rows` the rows it is of, and
    `ranker/drift/<feature>` the PSI of each that has moved beyond WARNING. Nothing for no rows; raises
    DriftMismatch where the ranker does not read what the baseline is of.
    """
    if len(block) == 0:
        return {}
    features = spec.assemble(
        block.user_scalars, block.pin_scalars, block.interactions, block.position, block.query
    )
    found = [d for d in drift(baseline, spec.names, features) if d.name not in CLOCKS]
    return {
        "ranker/max_drift": max((d.psi for d in found), default=0.0),
        "ranker/drift_rows": float(len(block)),
        **{f"ranker/drift/{d.name}": d.psi for d in found if d.moved(WARNING)},
    }
