"""From a manifest to a serving release: a process loads its role's parts, and refuses what does not fit."""

from __future__ import annotations

import errno
import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bentos.loader import WHOLE, ReleaseLoader, Role
from bentos.networks import Learned
from bentos.release import ServingRelease
from bentos.serving import ReleaseRejected
from bentos.settings import Settings
from bentos.shared_parts import SharedParts
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
from tests.bentos.planted_networks import learned_manifest, networks, save
from training.models.ads.ranking import AdsPolicy
from training.models.calibration import Calibrator, HeadCalibration, Platt
from training.models.pinnersage import PinnerSageConfig
from training.models.two_tower import TwoTower, TwoTowerConfig
from validation.file_digests import digests_of
from validation.lake import Lake
from validation.manifest import CollectionCheck, Part, ReleaseManifest
from validation.tables import Contract


class FakeRegistry:
    """Manifests and model folders on disk, as MLflow would hand them out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifests: dict[int, ReleaseManifest] = {1: manifest(1), 2: manifest(2)}
        self.champion: int | None = 1
        self.networks = networks()

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
            elif model in set(Learned):
                save(self.networks, Learned(model), folder)
            elif model == "pixie":
                planted_pixie().save(folder)
            else:
                likes_the_near().save(folder)
        return folder


@pytest.fixture
def loader_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ReleaseLoader]:
    lake = Lake(tmp_path / "lake")
    lake.write_contract(Contract(name="planted"))
    held = {i.name: i for i in planted_release(tmp_path, learned=True).indexes.values()}
    opened: list[str] = []

    def open_index(self: ReleaseLoader, collection: str, rows: int) -> object:
        opened.append(collection)
        return held[collection]

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
    assert bool(len(release.popular)) is (role is not Role.RETRIEVE), "what a feed has where all else fails"
    assert release.space == SPACE, "vectors then come from the feature store"
    loader_of(role).check(release)


def test_releases_share_what_they_have_in_common_and_let_it_go_with_the_last(
    loader_of: Callable[..., ReleaseLoader],
) -> None:
    loader = loader_of()
    first = loader.load(1)
    loader.registry.manifests[9] = loader.registry.manifest(1)  # type: ignore[attr-defined]
    second = loader.load(9)
    assert second.ranker is first.ranker and second.indexes[SPACE] is first.indexes[SPACE]
    assert second.walker is not first.walker, "a walker follows the log of its own release"
    assert second.walker.released is first.walker.released
    gone = weakref.ref(first.ranker)
    del first, second
    gc.collect()
    assert gone() is None and loader.load(1).ranker is not None


def held_by(release: ServingRelease) -> set[str]:
    return {role.value for role in Learned if getattr(release.networks, role) is not None}


@pytest.mark.parametrize(
    ("role", "held"),
    [(Role.FEED, set()), (Role.RETRIEVE, set(Learned)), (Role.RANK, {"two_tower"}), (WHOLE, set(Learned))],
)
def test_learned_retrievers_are_loaded_where_they_run(
    loader_of: Callable[..., ReleaseLoader], role: Role, held: set[str]
) -> None:
    import torch

    loader = loader_of(role)
    loader.registry.manifests[5] = learned_manifest(5)  # type: ignore[attr-defined]
    release = loader.load(5)
    assert held_by(release) == held and held_by(loader.load(1)) == set()
    assert not held or torch.get_num_threads() == 1
    assert release.user_spaces == (("pinnerformer@2",) if role & Role.RETRIEVE else ())
    assert release.space_of("dcm") == "dcm@2" and loader.load(1).space_of("dcm") is None
    loader.check(release)


def test_a_network_of_another_content_space_is_rejected_by_name(
    loader_of: Callable[..., ReleaseLoader],
) -> None:
    loader = loader_of()
    loader.registry.manifests[6] = learned_manifest(6)  # type: ignore[attr-defined]
    release = loader.load(6)
    odd = TwoTower(TwoTowerConfig(dim=14, hidden=8), DIM + 1)
    wrong = replace(release, networks=replace(release.networks, two_tower=odd))
    with pytest.raises(ReleaseRejected, match=f"two_tower@2 reads {DIM + 1}-d content .* holds {DIM}-d pins"):
        loader.check(wrong)


@pytest.mark.parametrize("model", ["pinnability_lr", "pixie", "pinnersage", "two_tower", "dcm"])
def test_a_release_with_a_damaged_file_is_rejected_by_name(
    loader_of: Callable[..., ReleaseLoader], model: str
) -> None:
    loader = loader_of()
    loader.registry.manifests[5] = learned_manifest(5)  # type: ignore[attr-defined]
    whole = loader.registry.files

    def damaged(name: str, version: int) -> Path:
        folder = whole(name, version)
        for file in folder.rglob("*.*") if name == model else ():
            file.write_bytes(file.read_bytes()[:7])
        return folder

    loader._shared = SharedParts(damaged)
    mend = rf"files in /.*{model}.*, or run `corkboard train --model {model}"
    with pytest.raises(ReleaseRejected, match=rf"(?s){model}@\d cannot be read: .*{mend}"):
        loader.load(5)


def digested(loader: ReleaseLoader, given: ReleaseManifest) -> ReleaseManifest:
    """The manifest with the digests of its parts' files, and the loader's registry gives it."""
    files = loader.registry.files
    parts = {
        role: part.model_copy(update={"files": digests_of(files(part.model, part.version))})
        for role, part in given.parts.items()
    }
    made = given.model_copy(update={"parts": parts})
    loader.registry.manifests[5] = made  # type: ignore[attr-defined]
    return made


def flipped(file: Path) -> None:
    """One bit in the middle of a file is another."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("role", ["ranker", "pixie", "pinnersage", "two_tower", "dcm", "pinnerformer"])
