"""Who took which pin when: the leave-one-out protocol's input, from a lake or from a file of ratings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from validation.lake import Lake
from validation.tables import ACTION, ACTIONS, BOARD_ID, PIN_ID, TIMESTAMP, USER_ID, Polarity


class InteractionsError(ValueError):
    """A file of interactions that cannot be read as such."""


def from_lake(lake: Lake) -> pd.DataFrame:
    """Positive actions as user_id, pin_id, timestamp, in time order. Raises LakeError without actions."""
    positive = lake.contract().vocabulary.codes(Polarity.POSITIVE)
    rows = lake.read(ACTIONS.name, [USER_ID, PIN_ID, ACTION, TIMESTAMP])
    return rows.loc[rows[ACTION].isin(positive), [USER_ID, PIN_ID, TIMESTAMP]].reset_index(drop=True)


def from_file(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Interactions of a Parquet, CSV (.csv) or tab-separated (anything else) file; every row counts.

    Columns are user_id, pin_id, timestamp, and board_id where there is one; others are not read. A text file
    names its columns in the first line, or has none there and `columns` names them in order (an empty name
    for one to pass over: MovieLens' u.data is user_id,pin_id,,timestamp). Times are numbers, or text that is
    a date. Raises InteractionsError naming what is wrong.
    """
    if not path.is_file():
        raise InteractionsError(f"{path}: no such file of interactions")
    try:
        frame = _read(path, list(columns) if columns else None)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise InteractionsError(f"{path}: not a table: {error}") from error
    missing = [c for c in (USER_ID, PIN_ID, TIMESTAMP) if c not in frame]
    if missing:
        has = ", ".join(map(str, frame.columns))
        raise InteractionsError(
            f"{path}: no column {', '.join(missing)}; it has {has}. A file without a header needs their names: "
            "--columns user_id,pin_id,,timestamp"
        )
    frame = frame[[c for c in (USER_ID, PIN_ID, TIMESTAMP, BOARD_ID) if c in frame]]
    if not pd.api.types.is_numeric_dtype(frame[TIMESTAMP]):
        try:
            frame = frame.assign(timestamp=pd.to_datetime(frame[TIMESTAMP], utc=True))
        except ValueError as error:
            raise InteractionsError(f"{path}: a timestamp is neither a number nor a date: {error}") from error
    return frame


def _read(path: Path, columns: list[str] | None) -> pd.DataFrame:
    if path.suffix == ".parquet":
        if columns:
            raise InteractionsError(f"{path}: a Parquet file names its columns itself; leave --columns out")
        return pd.read_parquet(path)
    separator = "," if path.suffix == ".csv" else "\t"
    if columns is None:
        return pd.read_csv(path, sep=separator)
    names = [name or f"unread_{place}" for place, name in enumerate(columns)]
    with path.open() as lines:
        found = len(lines.readline().rstrip("\n").split(separator))
    if found != len(names):
        raise InteractionsError(f"{path}: the first line has {found} columns, --columns names {len(names)}")
    return pd.read_csv(path, sep=separator, header=None, names=names)
