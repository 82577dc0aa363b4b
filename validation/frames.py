"""The frames that expectation suites look at: samples of what is about to enter, and facts of the whole ingest.

Great Expectations cannot look into lists, and its set checks cost a second per thousand values, so membership
and list shape are worked out here as plain columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from validation.column_rules import VECTORS
from validation.tables import ACTION, TOPIC_ID, Polarity, Vocabulary

POSITIVE = "is_positive"


@dataclass(frozen=True)
class Known:
    """Ids that references may point at, each (n,) int64 sorted; None where the table is absent."""

    topics: np.ndarray | None = None
    boards: np.ndarray | None = None
    users: np.ndarray | None = None


@dataclass(frozen=True)
class Flow:
    """Row counts of one table's passage."""

    read: int
    entering: int
    duplicate: int
    refused: int


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint looks at."""

    samples: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """By table, rows that are about to enter, with the columns of `frame`."""
    flows: Mapping[str, Flow] = field(default_factory=dict)
    action_mix: Mapping[str, float] = field(default_factory=dict)
    mix_stops: bool = False
    """Whether a mix of actions far from `action_mix` is critical, beside being reported."""
    """Share of each action in the lake's last days; empty where it has none."""


def frame(rows: pa.Table, vocabulary: Vocabulary, known: Known, key: str | None = None) -> pd.DataFrame:
    """Lake rows as plain columns: lists become counts and flags, actions their names, references a flag.

    `key` is the table's own id, which refers to nothing else.
    """
    columns: dict[str, object] = {}
    for name in rows.schema.names:
        column = rows.column(name).combine_chunks()
        if name in VECTORS:
            columns[f"{name}_dim"] = floats(pc.list_value_length(column))
            columns[f"{name}_finite"] = ~_any_in_list(column, ~np.isfinite(_flat_floats(column)))
        elif name == "topics":
            columns["topic_count"] = floats(pc.fill_null(pc.list_value_length(column), 0))
            if known.topics is not None:
                outside = ~np.isin(pc.list_flatten(column).to_numpy(), known.topics)
                columns["topics_known"] = ~_any_in_list(column, outside)
        elif name == ACTION:
            codes = column.to_numpy()
            names = np.asarray(("", *vocabulary.names), dtype=object)
            columns[ACTION] = names[codes]
            columns[POSITIVE] = np.isin(codes, vocabulary.codes(Polarity.POSITIVE)).astype(np.float64)
        else:
            columns[name] = column.to_pandas()
            flag, ids = _reference(name, known)
            if ids is not None and name != key:
                columns[flag] = np.isin(pc.fill_null(column, 0).to_numpy(), ids) | _nulls(column)
    return pd.DataFrame(columns)


def flow_frame(flows: Mapping[str, Flow]) -> pd.DataFrame:
    """One row a table: `table`, `read`, `entering`, `duplicate`, `refused`, `refused_share`."""
    rows = [
        {
            "table": name,
            "read": f.read,
            "entering": f.entering,
            "duplicate": f.duplicate,
            "refused": f.refused,
            "refused_share": f.refused / f.read if f.read else 0.0,
        }
        for name, f in flows.items()
    ]
    return pd.DataFrame(rows)


def _reference(name: str, known: Known) -> tuple[str, np.ndarray | None]:
    ids = {
        TOPIC_ID: known.topics,
        "source_topic": known.topics,
        "parent_id": known.topics,
        "board_id": known.boards,
        "user_id": known.users,
    }.get(name)
    return f"{name.removesuffix('_id')}_known", ids


def _nulls(column: pa.Array) -> np.ndarray:
    return column.is_null().to_numpy(zero_copy_only=False)


def floats(column: pa.Array) -> np.ndarray:
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _flat_floats(column: pa.Array) -> np.ndarray:
    return pc.list_flatten(column).to_numpy(zero_copy_only=False)


def _any_in_list(column: pa.Array, elements: np.ndarray) -> np.ndarray:
    """Whether any element of each row's list is marked: (n,) bool."""
    rows = np.zeros(len(column), bool)
    rows[pc.list_parent_indices(column).to_numpy()[elements]] = True
    return rows
