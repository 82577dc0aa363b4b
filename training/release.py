"""Releases: the newest trained parts that belong together, measured, written down once, never changed.

A release is a version of the MLflow model `homefeed` whose one file is the manifest. Services follow an
alias on it; `training.promotion` moves that alias.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from feature_repo.vectors.rows import PinRows
from training import index
from training.context import TrainingContext
from training.data.training_set import TrainingSet
from training.evaluation.retrieval import HeldOut, NothingHeldOut
from training.models.pinnability import load_ranker
from training.models.pinnersage import PinnerSageConfig
from training.pipelines import content as content_pipeline
from training.pipelines import pinnersage as pinnersage_pipeline
from training.pipelines.clock import run_end, run_interval
from training.pipelines.content import content_part
from training.pipelines.pinnability import Kind
from training.registry import COMMIT_TAG, Registry, git_commit
from training.release_evaluation import (
    Measured,
    evaluation_id,
    held_out,
    measure_ranker,
    measure_retrieval,
    normalized_entropy,
    paired,
    ranking_rows,
    same_rows,
    tested_rows,
)
from validation.gates import Comparison, Paired
from validation.lake import Lake
from validation.manifest import (
    CHALLENGER,
    MANIFEST_FILE,
    RELEASE_MODEL,
    CollectionCheck,
    Part,
    ReleaseManifest,
    Space,
)
from validation.tables import PADDING_ID

CONTENT, PINNERSAGE, RANKER = "content", "pinnersage", "ranker"
"""Roles of the parts, in the order in which they are made."""

ROLE_MODELS: dict[str, tuple[str, ...]] = {
    PINNERSAGE: (pinnersage_pipeline.MODEL,),
    RANKER: tuple(kind.model for kind in Kind),
}
"""Registered models that can play each role that stands on the content space."""


class ReleaseError(RuntimeError):
    """A release cannot be composed or found; the message says what to run first."""


@dataclass(frozen=True)
class Bench:
    """What releases are measured on, read once: held-out users, ranking rows, the vectors of each space."""

    ctx: TrainingContext
    registry: Registry
    held: HeldOut | None
    no_held: str
    """Why nobody is held out."""
    rows: TrainingSet | None
    """The newest training set of rankers; its last days test."""
    _stored: dict[str, PinRows] = field(default_factory=dict)
    _measured: dict[tuple[str, ...], Measured] = field(default_factory=dict)

    @classmethod
    def of(cls, ctx: TrainingContext) -> Bench:
        """From the lake and the training set as they are now."""
        held, no_held = None, ""
        try:
            held = held_out(ctx, run_end(ctx))
        except NothingHeldOut as error:
            no_held = str(error)
        return cls(ctx, registry_of(ctx), held, no_held, ranking_rows(ctx))

    @property
    def evaluation(self) -> str:
        return evaluation_id(self.held, self.rows)

    def stored(self, space: str) -> PinRows:
        """Everything the space's collection holds. Raises CollectionMissing."""
        if space not in self._stored:
            self._stored[space] = index.read(self.ctx.milvus_uri, space)
        return self._stored[space]

    def files(self, part: Part) -> Path:
        return self.registry.download(part.model, part.version)

    def retrieval(self, part: Part) -> Measured:
        """PinnerSage `part` over its space's collection. Raises ReleaseError where nobody is held out."""
        if self.held is None:
            raise ReleaseError(self.no_held)
        key = (part.model, str(part.version), _space(part))
        if key not in self._measured:
            self.ctx.progress(f"measuring {part.model}@{part.version} on {len(self.held)} users")
            config = PinnerSageConfig.load(self.files(part))
            self._measured[key] = measure_retrieval(self.ctx, self.held, self.stored(_space(part)), config)
        return self._measured[key]


def registry_of(ctx: TrainingContext) -> Registry:
    """The registry of a training context."""
    return Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)


