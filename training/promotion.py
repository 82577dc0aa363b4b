"""Promotion and rollback: one alias moved after the gates passed, and written down before it moves.

`champion` is what services follow, `previous` what a rollback returns to. The ledger is the truth: its line
reaches the disk first, so a process that dies before the aliases moved leaves a move that the next one
finishes. One promotion at a time among the processes that share the ledger's file.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from feature_repo.vectors.index import CollectionMissing
from feature_repo.vectors.milvus import connect
from training.commit import git_commit
from training.context import TrainingContext
from training.ledger import Ledger, LedgerEntry, Move
from training.registry import Registry, VersionDropped
from training.release import load_manifest, served_parts, versions_of
from training.release_comparison import compare
from training.release_files import released_files
from training.release_parts import ReleaseError, newest_parts, registry_of
from validation.gate_bounds import GateBounds
from validation.gate_results import Comparison, GateFailed, GateResult
from validation.gates import run_gates
from validation.manifest import CHALLENGER, CHAMPION, PREVIOUS, RELEASE_MODEL, ReleaseManifest
from validation.part_files import FilesGone


class NothingToPromote(RuntimeError):
    """No version was given and no release is the challenger."""


class EmptyOverride(ValueError):
    """An override that does not say why."""


class RollbackImpossible(RuntimeError):
    """There is no previous champion, or what it serves from is gone."""


def promote(
    ctx: TrainingContext,
    ledger: Path,
    version: int | None = None,
    *,
    override: str | None = None,
    bounds: GateBounds | None = None,
    ready: Callable[[], object] = lambda: None,
) -> int:
    """Put a release (the challenger if none is named) through its gates and make it the champion; its version.

    `override` promotes in spite of failing gates and is kept in the ledger with them. A release that is the
    champion already is left so. `ready` is called before a gate asks the vector store: not where nothing is to
    be promoted.

    Raises GateFailed with every gate's result, NothingToPromote, ReleaseError for an unknown version,
    EmptyOverride.
    """
    if override is not None and not override.strip():
        raise EmptyOverride("an override says why the release goes out although a gate fails; it is empty")
    book, registry = Ledger(ledger), registry_of(ctx)
    with book.lock():
        _finish(registry, book)
        wanted = version if version is not None else registry.alias(RELEASE_MODEL, CHALLENGER)
        current = champion(registry, book)
        last = book.last()
        if last is not None and current is not None and wanted in (None, current):
            ctx.progress(f"release {current} is the champion already")
            return current
        if wanted is None:
            raise NothingToPromote("no release is the challenger; run `corkboard release`, or name a version")
        manifest = load_manifest(ctx, wanted)
        ready()
        results = check(ctx, manifest, current, bounds)
        failed = [r for r in results if not r.passed]
        for result in results:
            ctx.progress(("  ok   " if result.passed else "  FAIL ") + result.message)
        verdict = "passed" if not failed else "failed" if override is None else "overridden"
        registry.client.set_model_version_tag(RELEASE_MODEL, str(wanted), "gates", verdict)
        if failed and override is None:
            raise GateFailed(wanted, results)
        entry = _entry(Move.PROMOTE, wanted, current, replaced=current, override=override, gates=results)
        book.append(entry)
        _move(registry, entry)
    ctx.progress(f"release {wanted} is the champion")
    return wanted


def rollback(ctx: TrainingContext, ledger: Path) -> int:
    """Make the champion before this one the champion again; its version. A second rollback goes further back.

    Nothing is trained, built or measured: only that the release's collections and files are still there, and
    are its own. Raises RollbackImpossible, naming what is not.
    """
    book, registry = Ledger(ledger), registry_of(ctx)
    with book.lock():
        _finish(registry, book)
        line = book.champions()
        if len(line) < 2:
            raise RollbackImpossible(
                "no champion came before this one; a rollback needs two promotions in the ledger"
            )
        *_, target, leaving = line
        _still_there(ctx, load_manifest(ctx, target), target)
        entry = _entry(Move.ROLLBACK, target, line[-3] if len(line) > 2 else None, replaced=leaving)
        book.append(entry)
        _move(registry, entry)
    ctx.progress(f"release {target} is the champion again, instead of {leaving}")
    return target


def settled(ctx: TrainingContext, ledger: Path) -> int | None:
    """The release of exactly the newest parts that is the champion or was rolled back; None for none.

    The champion is that of the alias, so that a promotion that was killed before it moved is not settled.
    Raises ReleaseError as `newest_parts` does.
    """
    parts, skipped = newest_parts(ctx)
    newest, _ = served_parts(parts, skipped)
    registry = registry_of(ctx)
    decided = {registry.alias(RELEASE_MODEL, CHAMPION), *Ledger(ledger).rolled_back()}
    for version in reversed(registry.versions(RELEASE_MODEL)):
        if version in decided and versions_of(load_manifest(ctx, version).parts) == versions_of(newest):
            return version
    return None


def history(ledger: Path) -> tuple[LedgerEntry, ...]:
    """Every promotion and rollback, oldest first."""
    return Ledger(ledger).entries()


def check(
    ctx: TrainingContext, manifest: ReleaseManifest, champion: int | None, bounds: GateBounds | None = None
) -> tuple[GateResult, ...]:
    """Every gate's result for a release beside the champion of that version (None: the first release).

    A champion whose manifest is gone fails a gate: nothing is compared.
    """
    comparison = None
    if champion is not None:
        try:
            comparison = compare(ctx, manifest, load_manifest(ctx, champion), champion)
        except FilesGone as gone:
            comparison = Comparison(
                champion=champion, evaluation=manifest.evaluation, metrics=(), missing={"manifest": str(gone)}
            )
    return (
        parts_present(ctx, manifest),
        *collections_present(ctx, manifest),
        *run_gates(manifest, comparison, bounds),
    )


def parts_present(ctx: TrainingContext, manifest: ReleaseManifest) -> GateResult:
    """The files of every part are there, none cleared away by retention, and are those that were released."""
    registry, parts = registry_of(ctx), manifest.parts.values()
    gone: list[str] = []
    wrong: list[str] = []
    for part in parts:
        try:
            released_files(registry, part)
        except VersionDropped:
            gone.append(part.name)
        except ReleaseError as error:
            wrong.append(str(error))
    said = [f"{', '.join(gone)} cleared away by `corkboard gc`"] if gone else []
    said += wrong or ([] if gone else ["all files are there"])
    if unknown := [part.name for part in parts if part.files is None]:
        said.append(f"the release keeps no digests of {', '.join(unknown)}")
    good = len(parts) - len(gone) - len(wrong)
    return GateResult(
        name="parts",
        value=float(good),
        bound=float(len(parts)),
        n=None,
        passed=good == len(parts),
        message=f"parts: {'; '.join(said)}",
    )


def collections_present(ctx: TrainingContext, manifest: ReleaseManifest) -> tuple[GateResult, ...]:
    """Each collection of the manifest is on this Milvus now, with the rows that were checked."""
    if not manifest.collections:
        return ()
    results = []
    milvus = connect(ctx.milvus_uri)
    try:
        for checked in manifest.collections:
            try:
                rows = milvus.open(checked.collection, consistency="Strong").rows
                message = f"{rows} rows now, {checked.rows} when it was checked"
            except CollectionMissing as missing:
                rows, message = 0, str(missing)
            results.append(
                GateResult(
                    name=f"index/rows/{checked.space}",
                    value=float(rows),
                    bound=float(checked.rows),
                    n=checked.rows,
                    passed=rows == checked.rows,
                    message=f"index/rows/{checked.space}: {message}",
                )
            )
    finally:
        milvus.close()
    return tuple(results)


def champion(registry: Registry, ledger: Ledger) -> int | None:
    """The champion by the ledger; by the alias where the ledger has no line yet."""
    last = ledger.last()
    return last.champion if last is not None else registry.alias(RELEASE_MODEL, CHAMPION)


def _finish(registry: Registry, ledger: Ledger) -> None:
    """Carry out the last entry if its process died before the aliases moved.

    Aliases that say something else altogether were moved by hand; the next promotion or rollback goes by
    the ledger.
    """
    last = ledger.last()
    if last is not None and registry.alias(RELEASE_MODEL, CHAMPION) in (last.replaced, last.champion):
        _move(registry, last)


def _move(registry: Registry, entry: LedgerEntry) -> None:
    """Point the aliases where the entry says; `champion` last, since services follow it."""
    if entry.previous is None:
        _drop_alias(registry, PREVIOUS)
    elif registry.alias(RELEASE_MODEL, PREVIOUS) != entry.previous:
        registry.set_alias(RELEASE_MODEL, PREVIOUS, entry.previous)
    if registry.alias(RELEASE_MODEL, CHALLENGER) == entry.champion:
        _drop_alias(registry, CHALLENGER)
    if registry.alias(RELEASE_MODEL, CHAMPION) != entry.champion:
        registry.set_alias(RELEASE_MODEL, CHAMPION, entry.champion)


def _drop_alias(registry: Registry, alias: str) -> None:
    if registry.alias(RELEASE_MODEL, alias) is not None:
        registry.client.delete_registered_model_alias(RELEASE_MODEL, alias)


def _still_there(ctx: TrainingContext, manifest: ReleaseManifest, version: int) -> None:
    results = (parts_present(ctx, manifest), *collections_present(ctx, manifest))
    gone = [r.message for r in results if not r.passed]
    if gone:
        raise RollbackImpossible(
            f"release {version} cannot serve again: {'; '.join(gone)}; train and release instead"
        )


def _entry(
    move: Move,
    champion: int,
    previous: int | None,
    *,
    replaced: int | None,
    override: str | None = None,
    gates: tuple[GateResult, ...] = (),
) -> LedgerEntry:
    return LedgerEntry(
        at=datetime.now(UTC),
        move=move,
        champion=champion,
        previous=previous,
        replaced=replaced,
        by=f"{getpass.getuser()}@{socket.gethostname()}",
        git_commit=git_commit(),
        override=override,
        gates=gates,
    )
