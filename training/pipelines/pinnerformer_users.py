"""Users' vectors in PinnerFormer's space, night after night: who was active is read anew, the rest is kept.

training_sets/pinnerformer-users/v<of the weights>/<as of, UTC>.parquet
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.context import TrainingContext
from training.models.pinnerformer import PinnerFormer, embed_users
from training.pinnerformer.timelines import action_counts, read_timelines
from training.pipelines.clock import run_end
from training.pipelines.pinnerformer import load_pinnerformer, with_content
from training.pipelines.retrievers import content_of
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import Part

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

TABLES = "pinnerformer-users"
"""Folder of the tables among the training sets."""

_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class UserVectors:
    """Vectors of users as of one time; parallel arrays, users ascending."""

    users: Ints  # (n,)
    actions: Ints  # (n,) how many actions of the user were known
    newest_ms: Ints  # (n,) the newest of them, Unix ms
    vectors: Floats  # (n, D) unit

    def __len__(self) -> int:
        return len(self.users)

    def merged(self, fresh: UserVectors) -> UserVectors:
        """These with the rows of `fresh` put over them: everyone of both, `fresh` where a user is in both."""
        kept = ~np.isin(self.users, fresh.users)
        users = np.concatenate([self.users[kept], fresh.users])
        order = np.argsort(users, kind="stable")
        actions = np.concatenate([self.actions[kept], fresh.actions])
        newest = np.concatenate([self.newest_ms[kept], fresh.newest_ms])
        vectors = np.concatenate([self.vectors[kept], fresh.vectors])
        return UserVectors(users[order], actions[order], newest[order], vectors[order])

    def stale(self, users: Ints, actions: Ints) -> Ints:
        """Those of `users` who by now have other than the known count of `actions`, or are not here at all."""
        if not len(self):
            return users
        at = np.minimum(np.searchsorted(self.users, users), len(self) - 1)
        return users[(self.users[at] != users) | (self.actions[at] != actions)]

    def save(self, path: Path) -> None:
        """Write as Parquet, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        width = self.vectors.shape[1]
        columns = {
            "user_id": pa.array(self.users),
            "actions": pa.array(self.actions),
            "newest_ms": pa.array(self.newest_ms),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(self.vectors.ravel()), width),
        }
        part = path.with_suffix(f".{os.getpid()}.part")
        pq.write_table(pa.table(columns), part)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> UserVectors:
        """The table saved at `path`."""
        table = pq.read_table(path)
        column = table.column("vector").combine_chunks()
        vectors = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
        return cls(*(table.column(name).to_numpy() for name in ("user_id", "actions", "newest_ms")), vectors)


def user_vectors(
    network: PinnerFormer,
    lake: Lake,
    pin_ids: Ints,
    content: Floats,
    as_of: datetime,
    only: Ints | None = None,
) -> UserVectors:
    """Vectors of every user (or of `only`) with an action before `as_of`, from what was known strictly before.

    `content` (pins, P) are the vectors of `pin_ids`, ascending.
    """
    lines = read_timelines(lake, pin_ids, as_of, only=only)
    vectors = embed_users(network, lines.arrays, lines.offsets[:-1], lines.offsets[1:], content)
    newest = lines.arrays.times_ms[lines.offsets[1:] - 1]
    return UserVectors(lines.users, np.diff(lines.offsets), newest, vectors)


def daily_user_vectors(ctx: TrainingContext, part: Part, as_of: datetime | None = None) -> UserVectors:
    """Everyone's vectors as of `as_of` (default: the run's end), made from the newest earlier table.

    Only users who have more actions than that table knows are computed, late ones among them, and merged over
    it; without one, everybody is. The result is kept, and is what a full computation gives. Versions that kept
    their weights go on from one another's tables. Raises ValueError for a time without a zone.
    """
    as_of = run_end(ctx) if as_of is None else as_of
    if as_of.tzinfo is None:
        raise ValueError(f"as_of {as_of} has no zone; give a UTC time")
    as_of = as_of.astimezone(UTC).replace(microsecond=0)
    lake, registry = Lake(ctx.lake), Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    learned_at = registry.weights_of(part.model, part.version)
    folder = ctx.training_sets / TABLES / f"v{learned_at}"
    earlier = _newest_table(folder, as_of)
    before = None if earlier is None else UserVectors.load(earlier[1])
    only = None if before is None else before.stale(*action_counts(lake, as_of))
    if before is not None and only is not None and not len(only):
        result = before
    else:
        pins = with_content(content_of(ctx, part))
        fresh = user_vectors(load_pinnerformer(ctx, part), lake, pins.ids, pins.vectors, as_of, only)
        result = fresh if before is None else before.merged(fresh)
        ctx.progress(f"pinnerformer: {len(fresh)} of {len(result)} users computed as of {as_of:%Y-%m-%d %H:%M}")
    result.save(folder / f"{as_of.strftime(_STAMP)}.parquet")
    return result


def _newest_table(folder: Path, as_of: datetime) -> tuple[datetime, Path] | None:
    tables = [
        (datetime.strptime(path.stem, _STAMP).replace(tzinfo=UTC), path) for path in folder.glob("*.parquet")
    ]
    return max((table for table in tables if table[0] <= as_of), default=None)
