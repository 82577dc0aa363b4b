"""Commands that learn: models, and their settings."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from infra.commands.state import Seed, named_errors


class Tunable(StrEnum):
    """What `tune` can choose settings of: steps of `train`."""

    ADS = "ads_multi_tower"


def train(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Only these steps (repeatable); a name that is none lists them."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run steps whose inputs have not changed.")] = False,
    keep_weights: Annotated[
        bool,
        typer.Option(
            "--keep-weights",
            help="Content, PinSage, SearchSage, the learned retrievers and TransAct keep their weights:"
            " new pins and active users get vectors, nothing is learned but how TransAct is calibrated.",
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
    seed: Seed = 0,
) -> None:
    """Build features, train every model the tables allow, register them in MLflow, fill Milvus and Feast."""
    from infra import jobs

    with named_errors():
        jobs.train(
            context.obj.home,
            models=models,
            force=force,
            keep_weights=keep_weights,
            warm_start=warm_start,
            lanes=lanes,
            seed=seed,
        )


def retrain(
    context: typer.Context,
    promote: Annotated[
        bool, typer.Option("--promote", help="Put the release through its gates and make it the champion.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Take in the event log, let TransAct learn on from its newest version, compose a release: twice a week.

    Everything else keeps the version it has (`train --keep-weights` brings in new pins). Run again after it was
    cut short, it finishes. Where nothing new was learned since the champion, or since a release that was rolled
    back, nothing is released.
    """
    from infra import retraining

    with named_errors():
        retraining.retrain(context.obj.home, promote=promote, seed=seed)


def tune(
    context: typer.Context,
    model: Annotated[Tunable, typer.Argument(help="What is tuned.")],
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all, earlier runs included.")] = None,
    budget_minutes: Annotated[
        float | None, typer.Option("--budget-minutes", min=0.1, help="Stop after so long.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Choose a model's transforms and sizes on the rows of the last `train`; the next `train` uses them.

    Give `--trials`, `--budget-minutes` or both. A search that was cut short goes on where it stopped.
    """
    if trials is None and budget_minutes is None:
        raise typer.BadParameter("give --trials or --budget-minutes")
    from infra import jobs

    with named_errors():
        jobs.tune(context.obj.home, model.value, trials=trials, minutes=budget_minutes, seed=seed)
