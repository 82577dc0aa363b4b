"""What a release must show before the services may follow it.

Each gate is a plain function of the release's manifest, the comparison with the champion and the bounds; it
answers with the value it saw, the bound, the sample size and one sentence (`gate_results.py`). Nothing here
reads a store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from scipy.special import ndtri, pdtr

from validation.gate_bounds import GateBounds
from validation.gate_results import (
    Comparison,
    GateResult,
    Metrics,
    Paired,
    absent,
    at_least,
    at_most,
    result_of,
    undecided,
)
from validation.manifest import ReleaseManifest
from validation.surface_gates import ads_floors, search_floors

SLICES = ("new_users", "tail_topics")

SURFACES = "surfaces"
"""A slice of a ranker's rows is named `surfaces/<surface>`."""

RETRIEVERS = ("pinnersage", "pinnerformer", "dcm", "conditional", "two_tower", "pixie")
"""Roles of the parts that bring candidates by what a user did or follows, in funnel order."""

COMPUTED = (
    *("pinnerformer", "dcm", "conditional", "two_tower", "pixie"),
    *("light", "searchsage", "lexical", "ads"),
)
"""Roles beside the ranker's whose work is done in the request."""


Gate = Callable[[ReleaseManifest, Comparison | None, GateBounds], Iterator[GateResult]]


def retrieval_floors(
    release: ReleaseManifest, comparison: Comparison | None, bounds: GateBounds
) -> Iterator[GateResult]:
    """Each retriever finds what users did next far more often than chance, for everyone and on each slice."""
    for role in RETRIEVERS:
        if role in release.parts:
            yield from recall_floors(role, release.metrics, bounds)
        else:
            yield absent(role, role, release)


def recall_floors(role: str, metrics: Metrics, bounds: GateBounds) -> Iterator[GateResult]:
    """One retriever's floors: `<role>/recall_at_100` and its slices against `chance/recall_at_100`."""
    chance = metrics.get("chance/recall_at_100", math.nan)
    # a small catalogue is half found by chance: there the bound is half way from chance to everything
    floor = min(bounds.min_recall_over_chance * chance, (1 + chance) / 2)
    yield _recall_floor(metrics, role, "", floor, bounds)
    for part in SLICES:
        bound = bounds.min_slice_recall_over_chance * chance
        result = _recall_floor(metrics, role, f"/{part}", bound, bounds)
        nobody = f"{role}/users/{part}" not in metrics
        yield undecided(result, "no user is known to be in the slice") if nobody else result


def _recall_floor(metrics: Metrics, role: str, part: str, bound: float, bounds: GateBounds) -> GateResult:
    """Recall of one slice; undecided where a source as good as the bound could well have found as few.

    By the spread over users, whose pins are found or missed together, or by the number of finds, where so few
    are expected that there is no spread to go by.
    """
    name = f"{role}/recall_at_100{part}"
    result = at_least(name, metrics, bound, f"users{part}", bounds.min_sample)
    pins = metrics.get(f"{role}/pins{part}")
    finds = metrics.get(f"{role}/finds_at_100{part}")
    if result.passed or result.value is None or pins is None or finds is None:
        return result
    within = float(ndtri(1 - bounds.surprise)) * metrics.get(f"{role}/recall_error_at_100{part}", 0.0)
    if bound - result.value <= within:
        return undecided(result, f"users differ so much that {within:.4f} less comes by chance")
    if pdtr(finds, bound * pins) >= bounds.surprise:  # of a Poisson number of finds
        why = f"the bound expects {bound * pins:.1f} finds of so few pins, as few come by chance"
        return undecided(result, why)
    return result


def ranker_floor(
    release: ReleaseManifest, comparison: Comparison | None, bounds: GateBounds
) -> Iterator[GateResult]:
    """The ranker orders better than chance on every slice, knows more than the base rate, is calibrated."""
    if "ranker" not in release.parts:
        yield absent("ranker", "ranker", release)
        return
    yield at_least("ranker/auc", release.metrics, bounds.min_ranker_auc, "rows", bounds.min_sample)
    for name in sorted(release.metrics):
        _, is_slice, part = name.partition("ranker/auc/")
        if is_slice and (part in SLICES or part.startswith(f"{SURFACES}/")):
            bound, positives = bounds.min_slice_ranker_auc, f"positives/{part}"
            yield at_least(name, release.metrics, bound, positives, bounds.min_sample)
    for name, bound in (
        ("ranker/normalized_entropy", bounds.max_normalized_entropy),
        ("ranker/ece", bounds.max_calibration_error),
    ):
        yield at_most(name, release.metrics, bound, "rows", bounds.min_sample)


