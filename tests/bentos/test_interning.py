"""Names as small numbers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bentos import interning
from bentos.interning import Interned


def test_a_name_keeps_its_code_and_a_code_its_name() -> None:
    made = Interned()
    first = made.codes(["pixie", "dcm", "pixie"])
    assert first.dtype == np.int16 and first[0] == first[2] == made.code("pixie") != first[1]
    assert made.names(first) == ["pixie", "dcm", "pixie"]
    assert made.codes([]).shape == (0,) and made.names(made.codes([])) == []
    made.code("a much longer name than those before")
    assert made.names(first) == ["pixie", "dcm", "pixie"]


def test_threads_agree() -> None:
    made = Interned()
    with ThreadPoolExecutor(8) as threads:
        codes = list(threads.map(lambda n: made.code(f"name {n % 20}"), range(400)))
    assert len(set(codes)) == 20
    assert made.names(np.array(codes, np.int16)) == [f"name {n % 20}" for n in range(400)]


def test_names_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interning, "MOST", 2)
    made = Interned()
    codes = made.codes(["a", "b"])
    with pytest.raises(OverflowError, match="'c' would be name 3"):
        made.code("c")
    assert made.names(codes) == ["a", "b"] and made.code("b") == codes[1]
