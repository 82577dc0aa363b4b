"""Retention: what releases that nobody can go back to have left behind, cleared away.

Kept are the releases that an alias or the ledger's last line names, those that running services hold (their
leases, `validation.lease`), and the newest `RetentionConfig.releases`; with them every model version they name,
what an alias names, and the newest of each model, which a training run may be at work on. Everything else of a
model that releases are made of goes, and what lives in its space: collection, vectors, replica, nightly tables.

Recovery: nothing is noted down. Each run looks at what is there and clears what is not kept, so one that was
killed is finished by the next. Collections go first, and a version counts as gone before its files are, so that
what is half cleared can be neither promoted nor rolled back to. The ledger's lock is held throughout: no alias
moves meanwhile. Manifests, the ledger and what MLflow tells of a version stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from training.context import TrainingContext
from training.ledger import Ledger
from training.leftovers import Leftover, leftovers
from training.pipelines import ads, light, pinnersage, pixie
from training.pipelines.search_space import PIN_SPACE_TAG
from training.pipelines.transact_card import USER_SPACE_TAG
from training.registry import Registry
from training.release import load_manifest
from training.release_parts import LEXICAL, MAKERS, RANKERS, registry_of
from validation.lease import leased, leases_of
from validation.manifest import RELEASE_MODEL, Frozen, Space

MODELS = (
    *(*MAKERS, *RANKERS, LEXICAL),
    *(pixie.MODEL, pinnersage.MODEL, light.MODEL, ads.MODEL),
)
"""Models whose old versions go; others on the same MLflow are none of ours."""


class RetentionConfig(Frozen):
    """What is kept beside what is in use."""

    releases: int = Field(3, ge=1)
    """Newest releases, promoted or not."""


@dataclass(frozen=True)
class Kept:
    """What stays, and why."""

    releases: Mapping[int, str]
    """Release version -> why."""
    versions: frozenset[tuple[str, int]]
    """(model, version) whose files stay."""
    newest: Mapping[str, int]
    """The newest version of each model: what is younger than that is being made."""

    def space(self, space: Space) -> bool:
        """Whether a space stays: one of a model that is not ours always does."""
        name = space.model
        return name not in MAKERS or self.version(name, space.version)

    def version(self, model: str, version: int) -> bool:
        """Whether a version of one of `MODELS` stays."""
        return (model, version) in self.versions or version >= self.newest.get(model, 0)


@dataclass(frozen=True)
class Collected:
    """What a run kept, and what it cleared or would clear."""

    kept: Kept
    cleared: tuple[Leftover, ...]

    @property
    def bytes(self) -> int:
        return sum(leftover.bytes for leftover in self.cleared)


def collect(
    ctx: TrainingContext, ledger: Path, config: RetentionConfig | None = None, *, dry_run: bool = False
) -> Collected:
    """Clear away what is not kept; with `dry_run` only say what would go.

    Raises MilvusUnreachable, LedgerBroken; what is not cleared by then is left to the next run.
    """
    book = Ledger(ledger)
    with book.lock():
        kept = kept_of(ctx, book, config or RetentionConfig())
        found = tuple(leftovers(ctx, kept, MODELS))
        if not dry_run:
            for leftover in found:
                ctx.progress(f"clearing {leftover.kind} {leftover.name}")
                leftover.drop()
    return Collected(kept, found)


def kept_of(ctx: TrainingContext, ledger: Ledger, config: RetentionConfig) -> Kept:
    """What stays; hold the ledger's lock."""
    registry = registry_of(ctx)
    releases = _releases(ctx, registry, ledger, config)
    manifests = [load_manifest(ctx, version) for version in releases]
    versions = {(part.model, part.version) for said in manifests for part in said.parts.values()}
    newest = {}
    for model in MODELS:
        if (latest := registry.latest(model)) is not None:
            newest[model] = latest
        versions |= {(model, version) for version in registry.aliases(model).values()}
    versions |= set(newest.items())
    return Kept(releases, frozenset(versions | _stood_on(registry, versions)), newest)


def _releases(
    ctx: TrainingContext, registry: Registry, ledger: Ledger, config: RetentionConfig
) -> dict[int, str]:
    """Releases that stay, with why; the weightiest reason is said."""
    known = registry.versions(RELEASE_MODEL)
    why = {version: f"one of the newest {config.releases}" for version in known[-config.releases :]}
    why |= {
        version: f"held by {service}" for version, service in leased(leases_of(Path(ctx.feast_home))).items()
    }
    if (last := ledger.last()) is not None:
        said = {"before the last move": last.replaced, "previous": last.previous, "champion": last.champion}
        why |= {version: reason for reason, version in said.items() if version is not None}
    why |= {version: alias for alias, version in sorted(registry.aliases(RELEASE_MODEL).items(), reverse=True)}
    return {version: why[version] for version in sorted(why) if version in known}


def _stood_on(registry: Registry, versions: set[tuple[str, int]]) -> set[tuple[str, int]]:
    """The versions whose spaces these stand on, as their tags name them, and those that they stand on."""
    found: set[tuple[str, int]] = set()
    asked = set(versions)
    while asked:
        spaces = {space for model, version in asked for space in _spaces(registry, model, version)}
        asked = {(space.model, space.version) for space in spaces} - found - versions
        found |= asked
    return found


def _spaces(registry: Registry, model: str, version: int) -> Iterator[Space]:
    try:
        tags = registry.version(model, version).tags
    except KeyError:  # deleted by hand
        return
    for tag in ("space", "content_space", PIN_SPACE_TAG, USER_SPACE_TAG):
        if tags.get(tag):
            yield Space.parse(tags[tag])
