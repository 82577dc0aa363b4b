"""What every pipeline does around its learning: ask whether it was done, register it, name its part."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel

from training.context import TrainingContext
from training.model_log import ModelLog
from training.registry import LEARNED_UNTIL_TAG, WEIGHTS_TAG, Registry
from validation.manifest import Part, Space


def unchanged(ctx: TrainingContext, name: str, inputs: str, *, force: bool = False) -> int | None:
    """The newest version made from exactly `inputs` (a digest), said aloud; None where there is work to do."""
    version = None if force else Registry(ctx.mlflow_uri, ctx.mlflow_artifacts).find(name, inputs)
    if version is not None:
        ctx.progress(f"{name}: unchanged, {name}@{version}")
    return version


def register(ctx: TrainingContext, log: ModelLog, save: Callable[[Path], None]) -> int:
    """Register the version that `log` describes, its files written by `save`; the version's number."""
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "model"
        save(files)
        version = registry.log_model_version(replace(log, files=files))
    ctx.progress(f"{log.name}: registered {log.name}@{version}")
    return version


def space_part(registry: Registry, model: str, version: int, feature_service: str) -> Part:
    """The release part of a version that makes a space of its own."""
    space = Space(model=model, version=version)
    return Part(
        model=model,
        version=version,
        space=str(space),
        collection=space.collection,
        feature_service=feature_service,
        metrics=registry.metrics(model, version),
    )


@dataclass(frozen=True)
class Kept:
    """A version whose weights the next one keeps."""

    version: int
    learned_at: int
    """The version at which they were learned."""
    learned_until: datetime | None
    """The UTC time before which everything they were learned from lies."""

    @property
    def tags(self) -> dict[str, str]:
        """How the next version says so."""
        until = {} if self.learned_until is None else {LEARNED_UNTIL_TAG: self.learned_until.isoformat()}
        return {WEIGHTS_TAG: str(self.learned_at)} | until


def kept_weights(registry: Registry, model: str, space: Part, *, tag: str = "content_space") -> Kept | None:
    """The newest version, where `space` has the weights of the space that its `tag` names; else None."""
    version = registry.latest(model)
    if version is None:
        return None
    named = registry.version(model, version).tags.get(tag)
    if named is None:  # a version from before its model stood on such a space
        return None
    read = Space.parse(named)
    if (read.model, registry.weights_of(read.model, read.version)) != (
        space.model,
        registry.weights_of(space.model, space.version),
    ):
        return None
    return Kept(version, registry.weights_of(model, version), registry.learned_until(model, version))


def flat_params(config: BaseModel) -> dict[str, object]:
    """Every setting as `group.name`, for the registry; an empty group as `{}` under its own name."""
    out: dict[str, object] = {}

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, dict) and (value or not prefix):
            for name, inner in value.items():
                walk(f"{prefix}.{name}" if prefix else name, inner)
        else:
            out[prefix] = value

    walk("", config.model_dump(mode="json"))
    return out
