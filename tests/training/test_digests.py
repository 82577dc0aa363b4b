"""Digests say whether anything changed."""

from __future__ import annotations

from pathlib import Path

from training.digests import digest_files, digest_of


def test_digests_follow_content_and_nothing_else(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name / "day=1").mkdir(parents=True)
        (tmp_path / name / "day=1" / "part.parquet").write_bytes(b"rows")
    nested = [digest_files([tmp_path / name / "day=1"]) for name in ("a", "b")]
    assert nested[0] == nested[1]
    (tmp_path / "b" / "day=1" / "part.parquet").write_bytes(b"other")
    assert digest_files([tmp_path / "b" / "day=1"]) != nested[0]
    assert digest_of("a", 1) == digest_of("a", 1) != digest_of("a1")


def test_what_running_code_caches_is_no_part_of_its_digest(tmp_path: Path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "walk.py").write_text("steps = 1")
    before = digest_files([tmp_path / "kernels"])
    (tmp_path / "kernels" / "__pycache__").mkdir()
    (tmp_path / "kernels" / "__pycache__" / "walk.nbi").write_text("compiled")
    assert digest_files([tmp_path / "kernels"]) == before