def head_calibration(
    release: ReleaseManifest, comparison: Comparison | None, bounds: GateBounds
) -> Iterator[GateResult]:
    """Each head's calibrated probabilities are right on the days after those that its curve was fitted on."""
    for name in sorted(release.metrics):
        if not (name.startswith("ranker/heads/") and name.endswith("/positives")):
            continue
        head, positives = name.removesuffix("/positives"), int(release.metrics[name])
        total = release.metrics.get(f"{head}/calibration_error")
        for metric, value, bound in (
            ("ece", release.metrics.get(f"{head}/ece"), bounds.max_head_calibration_error),
            (
                "calibration_error",
                None if total is None else abs(total),
                bounds.max_total_calibration_error,
            ),
        ):
            result = result_of(f"{head}/{metric}", value, bound, positives, above=False)
            if positives >= bounds.min_head_positives:
                yield result
            else:
                why = f"{positives} positives are too few to decide, it takes {bounds.min_head_positives}"
                yield undecided(result, why)


def feature_drift(
    release: ReleaseManifest, comparison: Comparison | None, bounds: GateBounds
) -> Iterator[GateResult]:
    """No feature has moved so far from what the ranker learned from that it must be broken."""
    if "ranker" not in release.parts:
        return
    name, prefix, metrics = "ranker/max_drift", "ranker/drift/", release.metrics
    n = int(metrics.get("ranker/drift_rows", 0))
    result = result_of(name, metrics.get(name), bounds.max_drift, n, above=False)
    if result.value is None:
        yield undecided(result, "the ranker keeps no baseline of its features, train it anew")
        return
    moved = {m: v for m, v in metrics.items() if m.startswith(prefix) and v > bounds.max_drift}
    if moved:
        said = ", ".join(
            f"{m.removeprefix(prefix)} {moved[m]:.2f}" for m in sorted(moved, key=lambda m: -moved[m])
        )
        why = f"PSI against the training rows: {said}; look at what feeds them, or train on newer days"
        result = result.model_copy(update={"message": f"{result.message}; {why}"})
    if n < bounds.min_drift_rows:
        result = undecided(result, f"{n} are too few to decide, it takes {bounds.min_drift_rows}")
    yield result


def light_floor(
    release: ReleaseManifest, comparison: Comparison | None, bounds: GateBounds
) -> Iterator[GateResult]:
    """Whoever orders candidates before heavy ranking keeps no less of what users act on than the merge does."""
    kept, merged = f"{release.light_by}/kept", release.metrics.get("merge/kept")
    if merged is None or release.light_by == "merge":
        return
    n = int(release.metrics.get("light/users", 0))
    result = result_of(kept, release.metrics.get(kept), merged, n, above=True)
    if not result.passed and result.value is not None and n < bounds.min_sample:
        result = undecided(result, f"{n} are too few to decide, it takes {bounds.min_sample}")
    yield result


def index_health(
    release: ReleaseManifest, comparison: Comparison | None, bounds: GateBounds
) -> Iterator[GateResult]:
    """Each collection, as measured after it was re-opened, finds and fills, and holds the catalogue."""
    spaces = {c.space for c in release.collections}
    for space in release.spaces():
        if space not in spaces:
            yield GateResult(
                name=f"index/{space}",
                value=None,
                bound=None,
                n=None,
                passed=False,
                message=f"index/{space}: the release searches {space} and names no checked collection of it",
            )
    for check in release.collections:
        for name, value, bound in (
            ("recall_at_100", check.recall_at_100, bounds.min_index_recall),
            ("filtered_fill", check.filtered_fill, bounds.min_filtered_fill),
            ("filtered_recall_at_100", check.filtered_recall_at_100, bounds.min_filtered_recall),
            ("coverage", release.metrics.get(f"index/coverage/{check.space}"), bounds.min_coverage),
        ):
            yield result_of(f"index/{name}/{check.space}", value, bound, check.rows, above=True)


def size(release: ReleaseManifest, comparison: Comparison | None, bounds: GateBounds) -> Iterator[GateResult]:
    """Collections and models fit where they are to be served."""
    for check in release.collections:
        held = float(check.rows) * check.dim * 4
        yield result_of(
            f"size/{check.collection}",
            held,
            bounds.max_collection_bytes,
            check.rows,
            above=False,
            unit=" bytes",
        )
    for role in release.parts:
        value = release.metrics.get(f"size/{role}")
        yield result_of(f"size/{role}", value, bounds.max_model_bytes, None, above=False, unit=" bytes")


