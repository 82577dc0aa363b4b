"""What `corkboard evaluate --task search` does: asks held-out and judged queries of this home's pins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from infra.console import live, say
from infra.evaluation import EvaluationError, check_writable, sentences_of, show
from infra.home import Home

if TYPE_CHECKING:
    from training.context import Progress
    from training.evaluation.report import Report


class SearchEvaluateConfig(BaseModel):
    """What to measure, and where to put it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[str, ...] | None = None
    """None: all but other recipes of the loss, each of which is a training of its own."""
    days: int | None = Field(None, ge=1)
    """Days held out before the lake's end; None: a week at most."""
    seeds: int = Field(3, ge=1)
    against: str | None = None
    json_file: Path | None = None
    figure: Path | None = None


def run(home: Home, config: SearchEvaluateConfig) -> Report:
    """Measure, print the table, write the JSON and the figure where asked for.

    Raises EvaluationError for a model that is not known, LakeError for a home without tables, ReleaseError
    where no pin space is trained yet; errors of the pairs name what is missing.
    """
    check_writable(config.json_file, config.figure)
    with live("evaluating search") as update:

        def progress(line: str) -> None:
            say(line)
            update(line)

        report = _measure(home, config, progress)
    show(report, config.model_dump(mode="json"), config.json_file, config.figure)
    return report


def _measure(home: Home, config: SearchEvaluateConfig, progress: Progress) -> Report:
    from dataclasses import replace

    from infra.jobs import context
    from training.cpu import tune_cpu
    from training.evaluation import search
    from training.evaluation.search_models import RECIPES, models
    from training.pipelines.content import load_catalogue, load_encoder
    from training.pipelines.search_world import SearchWorld
    from training.pipelines.searchsage import configured
    from training.registry import Registry
    from training.release_parts import similar_pins
    from validation.lake import Lake

    lake, ctx = Lake(home.lake), replace(context(home), progress=progress)
    lake.contract()
    searchsage = configured(ctx).model_copy(update={"held_out_days": config.days})
    known = models(searchsage, progress)
    asked = config.models or tuple(name for name in known if name not in RECIPES)
    unknown = [name for name in asked if name not in known]
    if unknown or config.models == ():
        raise EvaluationError(
            f"no model {', '.join(map(repr, unknown)) or 'named'}; search has {', '.join(known)}"
        )
    if config.against is not None and config.against not in asked:
        raise EvaluationError(f"--against {config.against}: it is not among {', '.join(asked)}")
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    content, space = similar_pins(registry)
    tune_cpu()
    world = SearchWorld.read(ctx, space, searchsage)
    report = search.evaluate(
        search.Known(
            world,
            load_catalogue(ctx, content),
            load_encoder(ctx, registry, content.version),
            sentences_of(home, progress),
        ),
        {name: known[name] for name in asked},
        seeds=range(config.seeds),
        against=config.against,
        progress=progress,
    )
    return replace(report, facts={"data": lake.contract().name, "space": space.space, **report.facts})