def newest_parts(ctx: TrainingContext) -> tuple[dict[str, Part], dict[str, str]]:
    """(parts by role, what is left out and why): the newest content space and what was trained in it.

    Of the rankers trained in that space the one with the lowest log loss on its test days is taken. Raises
    ReleaseError where there is no content space, or where later parts exist but only for an older space (the
    training run stopped halfway).
    """
    registry = registry_of(ctx)
    version = registry.latest(content_pipeline.MODEL)
    if version is None:
        raise ReleaseError("no content space is registered; run `corkboard train` first")
    content = content_part(registry, version)
    if content.metrics.get("content_coverage") == 0:
        why = f"{content.model}@{content.version} found no words, topics, domain or embedding in any pin"
        return {}, dict.fromkeys((CONTENT, PINNERSAGE, RANKER), why)
    parts: dict[str, Part] = {CONTENT: content}
    skipped: dict[str, str] = {}
    space = _space(content)
    for role, models in ROLE_MODELS.items():
        trained = [(model, v) for model in models if (v := _newest_in(registry, model, space)) is not None]
        if trained:
            found = [_part(registry, model, v, space) for model, v in trained]
            parts[role] = min(found, key=lambda part: part.metrics.get("log_loss", math.inf))
            continue
        behind = [f"{model}@{v}" for model in models if (v := registry.latest(model)) is not None]
        if behind:
            raise ReleaseError(
                f"the newest space is {space}, and {' and '.join(behind)} belongs to an older one; "
                "run `corkboard train` to finish the training run"
            )
        skipped[role] = "no version is registered"
    return parts, skipped


def release(ctx: TrainingContext, skipped: Mapping[str, str] | None = None) -> int:
    """Compose a release of the newest parts and make it the challenger; its version. See `compose`."""
    return register(ctx, compose(ctx, skipped=skipped))


def compose(
    ctx: TrainingContext,
    parts: Mapping[str, Part] | None = None,
    skipped: Mapping[str, str] | None = None,
) -> ReleaseManifest:
    """Measure the parts together and write the manifest of their release; nothing is registered yet.

    `parts` by role, `newest_parts` if left out; `skipped` adds reasons for what is missing. Raises
    ReleaseError for parts of different spaces, CollectionMissing where a space was never built.
    """
    if parts is None:
        parts, why = newest_parts(ctx)
        skipped = {**why, **(skipped or {})}
    spaces = {_space(part) for part in parts.values()}
    if parts and (CONTENT not in parts or len(spaces) != 1):
        raise ReleaseError(
            f"the parts of a release share the space of its content, these have {sorted(spaces)}"
        )
    lake, bench = Lake(ctx.lake), Bench.of(ctx)
    skipped = dict(skipped or {})
    sources = _sources(lake, parts, skipped)
    checks = []
    for space in sorted(spaces):
        ctx.progress(f"checking the collection of {space}")
        checks.append(index.check(ctx.milvus_uri, space, bench.stored(space)))
    start, end = _interval(bench.registry, parts) if parts else run_interval(ctx)
    return ReleaseManifest(
        created_at=datetime.now(UTC),
        git_commit=git_commit(),
        dataset=lake.contract().name,
        data_start=start,
        data_end=end,
        parts=dict(parts),
        sources=sources,
        skipped=skipped,
        collections=tuple(checks),
        metrics=_metrics(bench, parts, checks),
        evaluation=bench.evaluation,
    )


def register(ctx: TrainingContext, manifest: ReleaseManifest) -> int:
    """Make the manifest a version of the release model and the challenger; the version's number.

    A manifest that says what the newest version already says (other than when) is not registered again.
    """
    registry = registry_of(ctx)
    newest = registry.latest(RELEASE_MODEL)
    if newest is not None and _same(load_manifest(ctx, newest), manifest):
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
    """The manifest of a version, or of what an alias points at. Raises ReleaseError naming what there is."""
    import mlflow

    registry = registry_of(ctx)
    version = registry.alias(RELEASE_MODEL, release) if isinstance(release, str) else release
    if version is None or version not in registry.versions(RELEASE_MODEL):
        known = ", ".join(map(str, registry.versions(RELEASE_MODEL))) or "none, run `corkboard release`"
        raise ReleaseError(f"there is no release {release}; releases: {known}")
    source = registry.client.get_model_version_download_uri(RELEASE_MODEL, str(version))
    text = mlflow.artifacts.load_text(f"{source.rstrip('/')}/{MANIFEST_FILE}")
    return ReleaseManifest.model_validate_json(text)


