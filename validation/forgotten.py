"""Who was forgotten: hashes that keep the rows of a forgotten user out, and what a forgetting under way needs.

    lake/forgotten.json   a salt, a salted hash a user, and of users not yet wholly forgotten their lake ids

The hash names nobody. Of whole numbers it can be found by trying them all, as any hash can.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from validation.whole_files import sync_folder

FILE = "forgotten.json"


class Person(BaseModel):
    """A user and what is theirs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    own_id: str
    """As the data set writes it."""
    lake_id: int
    """0 where the lake does not know the user."""
    boards: tuple[int, ...] = ()
    """Lake ids of the user's boards."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    lake_id: int = 0
    """0 once nothing of the user is left."""
    boards: tuple[int, ...] = ()


class Forgotten(BaseModel):
    """The tombstones of one lake. Immutable; `save` replaces the file at once and durably."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    salt: str = ""
    users: dict[str, _Entry] = {}
    """By hash."""

    @classmethod
    def of(cls, lake: Path) -> Forgotten:
        """Those of the lake at `lake`; nobody where there is no file."""
        path = lake / FILE
        return cls.model_validate_json(path.read_text()) if path.exists() else cls()

    def save(self, lake: Path) -> None:
        staged = lake / f".{FILE}.{os.getpid()}.tmp"
        with staged.open("w") as file:
            file.write(json.dumps(self.model_dump(mode="json"), indent=1))
            file.flush()
            os.fsync(file.fileno())
        staged.replace(lake / FILE)
        sync_folder(lake)

    def knows(self, own_id: str) -> bool:
        """Whether a user, by the data set's own id, was forgotten or is being so."""
        return bool(self.users) and self._digest(own_id) in self.users

    def places(self, own_ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """(n,) bool: which of many ids (integers or strings, nulls allowed) are those of forgotten users."""
        if not self.users:
            return np.zeros(len(own_ids), bool)
        if pa.types.is_dictionary(own_ids.type):
            own_ids = own_ids.cast(own_ids.type.value_type)
        words = pc.unique(own_ids)
        gone = [value.as_py() for value in words if value.is_valid and self.knows(str(value.as_py()))]
        found = pc.is_in(own_ids, value_set=pa.array(gone, words.type))
        return np.asarray(found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found, bool)

    def begun(self, person: Person) -> Forgotten:
        """With the person's hash and what is needed to go on after a crash."""
        salted = self if self.salt else self.model_copy(update={"salt": secrets.token_hex(16)})
        return salted._with(person.own_id, _Entry(lake_id=person.lake_id, boards=person.boards))

    def done(self, person: Person) -> Forgotten:
        """With the person's hash alone."""
        return self._with(person.own_id, _Entry())

    def allowed(self, own_id: str) -> Forgotten:
        """Without the user: their rows may come in again."""
        kept = {digest: entry for digest, entry in self.users.items() if digest != self._digest(own_id)}
        return self.model_copy(update={"users": kept})

    def unfinished(self, own_id: str) -> Person | None:
        """The user as a forgetting that was cut short knew them."""
        entry = self.users.get(self._digest(own_id))
        if entry is None or not entry.lake_id:
            return None
        return Person(own_id=own_id, lake_id=entry.lake_id, boards=entry.boards)

    def under_way(self) -> list[Person]:
        """Everybody whose forgetting was cut short, the first begun first. Their own ids are not known."""
        entries = [entry for entry in self.users.values() if entry.lake_id]
        return [Person(own_id="", lake_id=entry.lake_id, boards=entry.boards) for entry in entries]

    def _with(self, own_id: str, entry: _Entry) -> Forgotten:
        return self.model_copy(update={"users": {**self.users, self._digest(own_id): entry}})

    def _digest(self, own_id: str) -> str:
        return hashlib.blake2b(own_id.encode(), digest_size=16, key=bytes.fromhex(self.salt)).hexdigest()
