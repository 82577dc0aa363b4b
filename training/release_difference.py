"""Two releases side by side: what each was made of, how it measured, how sure the difference is, its gates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from training.context import TrainingContext
from training.ledger import Ledger, LedgerEntry, Move
from training.models.calibration import Calibrator
from training.registry import VersionDropped
from training.release import load_manifest
from training.release_comparison import compare
from training.release_files import released_files
from training.release_parts import RANKER, ReleaseError, registry_of
from validation.gate_results import GateResult
from validation.gates import non_inferiority_of, run_gates
from validation.manifest import Part, ReleaseManifest

CHAMPION = "champion/"
"""Prefix of the gates that compare with a champion."""


@dataclass(frozen=True)
class Line:
    """One thing of both releases, in words; empty where a release has none."""

    what: str
    a: str
    b: str


@dataclass(frozen=True)
class MetricLine:
    """One metric of both."""

    name: str
    a: float | None
    b: float | None
    interval: tuple[float, float] | None
    """Of b less a on the same users or rows, a one-sided 95 % bound each; None where that was not measured."""
    n: int | None
    """Users or rows that the interval is of."""


@dataclass(frozen=True)
class Difference:
    """Release `b` beside release `a`."""

    a: int
    b: int
    facts: tuple[Line, ...]
    parts: tuple[Line, ...]
    """By role; every part of either."""
    metrics: tuple[MetricLine, ...]
    """Those that differ, and all that were compared pair by pair."""
    gates: tuple[Line, ...]
    """Gates that either release fails, or the sample left undecided, by what the manifests hold."""


def difference(ctx: TrainingContext, ledger: Path, a: int, b: int, *, measure: bool = False) -> Difference:
    """Compare by what was written down: two manifests, and the ledger where one was promoted over the other.

    With `measure` both are measured anew on the same users and rows of today's lake, which takes as long as
    gates do. Raises ReleaseError for a version that does not exist, or one against itself.
    """
    if a == b:
        raise ReleaseError(f"release {a} against release {b} is one release; name two")
    one, other = (load_manifest(ctx, version) for version in (a, b))
    entries = Ledger(ledger).entries()
    pairs = _measured(ctx, one, other, a) if measure else _promoted(entries, a, b)
    return Difference(
        a=a,
        b=b,
        facts=(*_facts(one, other), Line("promotions", _moves(entries, a), _moves(entries, b))),
        parts=tuple(_parts(ctx, one, other)),
        metrics=tuple(_metrics(one.metrics, other.metrics, pairs)),
        gates=tuple(_gates(one, other)),
    )


def _facts(one: ReleaseManifest, other: ReleaseManifest) -> Iterator[Line]:
    for what, say in (
        ("composed", lambda m: f"{m.created_at:%Y-%m-%d %H:%M}"),
        ("data", lambda m: f"{m.dataset}, {m.data_start:%Y-%m-%d} to {m.data_end:%Y-%m-%d}"),
        ("commit", lambda m: m.git_commit),
        ("evaluation", lambda m: m.evaluation),
        ("sources", lambda m: ", ".join(m.sources)),
        ("light ranking", lambda m: m.light_by),
        ("left out", lambda m: "; ".join(f"{part}: {why}" for part, why in m.skipped.items())),
    ):
        yield Line(what, say(one), say(other))


def _moves(entries: tuple[LedgerEntry, ...], version: int) -> str:
    """When the release became champion, and why in spite of its gates."""
    said = []
    for entry in entries:
        if entry.champion == version:
            back = " (rollback)" if entry.move is Move.ROLLBACK else ""
            why = f", overridden: {entry.override}" if entry.override else ""
            said.append(f"{entry.at:%Y-%m-%d %H:%M} by {entry.by}{back}{why}")
    return "; ".join(said) or "never"


def _parts(ctx: TrainingContext, one: ReleaseManifest, other: ReleaseManifest) -> Iterator[Line]:
    for role in dict.fromkeys((*one.parts, *other.parts)):
        yield Line(role, *(_part(ctx, role, release.parts.get(role)) for release in (one, other)))


def _part(ctx: TrainingContext, role: str, part: Part | None) -> str:
    if part is None:
        return ""
    said = [f"{part.model}@{part.version}"]
    if part.space not in (None, said[0]):
        said.append(f"in {part.space}")
    said += [name for name in (part.collection, part.feature_service) if name]
    if role == RANKER:
        said.append(_calibration(ctx, part))
    return ", ".join(said)


def _calibration(ctx: TrainingContext, part: Part) -> str:
    try:
        calibrator = Calibrator.load(released_files(registry_of(ctx), part))
    except (VersionDropped, FileNotFoundError):  # to say so is all that is asked
        return "no calibration there"
    except ReleaseError as error:
        return str(error)
    return f"calibrated for {', '.join(calibrator.head_names)}"


def _promoted(entries: tuple[LedgerEntry, ...], a: int, b: int) -> dict[str, MetricLine]:
    """What the gates compared when one of the two replaced the other, newest first."""
    for entry in reversed(entries):
        if entry.move is Move.PROMOTE and {entry.champion, entry.replaced} == {a, b}:
            return _compared(entry.gates, turned=entry.champion == a)
    return {}


def _measured(
    ctx: TrainingContext, one: ReleaseManifest, other: ReleaseManifest, a: int
) -> dict[str, MetricLine]:
    return _compared(non_inferiority_of(compare(ctx, other, one, a)), turned=False)


def _compared(gates: tuple[GateResult, ...], *, turned: bool) -> dict[str, MetricLine]:
    """By metric; `turned` where the gates held `a` against `b`."""
    found = {}
    for gate in gates:
        if gate.name.startswith(CHAMPION) and gate.interval is not None:
            name, (low, high) = gate.name.removeprefix(CHAMPION), gate.interval
            if turned:
                found[name] = MetricLine(name, gate.value, gate.beside, (-high, -low), gate.n)
            else:
                found[name] = MetricLine(name, gate.beside, gate.value, (low, high), gate.n)
    return found


def _metrics(
    one: Mapping[str, float], other: Mapping[str, float], pairs: Mapping[str, MetricLine]
) -> Iterator[MetricLine]:
    """Where pairs were measured their values stand, which are of the same users; the rest by the manifests."""
    for name in sorted({*one, *other, *pairs}):
        if name in pairs:
            yield pairs[name]
        elif one.get(name) != other.get(name):
            yield MetricLine(name, one.get(name), other.get(name), None, None)


def _gates(one: ReleaseManifest, other: ReleaseManifest) -> Iterator[Line]:
    sides = [{result.name: result for result in run_gates(release, None)} for release in (one, other)]
    yield Line("all", *(f"{sum(r.passed for r in side.values())} of {len(side)} pass" for side in sides))
    for name in dict.fromkeys(name for side in sides for name in side):
        results = [side.get(name) for side in sides]
        if any(result is not None and not (result.passed and result.decided) for result in results):
            yield Line(name, *(_verdict(result) for result in results))


def _verdict(result: GateResult | None) -> str:
    if result is None:
        return ""
    verdict = "FAIL" if not result.passed else "ok" if result.decided else "undecided"
    return f"{verdict}: {result.message.partition(': ')[2]}"
