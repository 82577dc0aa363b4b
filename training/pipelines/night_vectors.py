"""PinnerFormer's vectors for rows of a ranker's training set, such that no vector knows its row.

A vector knows a row in two ways: it was made after it, or its network learned from the row's label. So each row
reads the vector of its day's midnight, as serving reads last night's, and only rows from the network's
`learned_until` on are learned from. PinnerFormer leaves the newest days to the ranker (`ranker_days`): it makes
vectors every night as before, by weights that are some weeks older. Where too few days of rows lie after it
(`TransActPipeline.least_days`), as in short data, the ranker goes without.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from training.context import TrainingContext
from training.data.splits import DAY, Interval, midnight
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


def rows_after(registry: Registry, part: Part, rows: Interval, least_days: int) -> tuple[Interval | None, str]:
    """The days of `rows` that the part's weights know nothing of; None, and why, if fewer than `least_days`."""
    until = registry.learned_until(part.model, part.version)
    if until is None:
        return None, f"none: {part.space} does not say until when it learned"
    first = midnight(until - timedelta(microseconds=1)) + DAY
    after = Interval(min(max(rows.start, first), rows.end), rows.end)
    if after == rows or len(after.days()) >= least_days:
        return after, ""
    left, days = len(after.days()), len(rows.days())
    return None, (
        f"none: {part.space} learned until {until:%Y-%m-%d %H:%M}, and {left} of {days} days of rows lie after"
        f" that, {least_days} are needed; of the others its vectors know what came of them"
    )


def night_vectors(ctx: TrainingContext, part: Part, days: Interval) -> UserVectors:
    """Everyone's vectors as of every midnight of `days`, a row a user and night on which theirs changed."""
    ids, times, vectors = [], [], []
    before = None
    for night in days.days():
        tonight = daily_user_vectors(ctx, part, night)
        changed = np.ones(len(tonight), np.bool_)
        if before is not None:
            changed = np.isin(tonight.users, before.stale(tonight.users, tonight.actions))
        ids.append(tonight.users[changed])
        times.append(np.full(int(changed.sum()), int(night.timestamp() * 1000), np.int64))
        vectors.append(tonight.vectors[changed])
        before = tonight
    users, as_of = np.concatenate(ids), np.concatenate(times)
    order = np.lexsort((as_of, users))
    return UserVectors(users[order], as_of[order], np.concatenate(vectors)[order])
