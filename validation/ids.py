"""The map between the ids a data set brings and the int64 ids everything else uses.

Each kind of entity has one *form*, fixed by the first ids seen: `integer` ids are their own lake ids,
`string` ids are numbered from 1 in the order of their first appearance. 0 is padding and stands for nobody.
The map is one SQLite file, so that the door, the services and the event log agree across processes.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from validation.tables import EntityKind

MAX_ID = 2**63 - 1

_VARIABLES = 30_000
"""Values bound to one statement; SQLite's limit is 32,766."""

_CACHED = 3_000_000
"""Strings of one kind that bulk encoding keeps in memory, about 150 bytes each."""


_TABLES = "\n".join(
    [
        "BEGIN;",
        "CREATE TABLE IF NOT EXISTS forms (kind TEXT PRIMARY KEY, form TEXT NOT NULL);",
        *(
            f"CREATE TABLE IF NOT EXISTS {kind.value} (id INTEGER PRIMARY KEY, value TEXT NOT NULL UNIQUE);"
            for kind in EntityKind
        ),
        "COMMIT;",
    ]
)


FORGOTTEN = "\x00forgotten "
"""Begins what stands for the name of something forgotten; no id of a data set begins so."""


class IdForm(StrEnum):
    """What the ids of one kind are in the data set itself."""

    INTEGER = "integer"
    STRING = "string"


class IdFormError(ValueError):
    """Ids of one kind came as strings and as integers."""


def hash_ids(values: Sequence[str] | np.ndarray) -> np.ndarray:
    """63-bit ids of strings that are never asked back (request and event ids): (n,) int64, all positive.

    SipHash with pandas' fixed key: the same on every machine and in every run. Two of 20 million strings
    share an id with probability 2e-5.
    """
    hashed = pd.util.hash_array(np.asarray(values, dtype=object), categorize=False)
    return np.maximum((hashed >> np.uint64(1)).astype(np.int64), 1)


def hash_id(value: str) -> int:
    """`hash_ids` of one string."""
    return int(hash_ids([value])[0])


