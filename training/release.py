"""Releases: the newest trained parts that belong together, measured, written down once, never changed.

A release is a version of the MLflow model `homefeed` whose one file is the manifest. Services follow an
alias on it; `training.promotion` moves that alias.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from training import index
from training.commit import git_commit
from training.context import TrainingContext
from training.ledger import Ledger
from training.pipelines.clock import run_interval
from training.pipelines.content import content_space_of
from training.pipelines.light import chosen
from training.pipelines.search_space import PIN_SPACE_TAG
from training.registry import COMMIT_TAG, Registry
from training.release_comparison import Bench
from training.release_evaluation import normalized_entropy
from training.release_files import check_unchanged, with_digests
from training.release_latency import latency_metrics
from training.release_parts import (
    CONTENT,
    LEXICAL,
    LIGHT,
    MAKERS,
    PIXIE,
    RANKER,
    SEARCHSAGE,
    ReleaseError,
    calibrated_ranker,
    newest_parts,
    registry_of,
    space_of,
)
from validation.gates import RETRIEVERS
from validation.lake import Lake
from validation.lake_check import check_lake
from validation.manifest import (
    ADS,
    CHALLENGER,
    MANIFEST_FILE,
    RELEASE_MODEL,
    CollectionCheck,
    Part,
    ReleaseManifest,
)
from validation.part_files import FilesGone
from validation.tables import PADDING_ID


def release(ctx: TrainingContext, ledger: Path) -> int:
    """Compose a release of the newest parts and make it the challenger; its version. See `compose`.

    Raises ReleaseError where a part's files changed meanwhile. They are looked at, and the release is
    registered, under the lock of `ledger`.
    """
    manifest = compose(ctx)
    for part, reason in manifest.skipped.items():
        ctx.progress(f"left out: {part}: {reason}")
    with Ledger(ledger).lock():
        check_unchanged(registry_of(ctx), manifest.parts.values())
        return register(ctx, manifest)


def compose(ctx: TrainingContext, parts: Mapping[str, Part] | None = None) -> ReleaseManifest:
    """Measure the parts together and write the manifest of their release; nothing is registered yet.

    `parts` by role, `newest_parts` if left out. Releases before whose files are gone are named, and the digests
    that they kept hold no part. Raises ReleaseError for parts that do not belong together, whose files are not
    those that a release was made of, and for a ranker whose calibrator is not its own; CollectionMissing where
    a space was never built.
    """
    skipped: dict[str, str] = {}
    if parts is None:
        parts, skipped = newest_parts(ctx)
    measured = dict(parts[LIGHT].metrics) if LIGHT in parts else {}
    parts, light_by = served_parts(parts, skipped)
    lake, bench = Lake(ctx.lake), Bench.of(ctx, parts.values())
    spaces = _spaces(bench.registry, parts)
    kept = (_kept(ctx, version) for version in reversed(bench.registry.versions(RELEASE_MODEL)))
    parts = with_digests(bench.registry, parts, (before for before in kept if before is not None))
    if RANKER in parts:
        calibrated_ranker(bench.files(parts[RANKER]), parts[RANKER])
    sources = _sources(lake, parts, skipped)
    start, end = _interval(bench.registry, parts) if parts else run_interval(ctx)
    for space in spaces:  # one that is not there is told of before anything is measured
        bench.stored(space)
    with ThreadPoolExecutor(1) as beside:  # the vector store works in a process of its own
        checking = beside.submit(_checked, bench, spaces)
        metrics = _metrics(bench, parts)
        ctx.progress(f"checking the data of {start:%Y-%m-%d} to {end:%Y-%m-%d}")
        data_checks = check_lake(lake, start, end)
        checks = checking.result()
    metrics |= _index_metrics(parts, checks)
    metrics |= latency_metrics(parts, bench.files)  # CPU of the process, which nothing else may take meanwhile
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    return ReleaseManifest(
        created_at=datetime.now(UTC),
        git_commit=git_commit(),
        dataset=lake.contract().name,
        data_start=start,
        data_end=end,
        parts=dict(parts),
        light_by=light_by,
        sources=sources,
        skipped=skipped,
        collections=checks,
        metrics=finite | measured,
        data_checks=data_checks,
        evaluation=bench.evaluation,
    )


def served_parts(parts: Mapping[str, Part], skipped: dict[str, str]) -> tuple[dict[str, Part], str]:
    """(the parts that a release of these holds, who orders its candidates): a light ranker that keeps fewer
    engaged pins than what it stands in for is left out, and why goes to `skipped`."""
    light = parts.get(LIGHT)
    light_by = chosen(parts, light)
    if light is not None and light_by != LIGHT:
        kept = {by: light.metrics[f"{by}/kept"] for by in (LIGHT, light_by)}
        skipped[LIGHT] = (
            f"{light.model}@{light.version} keeps {kept[LIGHT]:.3f} of engaged pins, "
            f"{light_by} {kept[light_by]:.3f}"
        )
        return {role: part for role, part in parts.items() if role != LIGHT}, light_by
    return dict(parts), light_by


def versions_of(parts: Mapping[str, Part]) -> dict[str, tuple[str, int]]:
    """(model, version) by role."""
    return {role: (part.model, part.version) for role, part in parts.items()}


def register(ctx: TrainingContext, manifest: ReleaseManifest) -> int:
    """Make the manifest a version of the release model and the challenger; the version's number.

    A manifest that says what the newest version already says (other than when) is not registered again. Killed,
    it leaves nothing that anyone finds, or a whole version; run again, it registers once and moves the alias.
    """
    registry = registry_of(ctx)
    newest = registry.latest(RELEASE_MODEL)
    before = None if newest is None else _kept(ctx, newest)
    if newest is not None and before is not None and _same(before, manifest):
        ctx.progress(f"release {newest} already says this")
        registry.set_alias(RELEASE_MODEL, CHALLENGER, newest)
        return newest
    registry.ensure_model(RELEASE_MODEL, "Releases: manifests of everything that serves together.")
    client = registry.client
    run = client.create_run(
        registry.experiment(),
        run_name=RELEASE_MODEL,
        tags={COMMIT_TAG: manifest.git_commit, "mlflow.source.git.commit": manifest.git_commit},
    )
    run_id = run.info.run_id
    for role, part in manifest.parts.items():
        client.log_param(run_id, role, f"{part.model}@{part.version}")
    client.log_param(run_id, "data", f"{manifest.data_start.isoformat()} to {manifest.data_end.isoformat()}")
    _log_metrics(registry, run_id, manifest.metrics)
    client.log_text(run_id, manifest.model_dump_json(indent=2), f"{RELEASE_MODEL}/{MANIFEST_FILE}")
    client.log_text(run_id, card(manifest), f"{RELEASE_MODEL}/release.md")
    client.set_terminated(run_id)
    version = client.create_model_version(
        RELEASE_MODEL,
        f"{run.info.artifact_uri}/{RELEASE_MODEL}",
        run_id,
        tags={"evaluation": manifest.evaluation, COMMIT_TAG: manifest.git_commit},
        description=card(manifest),
    )
    registry.set_alias(RELEASE_MODEL, CHALLENGER, int(version.version))
    ctx.progress(f"registered release {version.version}, {CHALLENGER}")
    return int(version.version)


def load_manifest(ctx: TrainingContext, release: int | str) -> ReleaseManifest:
    """The manifest of a version, or of what an alias points at.

    Raises ReleaseError naming what there is, FilesGone where the version's folder is gone.
    """
    registry = registry_of(ctx)
    version = registry.alias(RELEASE_MODEL, release) if isinstance(release, str) else release
    if version is None or version not in registry.versions(RELEASE_MODEL):
        known = ", ".join(map(str, registry.versions(RELEASE_MODEL))) or "none, run `corkboard release`"
        raise ReleaseError(f"there is no release {release}; releases: {known}")
    return ReleaseManifest.model_validate_json(registry.text(RELEASE_MODEL, version, MANIFEST_FILE))


def card(manifest: ReleaseManifest) -> str:
    """The release in Markdown, for MLflow's page of the version."""
    lines = [f"# {manifest.name}", "", f"{manifest.dataset}: {manifest.data_start:%Y-%m-%d} to "]
    lines[-1] += f"{manifest.data_end:%Y-%m-%d} (UTC, end exclusive), commit `{manifest.git_commit}`."
    lines += ["", "| part | model | space |", "|---|---|---|"]
    lines += [f"| {r} | {p.model}@{p.version} | {p.space or ''} |" for r, p in manifest.parts.items()]
    lines += [
        "",
        f"Sources: {', '.join(manifest.sources)}.",
        f"Candidates are ordered by: {manifest.light_by}.",
    ]
    lines += [f"Left out: {name}: {why}." for name, why in manifest.skipped.items()]
    lines += ["", "| collection | pins | recall@100 | filtered fill |", "|---|---|---|---|"]
    lines += [
        f"| {c.collection} | {c.rows} | {c.recall_at_100:.3f} | {c.filtered_fill:.3f} |"
        for c in manifest.collections
    ]
    lines += ["", "| metric | value |", "|---|---|"]
    lines += [f"| {name} | {value:.5g} |" for name, value in sorted(manifest.metrics.items())]
    return "\n".join([*lines, ""])