def test_a_flipped_bit_in_a_part_rejects_the_release_and_names_the_file(
    loader_of: Callable[..., ReleaseLoader], role: str
) -> None:
    loader = loader_of()
    part = digested(loader, learned_manifest(5)).parts[role]
    assert part.files is not None
    name = max(part.files)
    file = loader.registry.files(part.model, part.version) / name
    whole = file.read_bytes()
    flipped(file)
    with pytest.raises(
        ReleaseRejected, match=f"{part.name} is not what was released: {name} is another file; run `corkboard"
    ):
        loader.load(5)
    file.write_bytes(whole)
    assert loader.load(5).version == 5, "the files were put back"


@pytest.mark.parametrize("role", [Role.FEED, Role.RANK, WHOLE])
def test_a_calibrator_that_is_not_the_released_one_is_rejected(
    loader_of: Callable[..., ReleaseLoader], role: Role
) -> None:
    loader = loader_of(role)
    folder = loader.registry.files("pinnability_lr", 1)
    platt_of("pinnability_lr@1").save(folder)
    digested(loader, manifest(1))
    platt_of("pinnability_lr@1", bias=-2).save(folder)
    with pytest.raises(ReleaseRejected, match=r"pinnability_lr@1 is not .*: calibration.json is another file"):
        loader.load(5)


def test_a_release_without_digests_is_served_and_says_so_once(
    loader_of: Callable[..., ReleaseLoader], caplog: pytest.LogCaptureFixture
) -> None:
    loader = loader_of()
    part = manifest(1).parts["ranker"]
    likes_the_near().save(loader.registry.files(part.model, part.version))
    loader.check(loader.load(1))
    assert [r.levelname for r in caplog.records if "no digests" in r.message] == ["WARNING"]
    assert "release 1 keeps no digests of content@1, pinnersage@1, pixie@1, pinnability_lr@1" in caplog.text
    caplog.clear()
    digested(loader, manifest(1))
    loader.load(5)
    assert "no digests" not in caplog.text


def test_releases_that_share_a_part_read_its_files_once(loader_of: Callable[..., ReleaseLoader]) -> None:
    loader = loader_of()
    made = digested(loader, manifest(1))
    first = loader.load(5)
    loader.registry.manifests[6] = made  # type: ignore[attr-defined]
    flipped(loader.registry.files("pixie", 1) / "pixie.json")
    second = loader.load(6)
    assert second.walker is not None and first.walker is not None
    assert second.walker.released is first.walker.released, "what is in memory is whole"


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


