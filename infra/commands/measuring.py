"""Commands that measure: models on held-out actions, served probabilities, training against serving."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from infra.commands.state import named_errors


class Task(StrEnum):
    """What `evaluate` measures."""

    RETRIEVAL = "retrieval"
    RANKING = "ranking"
    SEARCH = "search"


class Protocol(StrEnum):
    """How `evaluate` holds out."""

    LEAVE_ONE_OUT = "leave-one-out"
    TEMPORAL = "temporal"


def evaluate(
    context: typer.Context,
    task: Annotated[
        Task,
        typer.Option(help="What finds pins, what ranks those found (`train`'s rows), or what answers queries."),
    ] = Task.RETRIEVAL,
    protocol: Annotated[
        Protocol,
        typer.Option(help="Hold out each user's newest pin, or everything after a cut in time."),
    ] = Protocol.TEMPORAL,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            "-m",
            help="popularity, itemknn, rp3beta, ease, ials, sasrec, pixie, pinnerformer; temporal also"
            " pinnersage, pinsage (PinnerSage in its space), dcm, single, mind, conditional, two_tower,"
            " popular_by_topic (the feed's own), and blended, which mixes the sources named at equal budget;"
            " ranking transact, pinnability_logistic, pinnability_gbdt and both without positions;"
            " search popularity, bm25, off_the_shelf, content_two_tower, searchsage, hybrid, and in_batch"
            " (without random negatives and log Q)."
            " Repeatable, or with commas; all that the data allows if left out, but for in_batch.",
        ),
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(help="Leave-one-out: also rank only the pins this file names for each user."),
    ] = None,
    interactions: Annotated[
        Path | None,
        typer.Option(
            help="Leave-one-out: evaluate this file of user_id, pin_id, timestamp (Parquet, CSV, tabs) instead"
            " of the home's lake; every row counts as liked."
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Names of the columns of an --interactions file without a header, with commas."),
    ] = None,
    k: Annotated[
        int | None, typer.Option(min=1, help="Length of the list; leave-one-out 10, ranking 3.")
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(help="Temporal: length of the list; 100. Repeatable, or with commas."),
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=3650,
            help="Temporal: days held out before the lake's end. If left out 1, or 2, 4, 7 where fewer hold too"
            " few users. Ranking: newest days that test, as many before them validating.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds that models with randomness are fitted under.")] = 3,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="Ranking: newest training rows, whole days; 1,000,000.")
    ] = None,
    utility: Annotated[
        Path | None, typer.Option(help="Ranking: file of utility weights that order a request's pins.")
    ] = None,
    trade: Annotated[
        Path | None,
        typer.Option(
            help="Ranking: draw what variety costs in utility, theta by theta, to this file (.png, .svg, .pdf)."
        ),
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Ranking: put the table into the card of TransAct's newest version.")
    ] = False,
    max_users: Annotated[int | None, typer.Option(min=1, help="Evaluate a sample of so many users.")] = None,
    against: Annotated[
        str | None, typer.Option(help="Compare every model with this one, user by user.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write everything measured to this file.")] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw the table, and recall by length of list, to this file (.png, .svg or .pdf)."),
    ] = None,
) -> None:
    """Measure models on held-out actions of this home's lake, in one table with its spreads."""
    from infra import evaluation, ranking_evaluation, search_evaluation

    with named_errors():
        if task is Task.RANKING:
            given = {"candidates": candidates, "interactions": interactions, "columns": columns, "at": at}
            given |= {"max-users": max_users}
            evaluation.refuse_foreign("--task ranking", given)
            ranking_evaluation.run(
                context.obj.home,
                ranking_evaluation.RankingEvaluateConfig(
                    models=_listed(models),
                    k=k or 3,
                    days=days,
                    seeds=seeds,
                    max_rows=max_rows or 1_000_000,
                    utility=utility,
                    against=against,
                    json_file=json,
                    figure=figure,
                    trade=trade,
                    card=card,
                ),
            )
            return
        foreign = {"max-rows": max_rows, "utility": utility, "trade": trade, "card": card or None}
        if task is Task.SEARCH:
            given = {"candidates": candidates, "interactions": interactions, "columns": columns, "at": at}
            evaluation.refuse_foreign("--task search", foreign | given | {"k": k, "max-users": max_users})
            search_evaluation.run(
                context.obj.home,
                search_evaluation.SearchEvaluateConfig(
                    models=_listed(models),
                    days=days,
                    seeds=seeds,
                    against=against,
                    json_file=json,
                    figure=figure,
                ),
            )
            return
        evaluation.refuse_foreign("--task retrieval", foreign)
        config = evaluation.EvaluateConfig(
            protocol=protocol.value,
            models=_listed(models),
            candidates=candidates,
            interactions=interactions,
            columns=None if columns is None else tuple(name.strip() for name in columns.split(",")),
            k=k,
            at=evaluation.lengths(_listed(at)),
            days=days,
            seeds=seeds,
            max_users=max_users,
            against=against,
            json_file=json,
            figure=figure,
        )
        evaluation.run(context.obj.home, config)


def _listed(values: list[str] | None) -> tuple[str, ...] | None:
    """Repeated options and commas alike, in order; None where there were none."""
    if values is None:
        return None
    return tuple(dict.fromkeys(part.strip() for value in values for part in value.split(",") if part.strip()))


def calibration(
    context: typer.Context,
    days: Annotated[float, typer.Option(min=0.01, help="Newest days of the event log.")] = 7.0,
    within_hours: Annotated[
        float, typer.Option(min=0.001, help="How long after an impression an action still answers it.")
    ] = 24.0,
    json: Annotated[Path | None, typer.Option("--json", help="Write every number to this file.")] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw the newest ranker's reliability to this file (.png, .svg, .pdf)."),
    ] = None,
) -> None:
    """Hold the probabilities that were served against what people did, by head and slice."""
    from infra import calibration as report

    with named_errors():
        config = report.CalibrationReportConfig(
            days=days, within_hours=within_hours, json_file=json, figure=figure
        )
        report.run(context.obj.home, config)


def replay(
    context: typer.Context,
    since: Annotated[
        datetime | None, typer.Option(help="Requests from then on, UTC; all that are logged if left out.")
    ] = None,
    max_requests: Annotated[int, typer.Option(min=1, help="The newest so many requests.")] = 2000,
    least: Annotated[
        float, typer.Option(min=0, max=1, help="Exit 1 where less of any feature or score agrees.")
    ] = 0.999,
    tolerance: Annotated[float, typer.Option(min=0, help="Of features, absolute and relative.")] = 1e-5,
    score_tolerance: Annotated[float, typer.Option(min=0, help="Of probabilities, absolute.")] = 1e-3,
    json: Annotated[Path | None, typer.Option("--json", help="Write every number to this file.")] = None,
) -> None:
    """Rank logged requests again from Feast's history and the registry: does training see what serving saw?

    Services log a share of what they rank (CORKBOARD_RANKINGS_RATE, 0.01). Every feature and score is
    compared, row by row; exit code 1 names those that do not agree.
    """
    with named_errors():
        from infra import replay as report
        from training.replay import ReplayConfig

        config = ReplayConfig(
            since=None if since is None else since.replace(tzinfo=UTC),
            max_requests=max_requests,
            tolerance=tolerance,
            score_tolerance=score_tolerance,
        )
        if not report.run(context.obj.home, config, least=least, json_file=json):
            raise typer.Exit(1)
