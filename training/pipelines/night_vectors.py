"""PinnerFormer's vectors for rows of a ranker's training set, such that no vector knows its row.

A vector knows a row in two ways: it was made after it, or its network learned from the row's label. So each row
reads the vector of its day's midnight, as serving reads last night's, and only where the network's
`learned_until` lies at or before the first row. PinnerFormer learns up to the days that releases test on, so
with default settings a fresh one never does, and the ranker goes without. It does once weights were kept for
as long as the ranker's rows reach back (`--keep-weights`), with `PinnerFormerPipeline.held_out_days` as long as
that, or where the ranker leaves out the rows before (`TransActPipeline.rows_after_user_vectors`).
"""

from __future__ import annotations

from datetime import datetime

import numpy as np

from training.context import TrainingContext
from training.data.splits import Interval
from training.pipelines import retrievers
from training.pipelines.pinnerformer_users import daily_user_vectors
from training.pipelines.retrievers import PINNERFORMER, retriever_part
from training.registry import Registry
from training.transact.examples import UserVectors
from validation.manifest import Part


def newest_pinnerformer(registry: Registry, content: Part) -> tuple[Part | None, str]:
    """The newest PinnerFormer over the content space that is served; or None, and why."""
    for version in reversed(registry.versions(PINNERFORMER)):
        if registry.version(PINNERFORMER, version).tags.get("content_space") == content.space:
            part = retriever_part(registry, PINNERFORMER, version)
            return (part, "") if (why := retrievers.shortfall(part)) is None else (None, why)
    return None, f"no pinnerformer reads {content.space}"


def may_join(registry: Registry, part: Part, first_row: datetime) -> str | None:
    """Why the part's vectors must not stand beside rows from `first_row` on; None where they may."""
    until = registry.learned_until(part.model, part.version)
    if until is not None and until <= first_row:
        return None
    said = "does not say until when it learned" if until is None else f"learned until {until:%Y-%m-%d %H:%M}"
    return (
        f"none: {part.model}@{part.version} {said}, and the rows start {first_row:%Y-%m-%d}; "
        "its vectors would know what they are to foretell"
    )


def night_vectors(ctx: TrainingContext, part: Part, days: Interval) -> UserVectors:
    """Everyone's vectors as of every midnight of `days`, a row a user and night on which theirs changed."""
    ids, times, vectors = [], [], []
    before = None
    for midnight in days.days():
        tonight = daily_user_vectors(ctx, part, midnight)
        changed = np.ones(len(tonight), np.bool_)
        if before is not None:
            changed = np.isin(tonight.users, before.stale(tonight.users, tonight.actions))
        ids.append(tonight.users[changed])
        times.append(np.full(int(changed.sum()), int(midnight.timestamp() * 1000), np.int64))
        vectors.append(tonight.vectors[changed])
        before = tonight
    users, as_of = np.concatenate(ids), np.concatenate(times)
    order = np.lexsort((as_of, users))
    return UserVectors(users[order], as_of[order], np.concatenate(vectors)[order])