def compare(
    ctx: TrainingContext, candidate: ReleaseManifest, champion: ReleaseManifest, champion_version: int
) -> Comparison:
    """Both releases on the same users and the same rows of today's lake, pair by pair.

    What cannot be compared (a collection dropped, rows that differ) is named with the reason, and a gate will
    fail on it. A part that the champion does not have needs no comparison.
    """
    bench = Bench.of(ctx)
    pairs: list[Paired] = []
    missing: dict[str, str] = {}
    for role, compared in ((PINNERSAGE, _compare_retrieval), (RANKER, _compare_rankers)):
        if role not in champion.parts:
            continue
        if role not in candidate.parts:
            missing[role] = f"the champion has a {role}, this release has none"
            continue
        try:
            pairs += compared(bench, candidate.parts[role], champion.parts[role])
        except (ReleaseError, LookupError, index.VectorIndexError) as error:
            missing[role] = str(error)
    return Comparison(
        champion=champion_version, evaluation=bench.evaluation, metrics=tuple(pairs), missing=missing
    )


def card(manifest: ReleaseManifest) -> str:
    """The release in Markdown, for MLflow's page of the version."""
    lines = [f"# {manifest.name}", "", f"{manifest.dataset}: {manifest.data_start:%Y-%m-%d} to "]
    lines[-1] += f"{manifest.data_end:%Y-%m-%d} (UTC, end exclusive), commit `{manifest.git_commit}`."
    lines += ["", "| part | model | space |", "|---|---|---|"]
    lines += [f"| {r} | {p.model}@{p.version} | {p.space or ''} |" for r, p in manifest.parts.items()]
    lines += ["", f"Sources: {', '.join(manifest.sources)}."]
    lines += [f"Left out: {name}: {why}." for name, why in manifest.skipped.items()]
    lines += ["", "| collection | pins | recall@100 | filtered fill |", "|---|---|---|---|"]
    lines += [
        f"| {c.collection} | {c.rows} | {c.recall_at_100:.3f} | {c.filtered_fill:.3f} |"
        for c in manifest.collections
    ]
    lines += ["", "| metric | value |", "|---|---|"]
    lines += [f"| {name} | {value:.5g} |" for name, value in sorted(manifest.metrics.items())]
    return "\n".join([*lines, ""])


def _compare_retrieval(bench: Bench, candidate: Part, champion: Part) -> list[Paired]:
    ours, theirs = bench.retrieval(candidate).units, bench.retrieval(champion).units
    return [paired(name, ours[name], theirs[name]) for name in ours if name in theirs]


def _compare_rankers(bench: Bench, candidate: Part, champion: Part) -> list[Paired]:
    if bench.rows is None:
        raise ReleaseError(f"{bench.ctx.training_sets} holds no training set to score both rankers on")
    blocks, units = [], []
    for part in (candidate, champion):
        space = _space(part)
        stored = None if bench.rows.info.space == space else bench.stored(space)
        blocks.append(tested_rows(bench.ctx, bench.rows, space, stored))
        units.append(measure_ranker(load_ranker(bench.files(part)), blocks[-1]).units)
    if not same_rows(*blocks):
        raise ReleaseError("the test rows differ between the two spaces")
    ours, theirs = units
    return [paired(name, ours[name], theirs[name], larger_is_better=False) for name in ours if name in theirs]