def _kept(ctx: TrainingContext, version: int) -> ReleaseManifest | None:
    """The manifest of a release before; None, which is said, where its files are gone."""
    try:
        return load_manifest(ctx, version)
    except FilesGone as gone:
        ctx.progress(f"goes on without release {version}: {gone}")
        return None


def _checked(bench: Bench, spaces: Sequence[str]) -> tuple[CollectionCheck, ...]:
    """Each space's collection as it stands, measured against what it holds."""
    checks = []
    for space in spaces:
        bench.ctx.progress(f"checking the collection of {space}")
        checks.append(index.check(bench.ctx.milvus_uri, space, bench.stored(space)))
    return tuple(checks)


def _index_metrics(parts: Mapping[str, Part], checks: Sequence[CollectionCheck]) -> dict[str, float]:
    """Rows of each space's collection, and their share of the pins that have content."""
    content = parts[CONTENT].metrics if CONTENT in parts else {}
    expected = content.get("pins", math.nan) * content.get("content_coverage", math.nan)
    out = {}
    for check in checks:
        out[f"index/rows/{check.space}"] = float(check.rows)
        out[f"index/coverage/{check.space}"] = check.rows / max(expected, 1.0)
    return out


def _metrics(bench: Bench, parts: Mapping[str, Part]) -> dict[str, float]:
    """What the gates read of the parts, as `<task>/<metric>[/<slice>]`."""
    retrievers = [role for role in RETRIEVERS if role in parts and bench.past is not None]
    out = dict(bench.baselines) if retrievers else {}
    for role in retrievers:
        out |= bench.retrieval(role, parts[role]).metrics
    if RANKER in parts:
        out |= {f"ranker/{name}": value for name, value in parts[RANKER].metrics.items()}
        out |= normalized_entropy(out) | bench.drift(parts[RANKER])
    if ADS in parts:
        own = ("auc/", "log_loss/", "error_before/", "error_after/", "positives/")
        out |= {f"ads/{name}": value for name, value in parts[ADS].metrics.items() if name.startswith(own)}
    if SEARCHSAGE in parts:
        own = parts[SEARCHSAGE].metrics
        out |= {name: value for name, value in own.items() if name.startswith(f"{SEARCHSAGE}/")}
        out[f"{SEARCHSAGE}/chance_at_10"] = own.get("chance/recall_at_10", math.nan)
    for role, part in parts.items():
        files = [f for f in bench.files(part).rglob("*") if f.is_file()]
        out[f"size/{role}"] = float(sum(f.stat().st_size for f in files))
    return out


