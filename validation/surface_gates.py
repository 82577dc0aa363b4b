"""The floors of two surfaces with models of their own: search by meaning, and ads."""

from __future__ import annotations

import math
from collections.abc import Iterator

from scipy.special import ndtri

from validation.gate_bounds import GateBounds
from validation.gate_results import Comparison, GateResult, at_least, at_most, undecided
from validation.manifest import ADS, ReleaseManifest

SEARCHSAGE = "searchsage"
"""Role of the encoder that search finds meaning with."""

CLICKS = f"{ADS}/auc/click/all"
"""What ads are priced by."""


def search_floors(
    release: ReleaseManifest, comparison: Comparison | None, bounds: GateBounds
) -> Iterator[GateResult]:
    """The query encoder finds what people engaged with after later searches far more often than chance, and
    orders judged pins well, where the data has judgements."""
    if SEARCHSAGE not in release.parts:
        return
    metrics, name = release.metrics, f"{SEARCHSAGE}/recall_at_10"
    chance = metrics.get(f"{SEARCHSAGE}/chance_at_10", math.nan)
    floor = min(bounds.min_recall_over_chance * chance, (1 + chance) / 2)
    found = at_least(name, metrics, floor, "queries", bounds.min_sample)
    yield _within(found, metrics.get(f"{SEARCHSAGE}/recall_error_at_10", 0.0), bounds)
    if f"{SEARCHSAGE}/judged_queries" in metrics:
        judged, least = f"{SEARCHSAGE}/judged_ndcg_at_10", bounds.min_judged_ndcg
        yield at_least(judged, metrics, least, "judged_queries", bounds.min_sample)


def ads_floors(
    release: ReleaseManifest, comparison: Comparison | None, bounds: GateBounds
) -> Iterator[GateResult]:
    """Each head orders ads better than chance, of all and of each source, and its probabilities are right on
    the days after those that its curve was fitted on."""
    if ADS not in release.parts:
        return
    metrics, auc, error = release.metrics, f"{ADS}/auc/", f"{ADS}/error_after/"
    for name in sorted({CLICKS, *(name for name in metrics if name.startswith(auc))}):
        positives = f"positives/{name.removeprefix(auc)}"
        floor = bounds.min_ads_auc if name == CLICKS else bounds.min_slice_ads_auc
        result = at_least(name, metrics, floor, positives, bounds.min_sample)
        # of n positives among many more negatives that are ordered by chance
        yield _within(result, math.sqrt(1 / (12 * max(result.n or 0, 1))), bounds)
    for name in sorted(name for name in metrics if name.startswith(error)):
        positives = f"positives/{name.removeprefix(error)}"
        yield at_most(name, metrics, bounds.max_total_calibration_error, positives, bounds.min_head_positives)


def _within(result: GateResult, error: float, bounds: GateBounds) -> GateResult:
    """The result; undecided where it misses its bound by no more than chance does, of that standard error."""
    if result.passed or result.value is None or result.bound is None:
        return result
    within = float(ndtri(1 - bounds.surprise)) * error
    if result.bound - result.value > within:
        return result
    return undecided(result, f"{within:.4f} less comes by chance")
