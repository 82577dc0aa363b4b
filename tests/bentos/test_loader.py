"""From a manifest to a serving release: a process loads its role's parts, and refuses what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bentos.loader import WHOLE, ReleaseLoader, Role
from bentos.serving import ReleaseRejected
from bentos.settings import Settings
from tests.bentos.fakes import (
    DIM,
    PINS,
    SPACE,
    likes_the_near,
    manifest,
    planted_features,
    planted_pixie,
    planted_release,
)
from training.models.pinnersage import PinnerSageConfig
from validation.lake import Lake
from validation.manifest import CollectionCheck, ReleaseManifest
from validation.tables import Contract


class FakeRegistry:
    """Manifests and model folders on disk, as MLflow would hand them out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifests: dict[int, ReleaseManifest] = {1: manifest(1), 2: manifest(2)}
        self.champion: int | None = 1

    def version_of(self, alias: str) -> int | None:
        return self.champion if alias == "champion" else None

    def manifest(self, version: int) -> ReleaseManifest:
        return self.manifests[version]

    def files(self, model: str, version: int) -> Path:
        folder = self.folder / model / str(version)
        if not folder.exists():
            folder.mkdir(parents=True)
            if model == "pinnersage":
                PinnerSageConfig(alpha=0.5 * version).save(folder)
            elif model == "pixie":
                planted_pixie().save(folder)
            else:
                likes_the_near().save(folder)
        return folder


@pytest.fixture
def loader_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ReleaseLoader]:
    lake = Lake(tmp_path / "lake")
    lake.write_contract(Contract(name="planted"))
    replica = planted_release(tmp_path).indexes[SPACE]
    opened: list[str] = []

    def open_index(self: ReleaseLoader, collection: str, rows: int) -> object:
        opened.append(collection)
        return replica

    monkeypatch.setattr(ReleaseLoader, "_open_index", open_index)

    def make(role: Role = WHOLE) -> ReleaseLoader:
        settings = Settings(home=tmp_path, mlflow_uri="sqlite:///none")
        loader = ReleaseLoader(settings, FakeRegistry(tmp_path / "models"), planted_features(), role)  # type: ignore[arg-type]
        loader.opened = opened  # type: ignore[attr-defined]
        return loader

    return make


def test_a_whole_release(loader_of: Callable[..., ReleaseLoader]) -> None:
    loader = loader_of()
    release = loader.load(loader.newest() or 0)
    assert release.version == 1 and release.space == SPACE and release.dim(SPACE) == DIM
    assert release.indexes[SPACE].rows == PINS
    assert release.pinnersage == PinnerSageConfig(alpha=0.5)
    assert release.ranker is not None and release.ranker_name == "pinnability_lr@1"
    assert release.contract.name == "planted" and release.topics == {}
    loader.check(release)


@pytest.mark.parametrize(
    ("role", "retrieves", "ranks"),
    [(Role.FEED, False, False), (Role.RETRIEVE, True, False), (Role.RANK, False, True)],
)
def test_a_process_loads_no_more_than_its_role(
    loader_of: Callable[..., ReleaseLoader], role: Role, retrieves: bool, ranks: bool
) -> None:
    release = loader_of(role).load(1)
    assert bool(release.indexes) is retrieves and (release.pinnersage is not None) is retrieves
    assert (release.walker is not None) is retrieves
    assert (release.ranker is not None) is ranks
    assert release.space == SPACE, "vectors then come from the feature store"
    loader_of(role).check(release)


def test_releases_of_one_space_share_its_index(loader_of: Callable[..., ReleaseLoader]) -> None:
    loader = loader_of()
    one, two = loader.load(1), loader.load(2)
    assert one.indexes[SPACE] is two.indexes[SPACE]
    assert loader.opened == ["pins__content__1"]  # type: ignore[attr-defined]
    assert two.pinnersage == PinnerSageConfig(alpha=1.0)


def test_a_collection_that_is_not_the_manifests_is_rejected(loader_of: Callable[..., ReleaseLoader]) -> None:
    loader = loader_of()
    check = manifest().collections[0]
    grown = CollectionCheck(**{**check.model_dump(), "rows": PINS + 1})
    loader.registry.manifests[3] = manifest(3, collections=(grown,))  # type: ignore[attr-defined]
    with pytest.raises(ReleaseRejected, match=f"holds {PINS} rows of {DIM} dimensions.*{PINS + 1}"):
        loader.load(3)


def test_a_release_of_popular_pins_alone(loader_of: Callable[..., ReleaseLoader]) -> None:
    loader = loader_of()
    loader.registry.manifests[4] = manifest(4, parts={}, collections=(), sources=("popular_by_topic",))  # type: ignore[attr-defined]
    release = loader.load(4)
    assert release.space is None and release.ranker is None and release.pinnersage is None
    loader.check(release)


def test_a_release_with_a_collection_needs_milvus(tmp_path: Path) -> None:
    Lake(tmp_path / "lake").write_contract(Contract())
    settings = Settings(home=tmp_path, mlflow_uri="sqlite:///none")
    loader = ReleaseLoader(settings, FakeRegistry(tmp_path), planted_features())  # type: ignore[arg-type]
    with pytest.raises(ReleaseRejected, match="CORKBOARD_MILVUS_URI is not set"):
        loader.load(1)
