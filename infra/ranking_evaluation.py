"""What `corkboard evaluate --task ranking` does: fits rankers on this home's rows, shows and keeps the
table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from infra.console import console, live, say
from infra.evaluation import EvaluationError
from infra.home import Home

if TYPE_CHECKING:
    from training.context import Progress
    from training.data.training_set import TrainingSet
    from training.evaluation.ranking_report import RankingReport
    from training.transact.examples import Known


class RankingEvaluateConfig(BaseModel):
    """What to measure, and where to put it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[str, ...] | None = None
    """None: all."""
    k: int = Field(3, ge=1)
    """Places that HIT@K counts."""
    seeds: int = Field(1, ge=1)
    max_rows: int = Field(1_000_000, ge=1)
    """Newest training rows that are read, whole days: memory is about 1 KB a row."""
    utility: Path | None = None
    """File of utility weights; None: the data set's defaults."""
    json_file: Path | None = None
    figure: Path | None = None


def run(home: Home, config: RankingEvaluateConfig) -> RankingReport:
    """Measure, print the table, write the JSON and the reliability diagrams where asked for.

    Raises EvaluationError for a model that is not known and a home that has trained no ranker yet; the errors
    of the training set, the split and the weights name what they cannot use.
    """
    from training.evaluation.figure import check_format

    if config.figure is not None:
        check_format(config.figure)
    with live("evaluating rankers") as update:

        def progress(line: str) -> None:
            say(line)
            update(line)

        report = _measure(home, config, progress)
    console.print()
    console.print(report.table(), markup=False, soft_wrap=True)
    if config.json_file is not None:
        config.json_file.parent.mkdir(parents=True, exist_ok=True)
        config.json_file.write_text(report.to_json())
        say(f"everything measured: {config.json_file}")
    if config.figure is not None:
        from training.evaluation.calibration_metrics import draw

        best = max(report.rows, key=lambda row: sum(head.auc for head in row.heads))
        draw(best.calibration, config.figure)
        say(f"reliability of {best.model}: {config.figure}")
    return report


def _known(home: Home, rows: TrainingSet) -> Known | None:
    """What TransAct reads beside the rows; None where they compare no vectors."""
    from infra.jobs import context
    from training.pipelines.catalogues import catalogue_of, space_part
    from training.pipelines.transact import known_of
    from training.registry import Registry
    from training.transact.examples import PinTable
    from validation.lake import Lake

    if rows.info.space is None:
        return None
    ctx = context(home)
    pins = catalogue_of(ctx, space_part(Registry(ctx.mlflow_uri, ctx.mlflow_artifacts), rows.info.space))
    return known_of(Lake(home.lake), PinTable(pins.ids, pins.vectors), rows.info.end)


def _measure(home: Home, config: RankingEvaluateConfig, progress: Progress) -> RankingReport:
    from dataclasses import replace

    from training.data.training_set import INFO, TrainingSet
    from training.evaluation import ranking
    from training.evaluation.ranking_models import models
    from training.models.page_policy import read_policy
    from training.pipelines.pinnability import SET, newest, split_of

    rows = TrainingSet(home.training_sets / SET)
    if not (rows.path / INFO).exists():
        raise EvaluationError(f"{home.root} holds no ranker's training set yet; run `corkboard train`")
    weights = None if config.utility is None else read_policy(config.utility, rows.info.vocabulary)
    split = split_of(rows.info)
    split = replace(split, train=newest(rows, split.train, config.max_rows))
    data, left_out = ranking.RankingData.of(rows, split)
    known = models(data, _known(home, rows))
    unknown = [name for name in config.models or () if name not in known]
    if unknown or config.models == ():
        raise EvaluationError(
            f"no ranker {', '.join(map(repr, unknown)) or 'named'}; there are {', '.join(known)}"
        )
    return ranking.evaluate(
        data,
        {name: known[name] for name in config.models or known},
        seeds=range(config.seeds),
        k=config.k,
        weights=weights,
        skipped=left_out,
        progress=progress,
    )
