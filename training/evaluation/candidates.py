"""Pins to rank for each user, as a file names them: sampled candidates of the leave-one-out protocol."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from validation.ids import IdMap
from validation.tables import PADDING_ID, PIN_ID, USER_ID, EntityKind

HELD_OUT = "held_out"

_NEGATIVE_LINE = re.compile(r"\(\s*([^,()]+?)\s*,\s*([^,()]+?)\s*\)")


class CandidatesError(ValueError):
    """A file of candidates that cannot be used."""


@dataclass(frozen=True)
class Candidates:
    """Pins to rank for each user, in the data set's own ids."""

    pins: Mapping[Any, Sequence[Any]]
    held_out: Mapping[Any, Any] = field(default_factory=dict)
    """The held-out pin of each user, where the file says which it is; else the newest is."""


def read_candidates(path: Path, as_text: Collection[str] = ()) -> Candidates:
    """Candidates from a file; ids of the columns in `as_text` stay text where they look like numbers.

    Parquet, CSV or TSV with columns `user_id` and `pin_id`, a row a candidate, and optionally `held_out`,
    true on the row of the held-out pin; or the text form of the NCF data sets, a line a user:
    `(user,held-out)`, then pins, separated by tabs. Raises CandidatesError naming what is wrong.
    """
    if not path.is_file():
        raise CandidatesError(f"{path}: no such file of candidates")
    try:
        if path.suffix != ".parquet":
            with path.open() as lines:
                if lines.readline().startswith("("):
                    return _from_negatives(path, as_text)
        return _from_frame(_read(path, as_text), path)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise CandidatesError(f"{path}: not a table: {error}") from error


def _read(path: Path, as_text: Collection[str]) -> pd.DataFrame:
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        return frame.astype({column: str for column in as_text if column in frame})
    separator = "," if path.suffix == ".csv" else "\t"
    return pd.read_csv(path, sep=separator, dtype=dict.fromkeys(as_text, str))


def of_lake(candidates: Candidates, ids: IdMap) -> Candidates:
    """The candidates in the lake's ids. Pins that the lake does not know are left out.

    Raises CandidatesError for users, or a held-out pin, that it does not know, and IdFormError for ids of the
    other form.
    """
    users = _known(ids, EntityKind.USER, list(candidates.pins), "users")
    held = [pin for user, pin in candidates.held_out.items() if user in candidates.pins]
    held_pins = _known(ids, EntityKind.PIN, held, "held-out pins")
    pins = {}
    for user, given in candidates.pins.items():
        found = ids.encode(EntityKind.PIN, list(given), assign=False)
        pins[users[user]] = found[found != PADDING_ID].tolist()
    return Candidates(
        pins, {users[u]: held_pins[p] for u, p in candidates.held_out.items() if u in candidates.pins}
    )


def _known(ids: IdMap, kind: EntityKind, values: list[Any], what: str) -> dict[Any, int]:
    """Lake id of each of `values`."""
    if not values:
        return {}
    found = ids.encode(kind, values, assign=False)
    unknown = [value for value, known in zip(values, found.tolist(), strict=True) if known == PADDING_ID]
    if unknown:
        raise CandidatesError(named(f"the candidates name {what} that are not in the lake", unknown))
    return dict(zip(values, found.tolist(), strict=True))


def named(message: str, ids: Sequence[Any]) -> str:
    """`message`, then how many ids it is about, and the first few."""
    return f"{message} ({len(ids):,}): {', '.join(map(str, ids[:5]))}{', ...' if len(ids) > 5 else ''}"


def _from_frame(frame: pd.DataFrame, path: Path) -> Candidates:
    missing = {USER_ID, PIN_ID} - set(frame.columns)
    if missing:
        raise CandidatesError(
            f"{path}: no column {', '.join(sorted(missing))}; it has {', '.join(frame.columns)}"
        )
    held: dict[Any, Any] = {}
    if HELD_OUT in frame:
        rows = frame[frame[HELD_OUT].astype(bool)]
        if rows[USER_ID].duplicated().any():
            user = rows.loc[rows[USER_ID].duplicated(), USER_ID].iloc[0]
            raise CandidatesError(f"{path}: user {user} has more than one held-out pin")
        held = dict(zip(rows[USER_ID], rows[PIN_ID], strict=True))
    return Candidates({user: list(pins) for user, pins in frame.groupby(USER_ID, sort=False)[PIN_ID]}, held)


def _from_negatives(path: Path, as_text: Collection[str]) -> Candidates:
    a_user, a_pin = (str if column in as_text else _number for column in (USER_ID, PIN_ID))
    pins: dict[Any, list[Any]] = {}
    held: dict[Any, Any] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        head, *rest = line.rstrip().split("\t")
        pair = _NEGATIVE_LINE.fullmatch(head.strip())
        if pair is None:
            raise CandidatesError(f"{path}, line {number}: expected (user,pin) first, found {head!r}")
        user = a_user(pair[1])
        held[user] = a_pin(pair[2])
        pins[user] = [a_pin(text) for text in rest]
    return Candidates(pins, held)


def _number(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text
