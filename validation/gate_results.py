"""A gate's verdict and how it is put: the value, the bound, the sample size and one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import Field

from validation.manifest import Frozen, ReleaseManifest

Metrics = Mapping[str, float]


class Paired(Frozen):
    """One metric of two releases over the very same users or rows."""

    metric: str
    candidate: float
    champion: float
    low: float
    """Lower end of the interval of candidate less champion, a one-sided 95 % bound."""
    high: float
    """Its upper end, another."""
    n: int
    larger_is_better: bool = True


class Comparison(Frozen):
    """A release measured beside the champion on one evaluation."""

    champion: int
    """The champion's release version."""
    evaluation: str
    metrics: tuple[Paired, ...] = ()
    missing: dict[str, str] = Field(default_factory=dict)
    """Metrics that could not be compared, with the reason; a gate fails on each."""
    unlike: dict[str, str] = Field(default_factory=dict)
    """Metrics that were measured on other questions than the champion's, with the reason; none decides."""


class GateResult(Frozen):
    """One gate's verdict."""

    name: str
    value: float | None
    """None where it was not measured."""
    bound: float | None
    n: int | None
    """Users, rows or queries the value is a mean of."""
    passed: bool
    decided: bool = True
    """False where the sample is too small to tell; such a gate passes."""
    beside: float | None = None
    """The champion's value on the same users or rows, where the gate compares."""
    interval: tuple[float, float] | None = None
    """Of the value less the champion's; each end is a one-sided 95 % bound."""
    message: str


class GateFailed(Exception):
    """At least one gate failed; the release was not promoted."""

    def __init__(self, version: int, results: tuple[GateResult, ...]) -> None:
        self.version = version
        self.results = results
        failed = [r for r in results if not r.passed]
        super().__init__(
            f"release {version} fails {len(failed)} of {len(results)} gates:\n"
            + "\n".join(f"  {r.message}" for r in failed)
            + "\nmend what they name, or promote with an override that says why"
        )


def at_least(name: str, metrics: Metrics, bound: float, sample: str, min_sample: int) -> GateResult:
    """A gate on the metric `name`, which is to reach `bound`; its sample size is the metric `<task>/<sample>`.

    Undecided below `min_sample`.
    """
    return _measured(name, metrics, bound, sample, min_sample, above=True)


def at_most(name: str, metrics: Metrics, bound: float, sample: str, min_sample: int) -> GateResult:
    """The same of one that is to stay within `bound`."""
    return _measured(name, metrics, bound, sample, min_sample, above=False)


def _measured(
    name: str, metrics: Metrics, bound: float, sample: str, min_sample: int, *, above: bool
) -> GateResult:
    n = int(metrics.get(f"{name.partition('/')[0]}/{sample}", 0))
    result = result_of(name, metrics.get(name), bound, n, above=above)
    if result.value is None or n >= min_sample:
        return result
    return undecided(result, f"{n} are too few to decide, it takes {min_sample}")


def undecided(result: GateResult, why: str) -> GateResult:
    """The result of a sample that cannot tell, which passes and says so."""
    return result.model_copy(update={"passed": True, "decided": False, "message": f"{result.message}; {why}"})


def result_of(
    name: str, value: float | None, bound: float, n: int | None, *, above: bool, unit: str = ""
) -> GateResult:
    """A gate on `value`, which is to reach `bound` (`above`) or stay within it; what is not measured fails."""
    sample = "" if n is None else f", n = {n}"
    if value is None or math.isnan(value) or math.isnan(bound):
        return GateResult(
            name=name, value=None, bound=None, n=n, passed=False, message=f"{name}: was not measured{sample}"
        )
    passed = value >= bound if above else value <= bound
    relation = ("reaches" if passed else "is below") if above else ("stays within" if passed else "is above")
    return GateResult(
        name=name,
        value=value,
        bound=bound,
        n=n,
        passed=passed,
        message=f"{name}: {value:.4g} {relation} {bound:.4g}{unit}{sample}",
    )


def absent(name: str, role: str, release: ReleaseManifest) -> GateResult:
    """A part that is not in the release: fine where the manifest says why."""
    why = release.skipped.get(role)
    said = f"left out: {why}" if why else "missing from the release, and the manifest does not say why"
    return GateResult(
        name=name,
        value=None,
        bound=None,
        n=None,
        passed=why is not None,
        decided=False,
        message=f"{name}: {said}",
    )
