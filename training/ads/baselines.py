"""What towers are measured beside, each fitted and calibrated on the same rows of the same run.

mixed       one network on all sources' rows, without towers; the source is among its features
separate    a network for each source, on that source's rows alone
logistic    one logistic regression a head over the dense features and a column a source
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from training.ads.examples import AdExamples
from training.ads.trainer import AdsTraining, Layout, NothingToLearn, layout_of, thinned, train_model
from training.models.calibration import fit
from training.models.calibration.sampling import restore_rate
from training.models.pinnability import FeatureSpec
from training.pipelines.fitting import LogisticConfig, Rows, fit_logistic
from training.pipelines.fitting import NothingToLearn as OneOutcome

Floats = NDArray[np.float32]

TOWERS, MIXED, SEPARATE, LOGISTIC = "towers", "mixed", "separate", "logistic"
ARMS = (TOWERS, MIXED, SEPARATE, LOGISTIC)


class Scores:
    """One arm's probabilities (n, H) of the test rows: `before` Platt, corrected for thinning, and `after`."""

    def __init__(self, before: Floats, after: Floats) -> None:
        self.before, self.after = before, after


def run_arm(
    arm: str, train: AdExamples, validation: AdExamples, test: AdExamples, training: AdsTraining, layout: Layout
) -> Scores:
    """Fit one arm and score `test` in the heads of `layout`. Raises NothingToLearn, ValueError for no arm."""
    arms: Mapping[str, Callable[..., Scores]] = {
        TOWERS: _network,
        MIXED: _network,
        SEPARATE: _separate,
        LOGISTIC: _logistic,
    }
    if arm not in arms:
        raise ValueError(f"unknown arm {arm!r}; they are {', '.join(ARMS)}")
    if arm == MIXED:
        training = training.model_copy(update={"towers": False})
    return arms[arm](train, validation, test, training, layout)


def _network(
    train: AdExamples, validation: AdExamples, test: AdExamples, training: AdsTraining, layout: Layout
) -> Scores:
    model = train_model(train, validation, training, name="measured", layout=layout)
    raw = model.raw(test.rows, test.sources)
    return Scores(restore_rate(raw, training.negative_rate), model.calibrated(raw, test.sources))


def _separate(
    train: AdExamples, validation: AdExamples, test: AdExamples, training: AdsTraining, layout: Layout
) -> Scores:
    """What no source's own model foretells (too few clicks, no such action) is answered by the mixed one."""
    alone = training.model_copy(update={"towers": False})
    found = Scores(*(np.full((len(test), len(layout.heads)), np.nan, np.float32) for _ in range(2)))
    for source in layout.sources:
        parts = [rows.take(rows.sources == source) for rows in (train, validation, test)]
        if not all(map(len, parts)):
            continue
        try:
            own = layout_of(parts[0], training)
        except NothingToLearn:
            continue
        made = _network(*parts, alone, Layout(own.heads, (), own.left_out, {}))
        cells = np.ix_(np.flatnonzero(test.sources == source), [layout.heads.index(h) for h in own.heads])
        found.before[cells], found.after[cells] = made.before, made.after
    left = np.isnan(found.after)
    if left.any():
        rest = _network(train, validation, test, alone, layout)
        found.before[left], found.after[left] = rest.before[left], rest.after[left]
    return found


def _logistic(
    train: AdExamples, validation: AdExamples, test: AdExamples, training: AdsTraining, layout: Layout
) -> Scores:
    kept = train.take(thinned(train, layout.heads, training.negative_rate, training.seed))
    names = np.unique(train.sources)
    raw = {
        part: np.empty((len(rows), len(layout.heads)), np.float32) for part, rows in _parts(validation, test)
    }
    for column, head in enumerate(layout.heads):
        label = kept.of([head])[:, 0]
        rows = Rows(_columns(kept, names), label, np.ones(len(kept), np.float32))
        try:
            ranker = fit_logistic(rows, FeatureSpec(), LogisticConfig())
        except OneOutcome as reason:
            raise NothingToLearn(str(reason)) from reason
        for part, asked in _parts(validation, test):
            raw[part][:, column] = ranker.score(_columns(asked, names))
    curve = fit(
        raw["validation"],
        validation.of(layout.heads),
        layout.heads,
        ranker=LOGISTIC,
        config=training.calibration,
        negative_rate=training.negative_rate,
    )
    return Scores(restore_rate(raw["test"], training.negative_rate), curve.calibrate(raw["test"]))


def _parts(validation: AdExamples, test: AdExamples) -> tuple[tuple[str, AdExamples], ...]:
    return (("validation", validation), ("test", test))


def _columns(rows: AdExamples, sources: NDArray[np.str_]) -> Floats:
    own = (rows.sources[:, None] == sources).astype(np.float32)
    return np.nan_to_num(np.hstack([rows.rows.dense, own])).astype(np.float32)
