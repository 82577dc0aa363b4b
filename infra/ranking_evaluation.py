"""What `corkboard evaluate --task ranking` does: fits rankers on this home's rows, shows and keeps the
table."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from infra.console import console, live, say
from infra.evaluation import EvaluationError
from infra.home import Home

if TYPE_CHECKING:
    from training.context import Progress
    from training.data.training_set_facts import TrainingSetInfo
    from training.evaluation.diversity_curve import Trade
    from training.evaluation.ranking_report import RankingReport
    from training.models.interactions import Pins
    from training.models.page_policy import PagePolicy
    from training.transact.examples import Known


class RankingEvaluateConfig(BaseModel):
    """What to measure, and where to put it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[str, ...] | None = None
    """None: all."""
    k: int = Field(3, ge=1)
    """Places that HIT@K counts."""
    days: int | None = Field(None, ge=1)
    """Newest days that test, as many before them validating; None: as `train` splits."""
    seeds: int = Field(1, ge=1)
    max_rows: int = Field(1_000_000, ge=1)
    """Newest training rows that are read, whole days: memory is about 1 KB a row."""
    utility: Path | None = None
    """File of utility weights; None: the data set's defaults."""
    against: str | None = None
    """The model that the others' AUC is compared with, user by user."""
    json_file: Path | None = None
    figure: Path | None = None
    trade: Path | None = None
    """Picture of utility against variety."""
    card: bool = False
    """Put the table into the card of TransAct's newest version."""


def run(home: Home, config: RankingEvaluateConfig) -> RankingReport:
    """Measure, print the table, write the JSON and the reliability diagrams where asked for.

    Raises EvaluationError for a model that is not known, for a card without a TransAct to write it in and for
    a home that has trained no ranker yet; the errors of the training set, the split and the weights name what
    they cannot use.
    """
    from training.evaluation.figure import check_format

    for picture in (config.figure, config.trade):
        if picture is not None:
            check_format(picture)
    put = card_of(home) if config.card else None
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
    if put is not None:
        said = "Every ranker fitted anew on the same rows, by `corkboard evaluate --task ranking`."
        put("Against other rankers", f"{said}\n\n```\n{report.table()}\n```")
    _draw(report, config)
    return report


def card_of(home: Home) -> Callable[[str, str], None]:
    """What puts a section, by title and Markdown, into the card of the newest TransAct.

    Raises EvaluationError where there is none.
    """
    from infra.jobs import context
    from training.pipelines.transact_card import MODEL
    from training.registry import Registry

    ctx = context(home)
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    version = registry.trained(MODEL)
    if version is None:
        raise EvaluationError(f"--card: {home.root} holds no {MODEL}; run `corkboard train -m {MODEL}`")

    def put(title: str, text: str) -> None:
        registry.add_to_card(MODEL, version, title, text)
        say(f"the table is in the card of {MODEL}@{version}")

    return put


def _draw(report: RankingReport, config: RankingEvaluateConfig) -> None:
    """The pictures asked for, of the best ranker. Raises EvaluationError where pages are too short for one."""
    from training.evaluation import calibration_metrics, diversity_curve

    best = max(report.rows, key=lambda row: sum(head.auc for head in row.heads))
    if config.figure is not None:
        calibration_metrics.draw(best.calibration, config.figure)
        say(f"reliability of {best.model}: {config.figure}")
    if config.trade is not None:
        if not best.trade:
            raise EvaluationError(
                "--trade: no request of the test days showed more pins than a page has; there is no trade"
            )
        console.print(f"\nutility against variety, pages ordered by {best.model}")
        console.print(diversity_curve.text(best.trade), markup=False)
        diversity_curve.draw(best.trade, config.trade)
        say(f"utility against variety: {config.trade}")


def _trade(home: Home, space: str | None, policy: PagePolicy | None) -> Trade:
    """Pages compared in `space`, the rows' own. Raises EvaluationError where the rows compare no vectors."""
    from training.evaluation.diversity_curve import Trade
    from training.models.diversity import DiversityConfig

    if space is None:
        raise EvaluationError("--trade: these rows compare no vectors; train the content space first")
    return Trade(_catalogue(home, space), config=policy.diversity if policy else DiversityConfig())


def _catalogue(home: Home, space: str) -> Pins:
    """Every pin of the lake in `space`."""
    from infra.jobs import context
    from training.pipelines.catalogues import catalogue_of, space_part
    from training.registry import Registry

    ctx = context(home)
    return catalogue_of(ctx, space_part(Registry(ctx.mlflow_uri, ctx.mlflow_artifacts), space))


def _known(home: Home, info: TrainingSetInfo) -> Known:
    """What TransAct reads beside the rows, whose vectors are of `info.space`."""
    from training.pipelines.transact import known_of
    from training.transact.examples import PinTable
    from validation.lake import Lake

    pins = _catalogue(home, str(info.space))
    return known_of(Lake(home.lake), PinTable(pins.ids, pins.vectors), info.end)


def _measure(home: Home, config: RankingEvaluateConfig, progress: Progress) -> RankingReport:
    from dataclasses import replace

    from training.data.splits import DAY, time_split
    from training.data.training_set import INFO, TrainingSet
    from training.evaluation import ranking
    from training.evaluation.ranking_models import models
    from training.models.page_policy import read_policy
    from training.pipelines.pinnability import SET, newest, split_of

    rows = TrainingSet(home.training_sets / SET)
    if not (rows.path / INFO).exists():
        raise EvaluationError(f"{home.root} holds no ranker's training set yet; run `corkboard train`")
    weights = None if config.utility is None else read_policy(config.utility, rows.info.vocabulary)
    info, length = rows.info, (config.days or 1) * DAY
    split = time_split(info.start, info.end, validation=length, test=length) if config.days else split_of(info)
    split = replace(split, train=newest(rows, split.train, config.max_rows))
    data, left_out = ranking.RankingData.of(rows, split)
    known = models(data, None if rows.info.space is None else cache(partial(_known, home, rows.info)))
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
        trade=_trade(home, rows.info.space, weights) if config.trade else None,
        against=config.against,
        skipped=left_out,
        progress=progress,
    )