def _metrics(bench: Bench, parts: Mapping[str, Part], checks: Sequence[CollectionCheck]) -> dict[str, float]:
    """Everything the gates read, as `<task>/<metric>[/<slice>]`."""
    out: dict[str, float] = {}
    if PINNERSAGE in parts and bench.held is not None:
        out |= bench.retrieval(parts[PINNERSAGE]).metrics
    if RANKER in parts:
        out |= {f"ranker/{name}": value for name, value in parts[RANKER].metrics.items()}
        out |= normalized_entropy(out)
    content = parts[CONTENT].metrics if CONTENT in parts else {}
    expected = content.get("pins", math.nan) * content.get("content_coverage", math.nan)
    for check in checks:
        out[f"index/rows/{check.space}"] = float(check.rows)
        out[f"index/coverage/{check.space}"] = check.rows / max(expected, 1.0)
    for role, part in parts.items():
        files = [f for f in bench.files(part).rglob("*") if f.is_file()]
        out[f"size/{role}"] = float(sum(f.stat().st_size for f in files))
    return {name: value for name, value in out.items() if math.isfinite(value)}


def _sources(lake: Lake, parts: Mapping[str, Part], skipped: dict[str, str]) -> tuple[str, ...]:
    """Candidate sources the data and parts allow, in funnel order; why others do not goes to `skipped`."""
    follows = lake.read("follows", ["topic_id", "board_id"]) if lake.has("follows") else None
    out = []
    if PINNERSAGE in parts:
        out.append("pinnersage")
    for source, column in (("followed_boards", "board_id"), ("followed_topics", "topic_id")):
        if follows is None:
            skipped[source] = "there is no follows table"
        elif not (follows[column] != PADDING_ID).any():  # the lake reads an absent id as padding
            skipped[source] = f"the follows table has no {column}"
        else:
            out.append(source)
    out.append("popular_by_topic")
    if CONTENT in parts:
        out.append("content_neighbours")
    return tuple(out)


def _interval(registry: Registry, parts: Mapping[str, Part]) -> tuple[datetime, datetime]:
    """From the first start to the last end of the data the parts were trained on."""
    tags = [registry.version(p.model, p.version).tags for p in parts.values()]
    return (
        min(datetime.fromisoformat(t["data_start"]) for t in tags),
        max(datetime.fromisoformat(t["data_end"]) for t in tags),
    )


def _newest_in(registry: Registry, model: str, space: str) -> int | None:
    """The model's newest version trained in `space`, or None."""
    versions = reversed(registry.versions(model))
    return next((v for v in versions if _tag(registry, model, v, "space") == space), None)


def _part(registry: Registry, model: str, version: int, space: str) -> Part:
    """A part trained in `space`; PinnerSage searches the space's collection, a ranker none."""
    searches = model == pinnersage_pipeline.MODEL
    return Part(
        model=model,
        version=version,
        space=space,
        collection=Space.parse(space).collection if searches else None,
        feature_service=_tag(registry, model, version, "feature_service"),
        metrics=registry.metrics(model, version),
    )


def _tag(registry: Registry, model: str, version: int, tag: str) -> str | None:
    return registry.version(model, version).tags.get(tag)


def _same(a: ReleaseManifest, b: ReleaseManifest) -> bool:
    """Whether two manifests name the same parts, data, sources, collections, code and evaluation."""
    said = ("git_commit", "dataset", "data_start", "data_end", "sources", "skipped", "evaluation")
    return (
        all(getattr(a, name) == getattr(b, name) for name in said)
        and {r: (p.model, p.version) for r, p in a.parts.items()}
        == {r: (p.model, p.version) for r, p in b.parts.items()}
        and {(c.collection, c.rows) for c in a.collections} == {(c.collection, c.rows) for c in b.collections}
    )


def _log_metrics(registry: Registry, run_id: str, metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric

    now = int(datetime.now(UTC).timestamp() * 1000)
    entries = [Metric(name.replace("@", "_at_"), value, now, 0) for name, value in metrics.items()]
    registry.client.log_batch(run_id, metrics=entries)


def _space(part: Part) -> str:
    if part.space is None:
        raise ReleaseError(f"{part.model}@{part.version} names no space")
    return part.space
