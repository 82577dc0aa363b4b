"""What a URI says of this machine's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from validation.file_uri import folder_gone, local_folder, sqlite_file


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("file:///a%20b/c", Path("/a b/c")),
        ("/a/c", Path("/a/c")),
        ("s3://bucket/c", None),
        ("mlflow-artifacts:/1/c", None),
        ("http://127.0.0.1:5000/c", None),
    ],
)
def test_only_paths_and_file_uris_are_folders_here(uri: str, folder: Path | None) -> None:
    assert local_folder(uri) == folder


def test_only_a_folder_of_this_machine_can_be_gone(tmp_path: Path) -> None:
    assert folder_gone(tmp_path.as_uri()) is None and folder_gone("s3://bucket/none") is None
    assert folder_gone((tmp_path / "none").as_uri()) == tmp_path / "none"


def test_the_file_of_a_database_is_named_without_its_query() -> None:
    file = Path("/home/mlflow/mlflow.db")
    assert sqlite_file(f"sqlite:///{file}") == sqlite_file(f"sqlite:///{file}?timeout=30") == file
    assert sqlite_file("postgresql://host/db") is None and sqlite_file("http://127.0.0.1:5000") is None
