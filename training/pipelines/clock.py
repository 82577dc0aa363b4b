"""When a training run ends: the moment everything in it is as of."""

from __future__ import annotations

from datetime import UTC, datetime

from training.context import TrainingContext
from training.data.splits import midnight
from validation.lake import Lake


class NoWholeDay(ValueError):
    """The lake's actions all lie in a day that is not over yet."""


def run_end(ctx: TrainingContext) -> datetime:
    """The UTC midnight that the run knows everything before, and nothing after.

    `ctx.as_of`, else the end of the lake's actions, but never past the last midnight: features count whole
    days, and rows that are true only from tomorrow on would shadow what users do today.

    Raises ValueError for an `as_of` that is no UTC midnight, NoWholeDay where no action lies before the end.
    """
    start, end = Lake(ctx.lake).interval()
    if ctx.as_of is not None:
        if ctx.as_of.tzinfo is None or midnight(ctx.as_of) != ctx.as_of:
            raise ValueError(f"as_of must be a UTC midnight, it is {ctx.as_of}")
        end = ctx.as_of.astimezone(UTC)
    end = min(end, midnight(datetime.now(UTC)))
    if end <= start:
        raise NoWholeDay(f"the actions start on {start:%Y-%m-%d}, which is not over yet (UTC); train tomorrow")
    return end


def run_interval(ctx: TrainingContext) -> tuple[datetime, datetime]:
    """From the lake's first action day to `run_end`, UTC, the end exclusive."""
    return Lake(ctx.lake).interval()[0], run_end(ctx)
