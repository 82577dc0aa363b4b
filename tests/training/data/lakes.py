"""Lakes written straight from frames or from a simulated world, without the door in front."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from training.data.world import WorldPaths
from validation.lake import EVENT_ORDER, Lake
from validation.tables import TABLES, Contract


def write_lake(root: Path, frames: dict[str, pd.DataFrame], contract: Contract | None = None) -> Lake:
    """A lake of `frames` in lake form (int64 ids, action codes), as an ingest leaves it."""
    lake = Lake(root)
    lake.write_contract(contract or Contract())
    for name, frame in frames.items():
        spec = TABLES[name]
        if not spec.by_day:
            _write(lake.file(name), frame, spec.schema)
            continue
        for day, rows in frame.groupby(frame["timestamp"].dt.date):
            _write(lake.file(name, day), rows.sort_values(list(EVENT_ORDER[name])), spec.schema)
    return lake


def world_frames(world: WorldPaths) -> tuple[dict[str, pd.DataFrame], Contract]:
    """A world's contract tables in lake form."""
    contract = Contract(**yaml.safe_load((world.tables / "contract.yaml").read_text()))
    frames = {}
    for name in TABLES:
        folder = world.tables / name
        files = sorted(folder.glob("*.parquet")) if folder.is_dir() else [world.tables / f"{name}.parquet"]
        if files[0].exists():
            # files of one table need not bring the same columns
            parts = [pq.read_table(file) for file in files]
            frames[name] = pa.concat_tables(parts, promote_options="default").to_pandas()
    codes = {a: contract.vocabulary.code(a) for a in contract.vocabulary.names}
    frames["actions"]["action"] = frames["actions"]["action"].map(codes)
    return frames, contract


def _write(path: Path, frame: pd.DataFrame, schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [
        pa.array(frame[c.name], c.type, from_pandas=True) if c.name in frame else pa.nulls(len(frame), c.type)
        for c in schema
    ]
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), path)
