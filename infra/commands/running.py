"""Commands on this home's processes, and the whole job at once."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from infra.commands.state import Seed, named_errors
from infra.commands.tables import Size


class Data(StrEnum):
    """What `demo` can run on."""

    WORLD = "demo-world"
    COMPLETE_JOURNEY = "complete-journey"


def up(
    context: typer.Context,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Also MLflow's own pages.")] = False,
) -> None:
    """Start this home's services and say where they are."""
    from infra import jobs

    with named_errors():
        jobs.up(context.obj.home, with_mlflow=mlflow)


def down(context: typer.Context) -> None:
    """Stop what `up` or `demo` started in this home."""
    from infra import jobs

    with named_errors():
        jobs.down(context.obj.as_it_is)


def status(context: typer.Context) -> None:
    """Show the lake, the releases and the processes of this home."""
    from infra import jobs

    with named_errors():
        jobs.status(context.obj.home)


def demo(
    context: typer.Context,
    data: Annotated[Data, typer.Option(help="What to run on.")] = Data.WORLD,
    size: Annotated[Size, typer.Option(help="Size of the demo world.")] = Size.DEMO,
    seed: Seed = 0,
) -> None:
    """The whole job: data, ingest, train, release, promote, services up. Resumes where it stopped."""
    from infra import jobs

    with named_errors():
        jobs.demo(context.obj.home, data=data.value, size=size.value, seed=seed)
