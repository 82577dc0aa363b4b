"""`corkboard`: what the native tools lack, as thin commands; every heavy import waits until it is needed."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from infra.commands import learning, measuring, releasing, running, tables
from infra.commands.state import State
from training.context import ignore_advice

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

datasets_app = typer.Typer(no_args_is_help=True, help="Make contract tables to start from.")
app.add_typer(datasets_app, name="datasets")

events_app = typer.Typer(no_args_is_help=True, help="What services logged, after it is in the tables.")
app.add_typer(events_app, name="events")

COMMANDS = (
    tables.ingest,
    learning.train,
    learning.retrain,
    learning.tune,
    releasing.release,
    releasing.promote,
    releasing.rollback,
    releasing.history,
    releasing.diff,
    releasing.gc,
    measuring.evaluate,
    measuring.calibration,
    measuring.replay,
    tables.forget,
    running.up,
    running.down,
    running.status,
    running.demo,
)
"""In the order of the help."""

for command in COMMANDS:
    app.command()(command)

events_app.command("replay")(tables.events_replay)
events_app.command("compact")(tables.events_compact)
datasets_app.command("world")(tables.datasets_world)
datasets_app.command("complete-journey")(tables.datasets_complete_journey)


@app.callback()
def root(
    context: typer.Context,
    home: Annotated[
        str, typer.Option("--home", envvar="CORKBOARD_HOME", help="Folder that holds all state.")
    ] = ".corkboard",
) -> None:
    """Shared options."""
    ignore_advice()
    context.obj = State(home)