def latency(
    release: ReleaseManifest, comparison: Comparison | None, bounds: GateBounds
) -> Iterator[GateResult]:
    """No part costs so much CPU a request that the services cannot hold their deadlines."""
    runs = int(release.metrics.get("latency/runs", 0))
    for role in ("ranker", *COMPUTED):
        if role in release.parts:
            name = f"latency/{role}_cpu_ms"
            bound = bounds.max_ranker_cpu_ms if role == "ranker" else bounds.max_network_cpu_ms
            yield result_of(name, release.metrics.get(name), bound, runs, above=False, unit=" ms")


def data_checks(
    release: ReleaseManifest, comparison: Comparison | None, bounds: GateBounds
) -> Iterator[GateResult]:
    """No critical expectation fails on the data that the release was made of."""
    checks, name = release.data_checks, "data/failed_expectations"
    if checks is None:
        yield result_of(name, None, 0.0, None, above=False)
        return
    result = result_of(name, float(len(checks.failed)), 0.0, sum(checks.rows.values()), above=False)
    said = "; ".join((*checks.failed, *(f"warning: {warning}" for warning in checks.warnings)))
    yield result.model_copy(update={"message": f"{result.message}; {said}"}) if said else result


def non_inferiority(
    release: ReleaseManifest, comparison: Comparison | None, bounds: GateBounds
) -> Iterator[GateResult]:
    """No worse than the champion by more than the margin, on the same users and rows, slices included.

    Decided when the interval of the paired difference lies on one side of the margin; where the sample
    cannot tell, the point estimate rules and the result says so.
    """
    if comparison is not None:
        yield from non_inferiority_of(comparison, bounds)


def non_inferiority_of(comparison: Comparison, bounds: GateBounds | None = None) -> tuple[GateResult, ...]:
    """`non_inferiority` of a comparison alone."""
    held = bounds or GateBounds()
    missing = [
        GateResult(
            name=f"champion/{name}",
            value=None,
            bound=None,
            n=None,
            passed=False,
            message=f"champion/{name}: not compared with champion {comparison.champion}: {why}",
        )
        for name, why in comparison.missing.items()
    ]
    unlike = [
        undecided(result_of(f"champion/{name}", None, math.nan, None, above=True), why)
        for name, why in comparison.unlike.items()
    ]
    return (*missing, *unlike, *(_compared(pair, comparison.champion, held) for pair in comparison.metrics))


GATES: tuple[Gate, ...] = (
    retrieval_floors,
    ranker_floor,
    head_calibration,
    feature_drift,
    light_floor,
    search_floors,
    ads_floors,
    index_health,
    size,
    latency,
    data_checks,
    non_inferiority,
)
"""Every gate, in the order of the report."""


def run_gates(
    release: ReleaseManifest, comparison: Comparison | None, bounds: GateBounds | None = None
) -> tuple[GateResult, ...]:
    """Every gate's results; `comparison` is None where there is no champion to compare with."""
    held = bounds or GateBounds()
    return tuple(result for gate in GATES for result in gate(release, comparison, held))


def _compared(pair: Paired, champion: int, bounds: GateBounds) -> GateResult:
    name = f"champion/{pair.metric}"
    is_slice = pair.metric.endswith(SLICES) or f"/{SURFACES}/" in pair.metric
    allowed = (bounds.slice_margin if is_slice else bounds.margin) * abs(pair.champion)
    better = 1 if pair.larger_is_better else -1
    gain, worst = better * (pair.candidate - pair.champion), min(better * pair.low, better * pair.high)
    bound = pair.champion - better * allowed
    enough = pair.n >= bounds.min_sample
    passed = gain >= -allowed or not enough
    decided = enough and (worst >= -allowed or not passed)
    says = "worse than" if gain < -allowed else "not worse than"
    sentence = (
        f"{name}: {pair.candidate:.4g} is {says} champion {champion}'s {pair.champion:.4g} by the margin "
        f"{allowed:.2g} (bound {bound:.4g}; difference {pair.candidate - pair.champion:+.2g} in "
        f"[{pair.low:+.2g}, {pair.high:+.2g}], n = {pair.n})"
    )
    return GateResult(
        name=name,
        value=pair.candidate,
        bound=bound,
        n=pair.n,
        passed=passed,
        decided=decided,
        beside=pair.champion,
        interval=(pair.low, pair.high),
        message=sentence if decided else f"{sentence}; the sample is too small to be sure",
    )
