"""Vectors of texts, kept in one SQLite file of the home: a text is encoded once, whatever run asks for it.

Encoding costs some 5 ms a text, reading it back 10 us, and a catalogue is encoded by every run that needs it.
A run that was cut short goes on from what it had kept. The file may be deleted at any time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.context import Progress, silent
from training.models.content import Sentences
from training.models.sentence import SentenceModel

Floats = NDArray[np.float32]

FILE = "text_vectors.sqlite"

BLOCK = 1024
"""Texts encoded between two commits."""
BLOCKS_A_LINE = 4
"""Blocks encoded between two lines of progress."""


class KeptSentences:
    """A sentence encoder that looks into `file` first. Equal to the encoder itself but for rounding (1e-6)."""

    def __init__(self, encoder: Sentences, file: Path, progress: Progress = silent) -> None:
        self.encoder = encoder
        self.file = file
        self.progress = progress

    @property
    def model(self) -> SentenceModel:
        return self.encoder.model

    def encode(self, texts: Sequence[str]) -> Floats:
        """(n, width) float32, as the encoder's own `encode`; adds to the file what it did not hold."""
        keys = [_key(self.model, text) for text in texts]
        rows = {key: row for row, key in enumerate(dict.fromkeys(keys))}
        distinct = dict(zip(keys, texts, strict=True))
        vectors = np.empty((len(rows), self.model.width), np.float32)
        with self._open() as kept:
            missing = [key for key, row in rows.items() if not _read(kept, key, vectors[row])]
            for start in range(0, len(missing), BLOCK):
                block = missing[start : start + BLOCK]
                made = self.encoder.encode([distinct[key] for key in block])
                vectors[[rows[key] for key in block]] = made
                with kept:
                    pairs = [(key, vector.tobytes()) for key, vector in zip(block, made, strict=True)]
                    kept.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", pairs)
                if start // BLOCK % BLOCKS_A_LINE == BLOCKS_A_LINE - 1:
                    done = f"{start + len(block)} of {len(missing)} texts encoded"
                    self.progress(f"content: {done} by {self.model}")
        return vectors[[rows[key] for key in keys]]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        kept = sqlite3.connect(self.file, timeout=60)
        try:
            kept.execute("PRAGMA journal_mode=WAL")
            kept.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB)")
            yield kept
        finally:
            kept.close()


def _key(model: SentenceModel, text: str) -> bytes:
    """16 bytes that stand for `text` as read by `model`."""
    return blake2b(f"{model}\0{text}".encode("utf-8", "replace"), digest_size=16).digest()


def _read(kept: sqlite3.Connection, key: bytes, out: Floats) -> bool:
    """Copy the vector kept under `key` into `out` (width,); False where there is none of that width."""
    found = kept.execute("SELECT vector FROM vectors WHERE key = ?", (key,)).fetchone()
    if found is None or len(found[0]) != out.nbytes:
        return False
    out[:] = np.frombuffer(found[0], np.float32)
    return True