class IdMap:
    """The id map at `path`. Creating the object touches nothing; reading an absent map finds no string ids.

    Safe across threads and processes: every thread has its own connection, and numbers are given out under
    SQLite's write lock.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._local = threading.local()
        self._forms: dict[EntityKind, IdForm] = {}
        self._held: dict[EntityKind, IdForm] | None = None
        self._cache: dict[EntityKind, dict[str, int]] = {}

    def form(self, kind: EntityKind) -> IdForm | None:
        """The form of `kind`, None while no id of it was ever seen."""
        known = self._forms.get(kind)
        if known is None and self.path.exists():
            row = self._connection().execute("SELECT form FROM forms WHERE kind = ?", (kind.value,)).fetchone()
            if row is not None:
                known = self._forms[kind] = IdForm(row[0])
        return (self._held or {}).get(kind) if known is None else known

    def fix_form(self, kind: EntityKind, form: IdForm) -> None:
        """Declares the form of `kind`. Raises IdFormError when it is already the other one."""
        known = self.form(kind)
        if known is None and self._held is not None:
            known = self._held.setdefault(kind, form)
        elif known is None:
            with self._write() as db:
                db.execute("INSERT OR IGNORE INTO forms VALUES (?, ?)", (kind.value, form.value))
            known = self.form(kind)
        if known is not form:
            raise IdFormError(
                f"{kind.value} ids are {form.value}s here but {known}s in the lake; "
                f"bring every {kind.value} id as {known}"
            )

    def hold_forms(self) -> None:
        """From here on this object keeps the forms it finds to itself, until `settle_forms`.

        For work that may yet be refused: numbers given to strings meanwhile harm nobody, but a form that
        stayed would keep out every id of the other form.
        """
        self._held = {}

    def settle_forms(self) -> None:
        """Writes the forms held back. Raises IdFormError where another process fixed the other one."""
        held, self._held = self._held or {}, None
        for kind, form in held.items():
            self.fix_form(kind, form)

    def encode(self, kind: EntityKind, values: object, *, assign: bool = True) -> np.ndarray:
        """Lake ids of many ids: (n,) int64.

        `values` is anything Arrow reads as an array without nulls. New strings are numbered, or answered
        with 0 where `assign` is False. Integers pass through. Raises ValueError for an integer below 1 or an
        empty string, IdFormError for the other form.
        """
        array = _as_array(values)
        if pa.types.is_integer(array.type):
            return self._encode_integers(kind, array, assign)
        if not pa.types.is_dictionary(array.type):
            array = array.dictionary_encode()
        words: list[str] = array.dictionary.to_pylist()
        if not words:
            return np.zeros(len(array), np.int64)
        known = self._known_many(kind, words)
        if assign:
            self.fix_form(kind, IdForm.STRING)
            fresh = [w for w in words if w not in known]
            if fresh:
                self._number(kind, fresh)
                known.update(self._known_many(kind, fresh))
        ids = np.fromiter((known.get(w, 0) for w in words), np.int64, len(words))
        return ids[array.indices.to_numpy(zero_copy_only=False)]

    def lookup(self, kind: EntityKind, value: str | int) -> int | None:
        """The lake id of one id; None for a string never seen, or for text where ids are integers."""
        if self.form(kind) is IdForm.STRING:
            row = (
                self._connection()
                .execute(f"SELECT id FROM {kind.value} WHERE value = ?", (str(value),))
                .fetchone()
            )
            return None if row is None else row[0]
        return _integer(value)

    def assign(self, kind: EntityKind, value: str | int) -> int:
        """The lake id of one id, numbered now if it is a string never seen; atomic across processes.

        Where ids of `kind` are strings an integer is taken as its digits. Raises ValueError for an empty
        string, an integer below 1, or text where ids are integers.
        """
        if self.form(kind) is None:
            self.fix_form(kind, IdForm.INTEGER if isinstance(value, int) else IdForm.STRING)
        found = self.lookup(kind, value)
        if found is not None:
            return found
        if self.form(kind) is IdForm.INTEGER:
            raise ValueError(f"{kind.value} id {value!r}: {kind.value} ids are whole numbers from 1")
        self._number(kind, [str(value)])
        assigned = self.lookup(kind, value)
        assert assigned is not None
        return assigned

    def decode(self, kind: EntityKind, ids: Sequence[int] | np.ndarray) -> list[str | int]:
        """The data set's own ids, in order. Raises KeyError naming an id that was never given out."""
        values = self.decode_known(kind, ids)
        missing = [int(i) for i, value in zip(ids, values, strict=True) if value is None]
        if missing:
            raise KeyError(f"{kind.value} id {missing[0]} was never given out ({len(missing)} such ids)")
        return values

    def decode_known(self, kind: EntityKind, ids: Sequence[int] | np.ndarray) -> list[str | int | None]:
        """`decode` with None for every id that was never given out."""
        wanted = np.asarray(ids, dtype=np.int64)
        if self.form(kind) is not IdForm.STRING:
            return wanted.tolist()
        unique, places = np.unique(wanted, return_inverse=True)
        found: dict[int, str] = {}
        for some in _slices(unique.tolist()):
            marks = ",".join("?" * len(some))
            found.update(
                self._connection().execute(f"SELECT id, value FROM {kind.value} WHERE id IN ({marks})", some)
            )
        words = [found.get(i) for i in unique.tolist()]
        return [words[p] for p in places.tolist()]

    def forget(self, kind: EntityKind, ids: Sequence[int]) -> None:
        """Put names that say nothing in the place of those of `ids`: their numbers stay taken."""
        if not (self.path.exists() and self.form(kind) is IdForm.STRING):
            return
        self._connection().execute("PRAGMA secure_delete = ON")
        with self._write() as db:
            db.executemany(
                f"UPDATE {kind.value} SET value = ? WHERE id = ?",
                [(f"{FORGOTTEN}{number}", number) for number in ids],
            )
        # The write-ahead log holds pages as they were before.
        self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._cache.pop(kind, None)

    def count(self, kind: EntityKind) -> int:
        """How many strings of `kind` are numbered."""
        if not self.path.exists():
            return 0
        return self._connection().execute(f"SELECT COALESCE(MAX(id), 0) FROM {kind.value}").fetchone()[0]

    def close(self) -> None:
        """Closes this thread's connection."""
        held = getattr(self._local, "held", None)
        if held is not None:
            held[1].close()
            self._local.held = None

    def _encode_integers(self, kind: EntityKind, array: pa.Array, assign: bool) -> np.ndarray:
        ids = array.cast(pa.int64()).to_numpy(zero_copy_only=False)
        if len(ids) and ids.min() < 1:
            raise ValueError(f"{kind.value} id {ids.min()}: ids start at 1, 0 is padding")
        if len(ids) and assign:
            self.fix_form(kind, IdForm.INTEGER)
        elif self.form(kind) is IdForm.STRING:
            raise IdFormError(f"{kind.value} ids are integers here but strings in the lake")
        return ids

    def _number(self, kind: EntityKind, words: list[str]) -> None:
        """Gives the words not yet known the next numbers, in order, in one transaction."""
        if "" in words:
            raise ValueError(f"a {kind.value} id is an empty string")
        with self._write() as db:
            # Asked again under the lock: another process may have numbered some of them meanwhile.
            known = _select(db, kind, words)
            top = db.execute(f"SELECT COALESCE(MAX(id), 0) FROM {kind.value}").fetchone()[0]
            fresh = [w for w in dict.fromkeys(words) if w not in known]
            db.executemany(f"INSERT INTO {kind.value} VALUES (?, ?)", enumerate(fresh, start=top + 1))

    def _known_many(self, kind: EntityKind, words: list[str]) -> dict[str, int]:
        """Ids of those of `words` that have one. A number never changes, so what was read once is kept."""
        cache = self._cache.setdefault(kind, {})
        known = {w: cache[w] for w in words if w in cache}
        if len(known) < len(words) and self.path.exists():
            read = _select(self._connection(), kind, [w for w in words if w not in known])
            known.update(read)
            if len(cache) + len(read) <= _CACHED:
                cache.update(read)
        return known

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = self._connection()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection in this process; a connection must not cross a fork."""
        held = getattr(self._local, "held", None)
        if held is None or held[0] != os.getpid():
            db = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(_TABLES)
            held = self._local.held = (os.getpid(), db)
        return held[1]


def _select(db: sqlite3.Connection, kind: EntityKind, words: list[str]) -> dict[str, int]:
    known: dict[str, int] = {}
    for some in _slices(words):
        marks = ",".join("?" * len(some))
        known.update(db.execute(f"SELECT value, id FROM {kind.value} WHERE value IN ({marks})", some))
    return known


def _as_array(values: object) -> pa.Array:
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if array.null_count:
        raise ValueError(f"{array.null_count} ids are null")
    if pa.types.is_dictionary(array.type) and not pa.types.is_integer(array.type.value_type):
        # A dictionary may hold words that no row uses; numbering those would give ids to nobody.
        used = pc.unique(array.indices)
        if len(used) < len(array.dictionary):
            return array.cast(array.type.value_type).cast(pa.string())
        return array
    if pa.types.is_null(array.type):
        return array.cast(pa.int64())
    if pa.types.is_dictionary(array.type):
        return array.cast(array.type.value_type)
    if pa.types.is_integer(array.type) or pa.types.is_string(array.type):
        return array
    if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        return array.cast(pa.string())
    raise TypeError(f"ids are integers or strings, not {array.type}")


def _integer(value: str | int) -> int | None:
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit()):
            return None
        value = int(value)
    return int(value) if 0 < value <= MAX_ID else None


def _slices(values: list) -> Iterator[list]:
    for start in range(0, len(values), _VARIABLES):
        yield values[start : start + _VARIABLES]