def platt_of(ranker: str, head: str = "engage", bias: float = -1, **changes: object) -> Calibrator:
    curve = Platt(slope=0.5, bias=bias, **changes)  # type: ignore[arg-type]
    features = ("pin_positives_7d",) if changes else ()
    return Calibrator(ranker=ranker, heads=(HeadCalibration(head=head, curve=curve),), features=features)


@pytest.mark.parametrize("role", [Role.FEED, Role.RANK, WHOLE])
def test_the_calibrator_beside_the_ranker_is_the_releases(
    loader_of: Callable[..., ReleaseLoader], role: Role
) -> None:
    loader = loader_of(role)
    assert loader.load(1).calibrator is None, "a ranker of before: its scores pass as they are"
    made = platt_of("pinnability_lr@1", weights=(0.1,), mean=(0.0,), scale=(1.0,))
    made.save(loader.registry.files("pinnability_lr", 1))
    release = loader.load(1)
    assert release.calibrator == made and release.heads == ("engage",)
    loader.check(release)
    assert loader_of(Role.RETRIEVE).load(1).calibrator is None


@pytest.mark.parametrize("role", [Role.FEED, WHOLE])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (platt_of("pinnability_lr@2"), "for pinnability_lr@2, not pinnability_lr@1"),
        (
            platt_of("pinnability_lr@1", weights=(0.1,), mean=(0.0,), scale=(1.0,)).model_copy(
                update={"features": ("weather",)}
            ),
            "reads weather, and serving has no such column",
        ),
    ],
)
def test_a_calibrator_that_does_not_fit_is_rejected_by_name(
    loader_of: Callable[..., ReleaseLoader], role: Role, wrong: Calibrator, words: str
) -> None:
    loader = loader_of(role)
    wrong.save(loader.registry.files("pinnability_lr", 1))
    with pytest.raises(ReleaseRejected, match=f"calibration of pinnability_lr@1.*{words}"):
        loader.load(1)


def test_a_calibrator_of_other_heads_or_unreadable_is_rejected(loader_of: Callable[..., ReleaseLoader]) -> None:
    loader = loader_of()
    folder = loader.registry.files("pinnability_lr", 1)
    platt_of("pinnability_lr@1", head="save").save(folder)
    with pytest.raises(ReleaseRejected, match="calibrator has heads save, the ranker engage"):
        loader.load(1)
    (folder / "calibration.json").write_text("{}")
    with pytest.raises(ReleaseRejected, match="calibration of pinnability_lr@1"):
        loader.load(1)


def test_a_typo_in_the_ads_policy_costs_its_numbers_and_no_release(
    loader_of: Callable[..., ReleaseLoader], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loader = loader_of(Role.FEED)
    parts = manifest(1).parts | {"ads": Part(model="ads_multi_tower", version=3, space=SPACE)}
    loader.registry.manifests[1] = manifest(1, parts=parts)  # type: ignore[attr-defined]
    file = tmp_path / "ads.yaml"
    file.write_text("every: 6")
    assert loader.load(1).ads_policy == AdsPolicy(every=6)
    assert "ads.yaml" not in caplog.text
    file.write_text("everi: 6")
    release = loader.load(1)
    assert release.has_ads and release.ads_policy == AdsPolicy()
    assert [r.levelname for r in caplog.records if "ads.yaml" in r.message] == ["ERROR"]
    assert "ads.yaml: everi: " in caplog.text


def test_a_release_with_a_collection_needs_milvus(tmp_path: Path) -> None:
    Lake(tmp_path / "lake").write_contract(Contract())
    settings = Settings(home=tmp_path, mlflow_uri="sqlite:///none")
    loader = ReleaseLoader(settings, FakeRegistry(tmp_path), planted_features())  # type: ignore[arg-type]
    with pytest.raises(ReleaseRejected, match="CORKBOARD_MILVUS_URI is not set"):
        loader.load(1)


def test_a_machine_in_trouble_rejects_no_release(loader_of: Callable[..., ReleaseLoader]) -> None:
    loader = loader_of()
    part = loader.registry.manifest(1).parts["ranker"]

    def opened(_: Path) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(OSError, match="Too many open files"):
        SharedParts(loader.registry.files).read(part, opened)
