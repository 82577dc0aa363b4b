"""What the learned retrievers (PinnerFormer, DCM, conditional retrieval, two-tower) share as pipelines.

Each reads the content space and makes a space of its own. Weights are learned before the days that releases
test on; what a version reaches on those days, measured as a release will measure it, says whether it is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from pydantic import BaseModel

from feature_repo.schema import (
    CONDITIONAL_SERVICE,
    DCM_SERVICE,
    PINNERFORMER_SERVICE,
    TWO_TOWER_SERVICE,
)
from training.context import TrainingContext
from training.cpu import tune_cpu
from training.digests import digest_files, digest_of
from training.evaluation.histories import Histories
from training.evaluation.measured import measure_baselines, measured
from training.evaluation.retrieval import EVALUATED_USERS, hold_out_last
from training.evaluation.served import AtCut, Served
from training.model_log import FLAVOURS, Dataset, ModelLog, pinned
from training.models import weights as weights_module
from training.models.interactions import Pins
from training.pipelines.clock import run_end
from training.pipelines.content import content_part, content_space_of, load_catalogue
from training.pipelines.figures import recall_by_length
from training.pipelines.registering import flat_params, kept_weights, register, space_part, unchanged
from training.registry import LEARNED_UNTIL_TAG, Registry
from validation.gate_bounds import GateBounds
from validation.gates import recall_floors
from validation.lake import Lake
from validation.manifest import Part, Space

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.models import ModelSignature

    from training.models.interests import InterestNetwork
    from training.models.pinnerformer import PinnerFormer
    from training.models.two_tower import TwoTower

    Savable = InterestNetwork | PinnerFormer | TwoTower

Network = TypeVar("Network", bound="Savable")


PINNERFORMER, DCM, CONDITIONAL, TWO_TOWER = "pinnerformer", "dcm", "conditional", "two_tower"

SERVICES = {
    PINNERFORMER: PINNERFORMER_SERVICE,
    DCM: DCM_SERVICE,
    CONDITIONAL: CONDITIONAL_SERVICE,
    TWO_TOWER: TWO_TOWER_SERVICE,
}
"""Feature service of each learned retriever."""

LEARNED = tuple(SERVICES)
"""Registered names of the learned retrievers, in funnel order; also their roles in a release."""


POPULARITY_Z = 2.33
"""Standard errors of recall that a source may lie below popularity: one-sided, 1 %."""


class NothingServed(ValueError):
    """On the held-out days the retriever serves nobody, so nothing says whether it finds anything."""


@dataclass(frozen=True)
class Recipe(Generic[Network]):
    """What tells one learned retriever's pipeline from another's."""

    model: str
    """One of LEARNED."""
    flavour: str
    """Name of its script in training/flavours."""
    description: str
    tables: tuple[str, ...]
    """What a version is made from, beside the content space."""
    code: tuple[Path, ...]
    held_out_days: int | None
    config: BaseModel
    learn: Callable[[Pins, AtCut, Path], tuple[Network, dict[str, float]]]
    """(catalogue in the content space, what was known at the cut, folder of checkpoints) -> the network,
    learned from before the cut alone, and metrics of its own."""
    load: Callable[[Path], Network]
    serve: Callable[[Network, AtCut], Served]
    signature: Callable[[Network], ModelSignature]
    figures: Callable[[Mapping[str, float]], Mapping[str, Figure]] = lambda metrics: {}
    """Figures of what `learn` measured, by name."""
    notes: str = ""


def train_retriever(
    ctx: TrainingContext, content: Part, recipe: Recipe[Network], *, force: bool = False
) -> Part:
    """Learn, measure and register one version; the part whose space is `<model>@<version>`.

    The version already made from the same tables, content version, configuration and code is returned as it
    is, unless `force`; a run that was cut short goes on from its last checkpoint. With `ctx.keep_weights`,
    where `content` has the weights that the newest version was learned on, nothing is learned: the next version
    has the same weights, and every pin there is by now. Raises NothingHeldOut where no day can be held out,
    NothingServed, what `recipe.learn` raises, and LakeError where pins or actions are missing.
    """
    lake, registry = Lake(ctx.lake), Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    name, end = recipe.model, run_end(ctx)
    kept = kept_weights(registry, name, content) if ctx.keep_weights else None
    data = lake.digest(recipe.tables)
    config = recipe.config.model_dump_json() if kept is None else kept.learned_at
    code = digest_files((*recipe.code, Path(weights_module.__file__), Path(__file__)))
    inputs = digest_of(name, data, end, content.space, config, code)
    if version := unchanged(ctx, name, inputs, force=force):
        return retriever_part(registry, name, version)
    tune_cpu()
    since = None if kept is None else kept.learned_until
    held = hold_out_last(lake, end, recipe.held_out_days, since=since).sample(EVALUATED_USERS, ctx.seed)
    pins = load_catalogue(ctx, content)
    at = AtCut.read(lake, pins, Histories.before(lake, held))
    if kept is None:
        network, metrics = recipe.learn(pins, at, ctx.training_sets / f"{name}-{inputs}")
        tags, figures = {LEARNED_UNTIL_TAG: held.cut.isoformat()}, recipe.figures(metrics)
    else:
        ctx.progress(f"{name}: {len(pins.ids)} pins by the weights of {name}@{kept.learned_at}")
        network = recipe.load(registry.download(name, kept.version))
        metrics, tags, figures = {}, kept.tags, {}
    served = recipe.serve(network, at)
    if not len(served.held):
        raise NothingServed(f"{name} serves none of the {len(held)} users of the held-out days")
    found = measured(name, served.recommended, served.held).metrics
    metrics |= found | measure_baselines(lake, at.past)
    ctx.progress(
        f"{name}: recall@100 {found[f'{name}/recall_at_100']:.3f} of {len(served.held)} users from "
        f"{held.cut:%Y-%m-%d} (popularity {metrics['popularity/recall_at_100']:.3f})"
    )
    log = ModelLog(
        name=name,
        flavour=FLAVOURS / f"{recipe.flavour}.py",
        description=recipe.description,
        params=flat_params(recipe.config) | {"content_space": content.space},
        metrics=metrics,
        interval=(lake.interval()[0], end),
        datasets=(Dataset(", ".join(recipe.tables), str(ctx.lake), data),),
        signature=recipe.signature(network),
        figures={**figures, "recall": recall_by_length(metrics, name)},
        requirements=pinned("numba", "numpy", "pandas", "pydantic", "safetensors", "torch"),
        inputs=inputs,
        tags={"feature_service": SERVICES[name], "content_space": content.space or ""} | tags,
        notes=f"Weights are learned before {tags.get(LEARNED_UNTIL_TAG)}, metrics are of the days from "
        f"{held.cut:%Y-%m-%d} on. {recipe.notes}" + lake.contract().notes,
    )
    return retriever_part(registry, name, register(ctx, log, network.save))


def shortfall(part: Part) -> str | None:
    """Why a version of a learned retriever is not to be served; None where it is.

    It is where, on the days held out from it, it clears the floors that the gates hold a release to and, beyond
    the spread over users, finds no less than popularity. On few actions a model may learn nothing that does:
    then the release does without it.
    """
    failed = [r.message for r in recall_floors(part.model, part.metrics, GateBounds()) if not r.passed]
    name = f"{part.model}/recall_at_100"
    popular = part.metrics.get("popularity/recall_at_100", 0.0)
    spread = POPULARITY_Z * part.metrics.get(f"{part.model}/recall_error_at_100", 0.0)
    if part.metrics.get(name, 0.0) + spread < popular:
        failed.append(f"{name}: {part.metrics.get(name, 0.0):.4g} is below popularity's {popular:.4g}")
    if not failed:
        return None
    return f"{part.model}@{part.version} learned too little from this data: " + "; ".join(failed)


def retriever_part(registry: Registry, model: str, version: int) -> Part:
    """The release part of one version of a learned retriever."""
    return space_part(registry, model, version, SERVICES[model])


def content_of(ctx: TrainingContext, part: Part) -> Pins:
    """The catalogue in the content space that the part's version reads."""
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    reads = Space.parse(content_space_of(registry, part))
    return load_catalogue(ctx, content_part(registry, reads.version))
