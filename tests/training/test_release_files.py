"""A release keeps the digests of its parts' files, and who reads them afterwards finds the same or is told."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.training import planted_releases as planted
from training import promotion, release, release_difference, release_files
from training.promotion import parts_present
from training.registry import VersionDropped
from training.release import _same
from training.release_comparison import Bench
from training.release_files import released_files, with_digests
from training.release_parts import ReleaseError
from validation.manifest import Part, ReleaseManifest


class Folders:
    """A registry whose versions are folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dropped: set[str] = set()

    def download(self, model: str, version: int) -> Path:
        name = f"{model}@{version}"
        if name in self.dropped:
            raise VersionDropped(name)
        if not (self.folder / name).exists():
            raise OSError(f"no such artifact: {name}")
        return self.folder / name

    def made_at(self, model: str, version: int) -> datetime:
        return planted.WHEN - timedelta(days=1)


PARTS = {role: Part(model=role, version=2) for role in ("content", "pixie")}


@pytest.fixture
def registry(tmp_path: Path) -> Folders:
    for part in PARTS.values():
        (tmp_path / part.name).mkdir()
        (tmp_path / part.name / "weights.bin").write_text(f"those of {part.name}")
    return Folders(tmp_path)


def made(registry: Folders, before: ReleaseManifest | None = None) -> ReleaseManifest:
    known = [] if before is None else [before]
    return planted.manifest(1, parts=with_digests(registry, PARTS, known))  # type: ignore[arg-type]


def test_a_release_holds_a_digest_of_every_file(registry: Folders) -> None:
    released = made(registry)
    assert {role: list(part.files or {}) for role, part in released.parts.items()} == {
        "content": ["weights.bin"],
        "pixie": ["weights.bin"],
    }
    assert ReleaseManifest.model_validate_json(released.model_dump_json()) == released
    again = made(registry, released)
    assert _same(again, released)
    assert not _same(again, planted.manifest(1, parts=PARTS)), "one without digests is made again, with them"


def test_files_that_changed_since_the_release_before_are_not_released(registry: Folders) -> None:
    before = made(registry)
    (registry.folder / "pixie@2" / "weights.bin").write_text("others")
    with pytest.raises(
        ReleaseError, match=r"pixie@2 is not what was released: weights.bin is another file; run"
    ):
        made(registry, before)
    assert made(registry, planted.manifest(1, parts=PARTS)).parts["pixie"].files, "nothing is known of them"


def test_a_part_that_was_left_out_of_a_release_comes_back_as_it_was(registry: Folders) -> None:
    first = made(registry)
    second = planted.manifest(2, parts={"content": first.parts["content"]})
    (registry.folder / "pixie@2" / "weights.bin").write_text("others")
    with pytest.raises(ReleaseError, match=r"pixie@2 is not what was released: weights.bin is another file"):
        with_digests(registry, PARTS, [second, first])  # type: ignore[arg-type]


def test_no_release_is_read_that_is_older_than_all_that_is_sought(
    registry: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def releases() -> Iterator[ReleaseManifest]:
        yield planted.manifest(2, parts={"content": first.parts["content"]})
        pytest.fail("pixie@2 is younger than the release before")

    first = made(registry)
    monkeypatch.setattr(registry, "made_at", lambda model, version: planted.WHEN + timedelta(hours=1))
    assert with_digests(registry, PARTS, releases()) == first.parts  # type: ignore[arg-type]


def test_what_measures_a_part_reads_only_what_was_released(registry: Folders) -> None:
    bench = Bench(planted.context(registry.folder), registry, None, "", None)  # type: ignore[arg-type]
    part = made(registry).parts["pixie"]
    assert bench.files(part) == registry.folder / "pixie@2"
    (registry.folder / "pixie@2" / "weights.bin").unlink()
    assert bench.files(PARTS["pixie"]) == registry.folder / "pixie@2", "of that one no digests are kept"
    with pytest.raises(ReleaseError, match=r"weights.bin is missing; .*corkboard train --model pixie --force"):
        bench.files(part)


def test_the_gate_names_what_is_not_as_it_was(registry: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion, "registry_of", lambda ctx: registry)
    ctx, released = planted.context(registry.folder), made(registry)
    gate = parts_present(ctx, released)
    assert (gate.passed, gate.value, gate.message) == (True, 2.0, "parts: all files are there")
    gate = parts_present(ctx, planted.manifest(1, parts=PARTS))
    assert gate.passed and gate.message.endswith("there; the release keeps no digests of content@2, pixie@2")

    (registry.folder / "pixie@2" / "weights.bin").write_text("others")
    gate = parts_present(ctx, released)
    assert (gate.passed, gate.value, gate.bound) == (False, 1.0, 2.0)
    assert gate.message.startswith("parts: pixie@2 is not what was released: weights.bin is another file")
    registry.dropped.add("content@2")
    gate = parts_present(ctx, released)
    assert gate.value == 0 and gate.message.startswith(
        "parts: content@2 cleared away by `corkboard gc`; pixie@2"
    )


def test_a_difference_says_that_a_ranker_is_not_the_released_one(
    registry: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release_difference, "registry_of", lambda ctx: registry)
    ctx, part = planted.context(registry.folder), made(registry).parts["pixie"]
    assert release_difference._part(ctx, "ranker", part) == "pixie@2, no calibration there"
    (registry.folder / "pixie@2" / "weights.bin").write_text("others")
    assert "pixie@2 is not what was released" in release_difference._part(ctx, "ranker", part)


def test_files_that_cannot_be_had_are_named(registry: Folders) -> None:
    """Nobody learns a model again for a registry that is down."""
    with pytest.raises(ReleaseError, match=r"files of dcm@9 cannot be read: no such artifact: dcm@9$"):
        released_files(registry, SimpleNamespace(model="dcm", version=9, name="dcm@9", files=None))  # type: ignore[arg-type]


def test_a_forgetting_that_was_cut_short_is_done_again_first(registry: Folders) -> None:
    part = made(registry).parts["pixie"]
    (registry.folder / "pixie@2" / "weights.bin").write_text("with a board")
    with pytest.raises(
        ReleaseError, match=r"run `corkboard forget` again if one was cut short, else .* --force"
    ):
        released_files(registry, part)  # type: ignore[arg-type]


def test_a_version_without_files_is_not_released(registry: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    (registry.folder / "pixie@2" / "weights.bin").unlink()
    with pytest.raises(ReleaseError, match=r"pixie@2 has no files .*train --model pixie --force"):
        made(registry)

    def fails(folder: Path) -> dict[str, str]:
        raise OSError("input/output error")

    monkeypatch.setattr(release_files, "digests_of", fails)
    with pytest.raises(ReleaseError, match="files of content@2 cannot be read: input/output error"):
        made(registry)


def test_what_changed_while_it_was_measured_is_not_released(
    registry: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def registers(*_: object) -> int:
        assert planted.is_locked(ledger), "nobody forgets between the last look and the release"
        return 7

    measured, ledger = made(registry), planted.ledger(registry.folder)
    monkeypatch.setattr(release, "registry_of", lambda ctx: registry)
    monkeypatch.setattr(release, "compose", lambda ctx: measured)
    monkeypatch.setattr(release, "register", registers)
    assert release.release(planted.context(registry.folder), ledger) == 7
    (registry.folder / "pixie@2" / "weights.bin").write_text("without a board")
    with pytest.raises(
        ReleaseError, match=r"pixie@2 changed while .*another file; run `corkboard release` again"
    ):
        release.release(planted.context(registry.folder), ledger)