def _sources(lake: Lake, parts: Mapping[str, Part], skipped: dict[str, str]) -> tuple[str, ...]:
    """Candidate sources the data and parts allow, in funnel order; why others do not goes to `skipped`."""
    follows = lake.read("follows", ["topic_id", "board_id"]) if lake.has("follows") else None
    out = [role for role in RETRIEVERS if role in parts]
    for source, column in (("followed_boards", "board_id"), ("followed_topics", "topic_id")):
        if follows is None:
            skipped[source] = "there is no follows table"
        elif not (follows[column] != PADDING_ID).any():  # the lake reads an absent id as padding
            skipped[source] = f"the follows table has no {column}"
        else:
            out.append(source)
    out.append("popular_by_topic")
    if PIXIE in parts:
        out.append("saved_together")
    if CONTENT in parts:
        out.append("similar_pins")
    out += [role for role in (LEXICAL, SEARCHSAGE) if role in parts]
    return tuple(out)


def _spaces(registry: Registry, parts: Mapping[str, Part]) -> list[str]:
    """The spaces that the parts make, sorted. Raises ReleaseError where a part stands on one they do not."""
    if parts and CONTENT not in parts:
        raise ReleaseError(f"a release needs a content space, these parts are {', '.join(parts)}")
    made = sorted(space_of(parts[role]) for role in MAKERS if role in parts)
    for role, part in parts.items():
        if role in (LEXICAL, LIGHT):  # they read words and scores, no vectors
            continue
        reads_content = role in (*MAKERS, PIXIE) and role not in (CONTENT, SEARCHSAGE)
        stands_on = content_space_of(registry, part) if reads_content else part.space
        if role == SEARCHSAGE:
            stands_on = registry.version(part.model, part.version).tags[PIN_SPACE_TAG]
        if stands_on not in made:
            raise ReleaseError(
                f"{part.model}@{part.version} stands on {stands_on}, which is not of this release: it makes "
                f"{' and '.join(made)}; run `corkboard train` to finish the training run"
            )
    return made


def _interval(registry: Registry, parts: Mapping[str, Part]) -> tuple[datetime, datetime]:
    """From the first start to the last end of the data the parts were trained on."""
    tags = [registry.version(p.model, p.version).tags for p in parts.values()]
    return (
        min(datetime.fromisoformat(t["data_start"]) for t in tags),
        max(datetime.fromisoformat(t["data_end"]) for t in tags),
    )


def _same(a: ReleaseManifest, b: ReleaseManifest) -> bool:
    """Whether two manifests name the same parts, files, data, sources, collections, code and evaluation, and
    measure the same."""
    said = ("git_commit", "dataset", "data_start", "data_end", "sources", "skipped", "evaluation", "light_by")
    return (
        all(getattr(a, name) == getattr(b, name) for name in said)
        and a.metrics.keys() == b.metrics.keys()
        and versions_of(a.parts) == versions_of(b.parts)
        and all(part.files == b.parts[role].files for role, part in a.parts.items())
        and {(c.collection, c.rows) for c in a.collections} == {(c.collection, c.rows) for c in b.collections}
    )


def _log_metrics(registry: Registry, run_id: str, metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric

    now = int(datetime.now(UTC).timestamp() * 1000)
    entries = [Metric(name.replace("@", "_at_"), value, now, 0) for name, value in metrics.items()]
    registry.client.log_batch(run_id, metrics=entries)
