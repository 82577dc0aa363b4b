"""Users' vectors in PinnerFormer's space, night after night: who was active is read anew, the rest is kept.

training_sets/pinnerformer-users/v<version>/<as of, UTC>.parquet     user_id, newest_ms, vector
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
from training.pinnerformer.timelines import active_users, read_timelines
from training.pipelines.clock import run_end
from training.pipelines.content import load_catalogue
from training.pipelines.pinnerformer import load_network, with_content
from validation.lake import Lake
from validation.manifest import Part

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class UserVectors:
    """Vectors of users as of one time; parallel arrays, users ascending."""

    users: Ints  # (n,)
    newest_ms: Ints  # (n,) the newest action each vector knows, Unix ms
    vectors: Floats  # (n, D) unit

    def __len__(self) -> int:
        return len(self.users)

    def merged(self, fresh: UserVectors) -> UserVectors:
        """These with the rows of `fresh` put over them: everyone of both, `fresh` where a user is in both."""
        kept = ~np.isin(self.users, fresh.users)
        users = np.concatenate([self.users[kept], fresh.users])
        order = np.argsort(users, kind="stable")
        newest = np.concatenate([self.newest_ms[kept], fresh.newest_ms])
        vectors = np.concatenate([self.vectors[kept], fresh.vectors])
        return UserVectors(users[order], newest[order], vectors[order])

    def save(self, path: Path) -> None:
        """Write as Parquet, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        width = self.vectors.shape[1]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(self.vectors.ravel()), width)
        table = pa.table(
            {"user_id": pa.array(self.users), "newest_ms": pa.array(self.newest_ms), "vector": vectors}
        )
        part = path.with_suffix(f".{os.getpid()}.part")
        pq.write_table(table, part)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> UserVectors:
        """The table saved at `path`."""
        table = pq.read_table(path)
        column = table.column("vector").combine_chunks()
        vectors = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
        return cls(table.column("user_id").to_numpy(), table.column("newest_ms").to_numpy(), vectors)


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
    return UserVectors(lines.users, lines.arrays.times_ms[lines.offsets[1:] - 1], vectors)


def daily_user_vectors(
    ctx: TrainingContext, part: Part, content: Part, as_of: datetime | None = None
) -> UserVectors:
    """Everyone's vectors as of `as_of` (default: the run's end), made from the newest earlier table.

    Only users with an action since that table are computed, and merged over it; without one, everybody is. The
    result is kept, and is what a full computation gives, as long as no action arrives that is dated before a
    table that was already made. Raises ValueError for a time without a zone, or another content version.
    """
    as_of = run_end(ctx) if as_of is None else as_of
    if as_of.tzinfo is None:
        raise ValueError(f"as_of {as_of} has no zone; give a UTC time")
    as_of = as_of.astimezone(UTC).replace(microsecond=0)
    network, lake = load_network(ctx, part, content), Lake(ctx.lake)
    folder = ctx.training_sets / "pinnerformer-users" / f"v{part.version}"
    before = _newest_table(folder, as_of)
    if before is not None and before[0] == as_of:
        return UserVectors.load(before[1])
    pins = with_content(load_catalogue(ctx, content))
    only = None if before is None else active_users(lake, before[0], as_of)
    fresh = user_vectors(network, lake, pins.ids, pins.vectors, as_of, only)
    result = fresh if before is None else UserVectors.load(before[1]).merged(fresh)
    result.save(folder / f"{as_of.strftime(_STAMP)}.parquet")
    ctx.progress(f"pinnerformer: {len(fresh)} of {len(result)} users computed as of {as_of:%Y-%m-%d %H:%M}")
    return result


def _newest_table(folder: Path, as_of: datetime) -> tuple[datetime, Path] | None:
    tables = [
        (datetime.strptime(path.stem, _STAMP).replace(tzinfo=UTC), path) for path in folder.glob("*.parquet")
    ]
    return max((table for table in tables if table[0] <= as_of), default=None)
