"""What training may hand to the feature store, and what it may not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_repo.jobs import UserInterests, write_pin_embeddings, write_user_embeddings, write_user_interests

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
