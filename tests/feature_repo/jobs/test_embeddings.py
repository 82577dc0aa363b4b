"""What training may hand to the feature store, and what it may not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.jobs import (
    UserInterests,
    files,
    write_pin_embeddings,
    write_user_embeddings,
    write_user_interests,
)
from feature_repo.views import PIN_EMBEDDING

AT = datetime(2026, 3, 1, tzinfo=UTC)
IDS = np.array([3, 1, 2])
VECTORS = np.arange(6, dtype=np.float32).reshape(3, 2)


def test_each_space_has_a_file_and_is_replaced_whole(tmp_path: Path) -> None:
    write_pin_embeddings(tmp_path, "content@1", IDS, VECTORS, AT)
    write_pin_embeddings(tmp_path, "content@2", IDS, VECTORS, AT)
    assert write_pin_embeddings(tmp_path, "content@1", IDS[:2], VECTORS[:2], AT) == 2
    rows = pd.read_parquet(tmp_path / "pin_embedding")
    assert rows.groupby("space").size().to_dict() == {"content@1": 2, "content@2": 3}
    assert rows["event_timestamp"].unique().tolist() == [pd.Timestamp(AT)]
    assert write_user_embeddings(tmp_path, "content@1", IDS, VECTORS, AT) == 3


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (IDS, VECTORS[:2], "3 ids need"),
        (IDS, VECTORS.ravel(), "3 ids need"),
        (np.array([3, 0, 2]), VECTORS, "0 is padding"),
        (np.array([3, 3, 2]), VECTORS, "pin_id 3 appears 2 times"),
        (IDS, np.where(VECTORS == 3, np.nan, VECTORS), "NaN or infinity, first pin_id 1"),
    ],
)
def test_vectors_that_cannot_be_served_are_refused(tmp_path: Path, ids, vectors, message) -> None:
    with pytest.raises(ValueError, match=message):
        write_pin_embeddings(tmp_path, "content@1", ids, vectors, AT)
    assert not list(tmp_path.rglob("*.parquet"))


def test_interests_must_be_parallel(tmp_path: Path) -> None:
    row = UserInterests(1, IDS, np.ones(2), np.ones(3), VECTORS)
    with pytest.raises(ValueError, match="user 1: interests must be parallel"):
        write_user_interests(tmp_path, "content@1", [row], AT)


def test_a_time_needs_its_zone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no zone"):
        write_pin_embeddings(tmp_path, "content@1", IDS, VECTORS, AT.replace(tzinfo=None))


def test_nothing_to_write_is_an_empty_file(tmp_path: Path) -> None:
    assert write_user_interests(tmp_path, "content@1", [], AT) == 0
    assert write_pin_embeddings(tmp_path, "content@1", IDS[:0], VECTORS[:0], AT) == 0


def test_rows_made_in_pieces_are_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [UserInterests(i, IDS[:i], np.ones(i), np.ones(i, int), VECTORS[:i]) for i in (1, 2, 3)]
    for at_once in (3, 2):
        monkeypatch.setattr(files, "AT_ONCE", at_once)
        write_pin_embeddings(tmp_path / str(at_once), "content@1", IDS, VECTORS, AT)
        write_user_interests(tmp_path / str(at_once), "content@1", rows, AT)
    for view in ("pin_embedding", "user_interests"):
        whole, pieces = (pq.ParquetFile(tmp_path / n / view / "content@1.parquet") for n in "32")
        assert (whole.num_row_groups, pieces.num_row_groups) == (1, 2)
        assert pieces.read() == whole.read() and len(whole.read()) == 3


def test_lists_past_what_one_column_counts_are_refused() -> None:
    with pytest.raises(pa.ArrowInvalid, match="not in range"):
        files.lists(np.array([0, 2**31]), np.zeros(1))


def test_what_cannot_be_written_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    write_pin_embeddings(tmp_path, "content@1", IDS, VECTORS, AT)
    good, bad = pq.read_table(tmp_path / "pin_embedding"), pa.table({"pin_id": [1]})
    with pytest.raises(pa.ArrowInvalid, match="view pin_embedding do not fit"):
        files.write(tmp_path, PIN_EMBEDDING, "content@1", [good, bad])
    assert [f.name for f in (tmp_path / "pin_embedding").iterdir()] == ["content@1.parquet"]
    assert len(pq.read_table(tmp_path / "pin_embedding")) == 3
