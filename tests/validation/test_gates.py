"""Gates can fail, say by how much and on how many, and never pass what was not measured."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from validation.gate_bounds import GateBounds
from validation.gate_results import Comparison, GateFailed, GateResult, Paired
from validation.gates import COMPUTED, RETRIEVERS, SLICES, run_gates
from validation.manifest import CollectionCheck, DataChecks, Part, ReleaseManifest

SPACE = "content@3"
LEARNED = ("pinnerformer", "dcm", "conditional", "two_tower")
SEARCH = ("searchsage", "lexical")

METRICS = {
    "pinnersage/recall_at_100": 0.30,
    "pinnersage/recall_at_100/new_users": 0.12,
    "pinnersage/recall_at_100/tail_topics": 0.25,
    "pinnersage/users": 800.0,
    "pinnersage/users/new_users": 60.0,
    "pinnersage/users/tail_topics": 400.0,
    "chance/recall_at_100": 0.05,
    "pixie/recall_at_100": 0.40,
    "pixie/users": 800.0,
    **{f"{role}/recall_at_100": 0.35 for role in LEARNED},
    **{f"{role}/users": 800.0 for role in LEARNED},
    **{f"{role}/recall_at_100/{part}": 0.2 for role in ("pixie", *LEARNED) for part in SLICES},
    **{f"{role}/users/{part}": 60.0 for role in ("pixie", *LEARNED) for part in SLICES},
    "searchsage/recall_at_10": 0.11,
    "searchsage/chance_at_10": 0.01,
    "searchsage/queries": 500.0,
    "searchsage/judged_ndcg_at_10": 0.67,
    "searchsage/judged_queries": 300.0,
    "ads/auc/click/all": 0.7,
    "ads/auc/click/shopping": 0.65,
    "ads/auc/hide/all": 0.7,
    "ads/error_after/click/all": 0.1,
    "ads/positives/click/all": 5_000.0,
    "ads/positives/click/shopping": 900.0,
    "ads/positives/hide/all": 800.0,
    "ranker/auc": 0.71,
    "ranker/normalized_entropy": 0.9,
    "ranker/ece": 0.01,
    "ranker/rows": 20_000.0,
    "ranker/max_drift": 0.6,
    "ranker/drift_rows": 20_000.0,
    "ranker/drift/pin_impressions_30d": 0.6,
    "index/coverage/content@3": 1.0,
    "size/content": 4e6,
    "size/pinnersage": 200.0,
    "size/pixie": 2e6,
    **{f"size/{role}": 1e6 for role in (*LEARNED, *SEARCH, "light", "ads")},
    "size/ranker": 3e5,
    "latency/ranker_cpu_ms": 12.0,
    **{f"latency/{role}_cpu_ms": 3.0 for role in COMPUTED},
    "latency/runs": 9.0,
}


def release(metrics: dict[str, float | None] | None = None, **changes: object) -> ReleaseManifest:
    """A release that passes every gate, then changed. A metric of None is taken out."""
    merged = {name: value for name, value in {**METRICS, **(metrics or {})}.items() if value is not None}
    now = datetime(2026, 5, 1, tzinfo=UTC)
    fields: dict[str, object] = {
        "created_at": now,
        "git_commit": "abc",
        "dataset": "world",
        "data_start": datetime(2026, 4, 1, tzinfo=UTC),
        "data_end": now,
        "parts": {
            "content": Part(model="content", version=3, space=SPACE, collection="pins__content__3"),
            "pinnersage": Part(model="pinnersage", version=2, space=SPACE, collection="pins__content__3"),
            "pixie": Part(model="pixie", version=1),
            **{role: Part(model=role, version=1) for role in (*LEARNED, *SEARCH, "light", "ads")},
            "ranker": Part(model="pinnability_gbdt", version=5, space=SPACE),
        },
        "sources": ("pinnersage", "popular_by_topic"),
        "collections": (collection(),),
        "metrics": merged,
        "data_checks": DataChecks(expectations=70, rows={"pins": 1500, "actions": 9000}),
        "evaluation": "e1",
    }
    return ReleaseManifest.model_validate({**fields, **changes})


def collection(**changes: object) -> CollectionCheck:
    good = CollectionCheck(
        collection="pins__content__3",
        space=SPACE,
        dim=64,
        rows=12_000,
        recall_at_100=0.99,
        filtered_fill=1.0,
        filtered_recall_at_100=1.0,
    )
    return good.model_copy(update=changes)


def failed(results: tuple[GateResult, ...]) -> dict[str, GateResult]:
    return {r.name: r for r in results if not r.passed}


def test_a_good_release_passes_every_gate() -> None:
    results = run_gates(release(), None)
    assert not failed(results)
    assert all(r.decided for r in results)
    assert {r.name.split("/")[0] for r in results} == {
        *(*RETRIEVERS, "searchsage", "ads", "ranker", "index", "size", "latency", "data")
    }
    recall = next(r for r in results if r.name == "pinnersage/recall_at_100")
    assert (recall.value, recall.bound, recall.n) == (0.30, pytest.approx(0.075), 800)


@pytest.mark.parametrize(
    ("metric", "value", "bound", "n"),
    [
        ("pinnersage/recall_at_100", 0.074, 0.075, 800),
        ("pinnersage/recall_at_100/new_users", 0.049, 0.05, 60),
        ("pinnersage/recall_at_100/tail_topics", 0.0, 0.05, 400),
        *((f"{role}/recall_at_100", 0.074, 0.075, 800) for role in LEARNED),
        ("ranker/auc", 0.549, 0.55, 20_000),
        ("ranker/normalized_entropy", 1.01, 1.0, 20_000),
        ("ranker/ece", 0.051, 0.05, 20_000),
        ("index/coverage/content@3", 0.99, 0.999, 12_000),
        *((f"size/{role}", 2.1e9, 2e9, None) for role in ("ranker", *SEARCH)),
        ("latency/ranker_cpu_ms", 201.0, 200.0, 9),
        *((f"latency/{role}_cpu_ms", 101.0, 100.0, 9) for role in COMPUTED),
        ("searchsage/recall_at_10", 0.0149, 0.015, 500),
        ("searchsage/judged_ndcg_at_10", 0.29, 0.3, 300),
        ("ads/auc/click/all", 0.53, 0.55, 5_000),
        ("ads/auc/click/shopping", 0.47, 0.5, 900),
        ("ads/auc/hide/all", 0.47, 0.5, 800),
        ("ads/error_after/click/all", 0.26, 0.25, 5_000),
    ],
)
def test_each_bound_can_fail(metric: str, value: float, bound: float, n: int | None) -> None:
    bad = failed(run_gates(release({metric: value}), None))
    assert list(bad) == [metric]
    result = bad[metric]
    assert (result.value, result.n) == (value, n)
    assert result.bound == pytest.approx(bound)
    assert f"{value:.4g}" in result.message and f"{bound:.4g}" in result.message


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"recall_at_100": 0.89}, "index/recall_at_100/content@3"),
        ({"filtered_fill": 0.98}, "index/filtered_fill/content@3"),
        ({"filtered_recall_at_100": 0.5}, "index/filtered_recall_at_100/content@3"),
        ({"filtered_recall_at_100": None}, "index/filtered_recall_at_100/content@3"),
        ({"rows": 70_000_000}, "size/pins__content__3"),
    ],
)
def test_a_poor_collection_fails(change: dict[str, float | None], gate: str) -> None:
    assert list(failed(run_gates(release(collections=(collection(**change),)), None))) == [gate]


def test_a_space_without_a_checked_collection_fails() -> None:
    bad = failed(run_gates(release(collections=()), None))
    assert "content@3" in bad["index/content@3"].message


@pytest.mark.parametrize(
    "metric",
    [
        m
        for m in METRICS
        if m.partition("/")[2].partition("/")[0]
        not in (
            "users",
            "rows",
            "runs",
            "max_drift",
            "drift_rows",
            "drift",
            "queries",
            "judged_queries",
            "positives",
        )
        and m not in ("ads/auc/click/shopping", "ads/auc/hide/all", "ads/error_after/click/all")
    ],
)
def test_what_was_not_measured_does_not_pass(metric: str) -> None:
    bad = failed(run_gates(release({metric: None}), None))
    assert bad, f"{metric} is missing and nothing failed"
    assert all("not measured" in r.message for r in bad.values())


def test_a_slice_that_was_not_measured_is_named() -> None:
    gone = {"pixie/users/new_users": None, "pixie/recall_at_100/new_users": None}
    gate = next(r for r in run_gates(release(gone), None) if r.name == "pixie/recall_at_100/new_users")
    assert gate.passed and not gate.decided
    assert "was not measured" in gate.message and "no user is known to be in the slice" in gate.message


@pytest.mark.parametrize(
    ("metrics", "gate"),
    [
        ({"ads/auc/hide/all": 0.47, "ads/positives/hide/all": 40.0}, "ads/auc/hide/all"),
        ({"ads/auc/hide/all": 0.1, "ads/positives/hide/all": 29.0}, "ads/auc/hide/all"),
        ({"ads/error_after/click/all": 0.4, "ads/positives/click/all": 999.0}, "ads/error_after/click/all"),
        ({"searchsage/recall_at_10": 0.014, "searchsage/recall_error_at_10": 0.001}, "searchsage/recall_at_10"),
    ],
)
def test_search_and_ads_miss_a_floor_only_beyond_chance(metrics: dict[str, float], gate: str) -> None:
    result = next(r for r in run_gates(release(metrics), None) if r.name == gate)
    assert result.passed and not result.decided


def test_small_samples_decide_nothing_and_say_so() -> None:
    results = run_gates(release({"pinnersage/recall_at_100": 0.0, "pinnersage/users": 29.0}), None)
    recall = next(r for r in results if r.name == "pinnersage/recall_at_100")
    assert recall.passed and not recall.decided
    assert "29 are too few to decide, it takes 30" in recall.message


def test_a_part_left_out_needs_a_reason() -> None:
    parts = {role: part for role, part in release().parts.items() if role == "content"}
    bad = failed(run_gates(release(parts=parts), None))
    assert set(bad) == {*RETRIEVERS, "ranker"}
    why = {**dict.fromkeys(RETRIEVERS, "no actions"), "ranker": "no impressions"}
    told = release(parts=parts, skipped=why)
    results = run_gates(told, None)
    assert not failed(results)
    assert any("no impressions" in r.message for r in results)


def paired(candidate: float, champion: float, reach: float, n: int = 500, **changes: object) -> Comparison:
    pair = Paired(
        metric="pinnersage/recall_at_100",
        candidate=candidate,
        champion=champion,
        low=candidate - champion - reach,
        high=candidate - champion + reach,
        n=n,
    )
    return Comparison(champion=7, evaluation="e1", metrics=(pair.model_copy(update=changes),))


def compared(comparison: Comparison) -> GateResult:
    return next(r for r in run_gates(release(), comparison) if r.name.startswith("champion/"))


def test_no_worse_than_the_champion_by_the_margin() -> None:
    assert compared(paired(0.30, 0.30, 0.001)).passed
    assert compared(paired(0.271, 0.30, 0.0001)).passed, "within a tenth"
    worse = compared(paired(0.269, 0.30, 0.0001))
    assert not worse.passed and worse.decided
    assert worse.bound == pytest.approx(0.27) and worse.n == 500
    assert worse.beside == 0.30 and worse.interval == pytest.approx((-0.0311, -0.0309))
    assert "champion 7's 0.3" in worse.message


def test_an_unsure_comparison_goes_by_the_estimate_and_says_so() -> None:
    unsure = compared(paired(0.295, 0.30, 0.05))
    assert unsure.passed and not unsure.decided and "too small to be sure" in unsure.message
    few = compared(paired(0.0, 0.30, 0.0, n=5))
    assert few.passed and not few.decided


def test_losses_are_better_when_smaller() -> None:
    smaller = {"metric": "ranker/log_loss", "larger_is_better": False}
    assert compared(paired(0.40, 0.60, 0.001, **smaller)).passed
    worse = compared(paired(0.67, 0.60, 0.001, **smaller))
    assert not worse.passed and worse.bound == pytest.approx(0.66)
    unsure = compared(paired(0.655, 0.60, 0.01, **smaller))
    assert unsure.passed and not unsure.decided, "the upper end is the one that matters of a loss"


def test_slices_have_their_own_margin() -> None:
    tail = {"metric": "pinnersage/recall_at_100/tail_topics"}
    assert compared(paired(0.25, 0.30, 0.0001, **tail)).passed
    assert not compared(paired(0.23, 0.30, 0.0001, **tail)).passed
    surface = {"metric": "ranker/log_loss/surfaces/search", "larger_is_better": False}
    assert compared(paired(0.70, 0.60, 0.001, **surface)).passed, "a surface is a slice"
    assert not compared(paired(0.73, 0.60, 0.001, **surface)).passed


@pytest.mark.parametrize("part", ["new_users", "surfaces/search"])
def test_a_slice_that_is_ordered_worse_than_by_chance_stops_the_release(part: str) -> None:
    slices = {f"ranker/auc/{part}": 0.48, f"ranker/positives/{part}": 40.0}
    bad = failed(run_gates(release(slices), None))
    assert list(bad) == [f"ranker/auc/{part}"] and (
        bad[f"ranker/auc/{part}"].n,
        bad[f"ranker/auc/{part}"].bound,
    ) == (40, 0.5)
    few = run_gates(release(slices | {f"ranker/positives/{part}": 20.0}), None)
    assert not failed(few) and not next(r for r in few if r.name == f"ranker/auc/{part}").decided


def test_data_that_fails_an_expectation_stops_the_release() -> None:
    name = "data/failed_expectations"
    broken = DataChecks(
        expectations=70,
        rows={"pins": 5},
        failed=("pins.pin_id: values to be unique",),
        warnings=("pins.title: few",),
    )
    result = failed(run_gates(release(data_checks=broken), None))[name]
    assert (result.value, result.bound, result.n) == (1.0, 0.0, 5)
    assert "pins.pin_id: values to be unique; warning: pins.title: few" in result.message
    assert name in failed(run_gates(release(data_checks=None), None)), "what was not checked does not pass"
    warned = broken.model_copy(update={"failed": ()})
    assert not failed(run_gates(release(data_checks=warned), None))


def test_what_was_asked_of_another_evaluation_is_named_and_decides_nothing() -> None:
    why = "the champion was measured on another evaluation"
    result = compared(Comparison(champion=7, evaluation="e1", unlike={"ads/auc/click/all": why}))
    assert result.name == "champion/ads/auc/click/all" and why in result.message
    assert result.passed and not result.decided


def test_what_cannot_be_compared_fails() -> None:
    comparison = Comparison(champion=7, evaluation="e1", missing={"pinnersage": "its collection is gone"})
    result = compared(comparison)
    assert not result.passed and "its collection is gone" in result.message


def test_failures_are_listed_with_value_bound_and_sample() -> None:
    results = run_gates(release({"ranker/auc": 0.5, "ranker/ece": 0.2}), None, GateBounds())
    text = str(GateFailed(12, results))
    assert text.startswith("release 12 fails 2 of")
    for part in ("ranker/auc: 0.5 is below 0.55, n = 20000", "ranker/ece: 0.2 is above 0.05", "override"):
        assert part in text


def test_bounds_refuse_unknown_keys() -> None:
    with pytest.raises(ValueError, match="min_auc"):
        GateBounds.model_validate({"min_auc": 0.5})


@pytest.mark.parametrize(
    ("found", "expected", "passed"),
    # P(Poisson(expected) <= found): 0.011 and 0.007; 0.017 and 0.009
    [(0, 4.5, True), (0, 5.0, False), (5, 12.5, True), (5, 13.6, False)],
)
def test_a_floor_is_missed_only_where_so_few_finds_are_no_chance(
    found: int, expected: float, passed: bool
) -> None:
    name, bounds = "pinnersage/recall_at_100", GateBounds()
    bound = bounds.min_recall_over_chance * METRICS["chance/recall_at_100"]
    pins = expected / bound
    # recall is a mean over users: those of one pin found could bring it anywhere below its bound
    few = {
        name: 0.9 * bound,
        "pinnersage/users": 900.0,
        "pinnersage/pins": pins,
        "pinnersage/finds_at_100": found,
    }
    gate = next(r for r in run_gates(release(few), None) if r.name == name)
    assert gate.passed is passed and gate.decided is not passed


@pytest.mark.parametrize(("errors_below", "passed"), [(2.2, True), (2.5, False)])
def test_a_floor_is_missed_only_beyond_the_spread_of_users(errors_below: float, passed: bool) -> None:
    """The normal quantile of 1 % is 2.33; finds are plenty enough to say that this is no chance of theirs."""
    name, bounds = "pinnersage/recall_at_100", GateBounds()
    bound = bounds.min_recall_over_chance * METRICS["chance/recall_at_100"]
    error = 0.1 * bound
    spread = {
        name: bound - errors_below * error,
        "pinnersage/recall_error_at_100": error,
        "pinnersage/users": 900.0,
        "pinnersage/pins": 1e6,
        "pinnersage/finds_at_100": 1.0,
    }
    gate = next(r for r in run_gates(release(spread), None) if r.name == name)
    assert gate.passed is passed and gate.decided is not passed


def test_a_recall_whose_finds_nobody_counted_is_held_to_its_bound() -> None:
    name = "pinnersage/recall_at_100"
    gate = next(r for r in run_gates(release({name: 0.0, "pinnersage/pins": 3.0}), None) if r.name == name)
    assert gate.decided and not gate.passed


def test_a_small_catalogue_can_pass() -> None:
    """Of 120 pins a hundred are found in 83 % of cases by chance: 1.5 times that is more than everything."""
    few = {"chance/recall_at_100": 100 / 120} | {f"{role}/recall_at_100": 0.95 for role in RETRIEVERS}
    few |= {f"{role}/recall_at_100/{s}": 0.95 for role in RETRIEVERS for s in SLICES}
    assert not failed(run_gates(release(few), None))


def test_each_head_is_held_to_its_calibration_where_it_can_be_told() -> None:
    def heads(**changed: float) -> dict[str, float]:
        said = {"positives": 5_000.0, "ece": 0.008, "calibration_error": -0.05, **changed}
        return {f"ranker/heads/save/{name}": value for name, value in said.items()}

    def verdicts(metrics: dict[str, float]) -> dict[str, tuple[bool, bool]]:
        found = [r for r in run_gates(release(metrics), None) if r.name.startswith("ranker/heads/save")]
        return {r.name.rpartition("/")[2]: (r.passed, r.decided) for r in found}

    assert verdicts(heads()) == {"ece": (True, True), "calibration_error": (True, True)}
    assert verdicts(heads(ece=0.03))["ece"] == (False, True)
    assert verdicts(heads(calibration_error=-0.4))["calibration_error"] == (False, True)
    few = verdicts(heads(positives=999.0, ece=0.3, calibration_error=3.0))
    assert few == {"ece": (True, False), "calibration_error": (True, False)}
    unmeasured = {k: v for k, v in heads().items() if not k.endswith("/ece")}
    assert verdicts(unmeasured)["ece"] == (False, True)


@pytest.mark.parametrize(
    ("by", "kept", "users", "passes"),
    [("light", 0.8, 400, True), ("light", 0.6, 400, False), ("light", 0.6, 5, True), ("merge", 0.6, 400, True)],
)
def test_whoever_orders_candidates_keeps_no_less_than_the_merge(
    by: str, kept: float, users: int, passes: bool
) -> None:
    metrics = {"light/kept": kept, "merge/kept": 0.7, "light/users": float(users)}
    results = run_gates(release(metrics, light_by=by), None)
    assert bool(failed(results)) is not passes
    if not passes:
        assert "light/kept: 0.6 is below 0.7, n = 400" in failed(results)["light/kept"].message


def drift_gate(metrics: dict[str, float | None]) -> GateResult:
    return next(r for r in run_gates(release(metrics), None) if r.name == "ranker/max_drift")


def test_a_feature_that_broke_since_training_stops_the_release_and_is_named():
    broken = {"ranker/max_drift": 8.3, "ranker/drift/pin_age_days": 8.3}
    result = drift_gate(broken)
    assert not result.passed and (result.value, result.bound, result.n) == (8.3, 2.5, 20_000)
    assert "ranker/max_drift: 8.3 is above 2.5" in result.message and "pin_age_days 8.30" in result.message
    assert "pin_impressions_30d" not in result.message, "it moved, within the bound"
    few = drift_gate({**broken, "ranker/drift_rows": 999.0})
    assert few.passed and not few.decided and "999 are too few" in few.message


def test_a_ranker_without_a_baseline_is_undecided_by_drift():
    gone = drift_gate(
        dict.fromkeys(("ranker/max_drift", "ranker/drift_rows", "ranker/drift/pin_impressions_30d"))
    )
    assert gone.passed and not gone.decided and "keeps no baseline" in gone.message
    assert drift_gate({}).passed and drift_gate({}).decided
