"""Texts are encoded once, by whatever run came first, and read back as they were."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from training import text_vectors
from training.models.sentence import SentenceModel
from training.text_vectors import KeptSentences


class Counting:
    """Encodes a text as its length and first letter, and remembers what it was asked."""

    def __init__(self, version: str = "1") -> None:
        self.model = SentenceModel(name="counting", version=version, width=2)
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return np.array([[len(t), ord(t[0]) if t else 0] for t in texts], np.float32).reshape(len(texts), 2)


TEXTS = ["bread", "", "oven", "bread", "שלום", "😀"]


def test_rows_are_the_encoders_own_and_asked_for_once(tmp_path: Path):
    encoder, file = Counting(), tmp_path / "sets" / "kept.sqlite"
    kept = KeptSentences(encoder, file)
    expected = Counting().encode(TEXTS)
    np.testing.assert_array_equal(kept.encode(TEXTS), expected)
    np.testing.assert_array_equal(kept.encode(TEXTS[::-1]), expected[::-1])
    np.testing.assert_array_equal(KeptSentences(encoder, file).encode(TEXTS), expected)
    assert sorted(encoder.asked) == sorted(set(TEXTS))
    assert kept.encode([]).shape == (0, 2)


def test_another_version_of_the_encoder_reads_anew(tmp_path: Path):
    KeptSentences(Counting("1"), tmp_path / "kept.sqlite").encode(TEXTS)
    second = Counting("2")
    KeptSentences(second, tmp_path / "kept.sqlite").encode(TEXTS)
    assert sorted(second.asked) == sorted(set(TEXTS))


def test_a_run_cut_short_keeps_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_vectors, "BLOCK", 10)
    texts = [f"text {i}" for i in range(35)]

    class Failing(Counting):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            if len(self.asked) == 20:
                raise KeyboardInterrupt
            return super().encode(texts)

    with pytest.raises(KeyboardInterrupt):
        KeptSentences(Failing(), tmp_path / "kept.sqlite").encode(texts)
    second = Counting()
    rows = KeptSentences(second, tmp_path / "kept.sqlite").encode(texts)
    assert second.asked == texts[20:]
    np.testing.assert_array_equal(rows, Counting().encode(texts))


def test_long_catalogues_show_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_vectors, "BLOCK", 5)
    monkeypatch.setattr(text_vectors, "BLOCKS_A_LINE", 2)
    lines: list[str] = []
    KeptSentences(Counting(), tmp_path / "kept.sqlite", lines.append).encode([str(i) for i in range(23)])
    assert lines == [f"content: {n} of 23 texts encoded by counting 1" for n in (10, 20)]


def test_a_row_of_another_width_is_encoded_anew(tmp_path: Path):
    file = tmp_path / "kept.sqlite"
    KeptSentences(Counting(), file).encode(TEXTS)
    with sqlite3.connect(file) as broken:
        broken.execute("UPDATE vectors SET vector = zeroblob(4)")
    np.testing.assert_array_equal(KeptSentences(Counting(), file).encode(TEXTS), Counting().encode(TEXTS))
    again = Counting()
    KeptSentences(again, file).encode(TEXTS)
    assert again.asked == [], "what was broken was written over"
