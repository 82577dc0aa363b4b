"""Model versions hold everything a reader needs, and no pickle."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure

from training.commit import git_commit
from training.model_log import FLAVOURS, Dataset, ModelLog, columns_signature, pinned
from training.models import MODEL_FILES
from training.models.pinnability import FeatureSpec, LogisticRanker
from training.models.ranker import load_ranker
from training.registry import COMMIT_TAG, INPUTS_TAG, Registry, _hold_back_advice
from validation.part_files import FilesGone

NAME = "pinnability_logistic"
SPEC = FeatureSpec(user=(), pin=(), interactions=("weekend", "cos_day_max"), position=False)
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


def ranker() -> LogisticRanker:
    one = np.ones(2, np.float32)
    return LogisticRanker(SPEC, mean=0 * one, scale=one, weights=np.array([1, 2], np.float32), bias=-0.5)


def log_of(folder: Path, inputs: str = "inputs-1", **changes: object) -> ModelLog:
    ranker().save(folder / "model")
    figure = Figure()
    figure.subplots().plot([0, 1])
    given = {
        "name": NAME,
        "files": folder / "model",
        "flavour": FLAVOURS / "pinnability.py",
        "description": "A ranker for a test.",
        "params": {"l2": 0.5, "seed": 7},
        "metrics": {"auc": 0.75, "ece/new_users": 0.02},
        "interval": (START, END),
        "datasets": (Dataset("training_set", str(folder), "feedc0de"),),
        "signature": columns_signature(dict.fromkeys(SPEC.names, "float")),
        "requirements": pinned("numpy", "safetensors"),
        "inputs": inputs,
        "tags": {"feature_service": "pinnability_v1"},
        "figures": {"roc": figure},
        "notes": "Known limits.",
    }
    return ModelLog(**{**given, **changes})


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, give_registry: Callable[[Path], Registry]) -> Registry:
    return give_registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def version(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> int:
    return registry.log_model_version(log_of(tmp_path_factory.mktemp("log")))


def test_a_version_says_what_it_was_made_from(registry: Registry, version: int):
    record = registry.version(NAME, version)
    assert record.tags[INPUTS_TAG] == "inputs-1"
    assert record.tags[COMMIT_TAG] == git_commit()
    assert record.tags["feature_service"] == "pinnability_v1"
    assert (record.tags["data_start"], record.tags["data_end"]) == (START.isoformat(), END.isoformat())
    assert "Known limits." in record.description and "feedc0de" in record.description
    run = registry.client.get_run(record.run_id)
    assert run.data.params == {"l2": "0.5", "seed": "7"}
    assert run.data.metrics == {"auc": 0.75, "ece/new_users": 0.02}
    [data] = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("training_set", "feedc0de")
    artifacts = {f.path for f in registry.client.list_artifacts(record.run_id)}
    assert {"model_card.md", "figures"} <= artifacts
    assert registry.metrics(NAME, version) == run.data.metrics
    assert registry.params(NAME, version) == run.data.params


def test_a_card_takes_what_was_measured_later(registry: Registry, version: int):
    before = registry.version(NAME, version).description
    for text in ("AUC .7", "AUC .8\n\n| a | b |"):
        registry.add_to_card(NAME, version, "Against others", text)
    record = registry.version(NAME, version)
    assert record.description == before.rstrip("\n") + "\n\n## Against others\n\nAUC .8\n\n| a | b |\n"
    file = registry.client.download_artifacts(record.run_id, "model_card.md")
    assert Path(file).read_text() == record.description


def test_the_files_come_back_and_score_the_same(registry: Registry, version: int):
    files = registry.download(NAME, version)
    features = np.random.default_rng(0).random((5, 2)).astype(np.float32)
    np.testing.assert_array_equal(load_ranker(files).score(features), ranker().score(features))


def test_there_is_no_pickle_and_the_requirements_are_as_given(registry: Registry, version: int):
    folder = registry.download(NAME, version).parents[len(Path(MODEL_FILES).parts) - 1]
    names = {p.name for p in folder.rglob("*") if p.is_file()}
    assert {"ranker.safetensors", "ranker.json", "pinnability.py", "MLmodel"} <= names
    assert not [n for n in names if n.endswith((".pkl", ".pickle", ".pt", ".joblib", ".npy"))]
    required = (folder / "requirements.txt").read_text().split()
    assert [r for r in required if not r.startswith("mlflow")] == list(pinned("numpy", "safetensors"))
    described = yaml.safe_load((folder / "MLmodel").read_text())
    assert "weekend" in described["signature"]["inputs"]
    assert described["flavors"]["python_function"]["loader_module"] == "mlflow.pyfunc.loaders.code_model"


def test_mlflows_own_loader_reads_it(registry: Registry, version: int):
    import mlflow

    registry.alias(NAME, "champion")
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}/{version}")
    frame = pd.DataFrame({"cos_day_max": [0.5], "weekend": [1.0]}).astype("float32")
    expected = ranker().score(np.array([[1.0, 0.5]], np.float32))
    np.testing.assert_allclose(loaded.predict(frame), expected)


def test_versions_are_found_by_inputs_and_by_alias(registry: Registry, version: int, tmp_path: Path):
    second = registry.log_model_version(log_of(tmp_path, "inputs-2"))
    assert registry.versions(NAME) == [version, second] and registry.latest(NAME) == second
    assert registry.find(NAME, "inputs-1") == version and registry.find(NAME, "inputs-2") == second
    assert registry.find(NAME, "inputs-3") is None and registry.find("unheard_of", "inputs-1") is None
    assert registry.alias(NAME, "champion") is None and registry.alias("unheard_of", "champion") is None
    registry.set_alias(NAME, "champion", version)
    assert registry.alias(NAME, "champion") == version


def test_a_version_that_is_not_there_is_named(registry: Registry, version: int):
    with pytest.raises(KeyError, match=r"has no version 99; versions: 1"):
        registry.download(NAME, 99)
    assert registry.latest("unheard_of") is None and registry.versions("unheard_of") == []


def test_a_second_registry_object_reads_the_same_store(registry: Registry, version: int):
    assert version in Registry(registry.uri, registry.artifacts).versions(NAME)


def test_a_folder_of_another_name_is_refused_before_anything_is_registered(registry: Registry, tmp_path: Path):
    ranker().save(tmp_path / "weights")
    before = registry.versions(NAME)
    with pytest.raises(ValueError, match="to be named 'model'"):
        registry.log_model_version(log_of(tmp_path, "inputs-9", files=tmp_path / "weights"))
    assert registry.versions(NAME) == before


def test_files_that_somebody_took_away_are_named_with_their_folder(registry: Registry, version: int):
    folder = registry.download(NAME, version).parents[len(Path(MODEL_FILES).parts) - 1]
    away = folder.rename(folder.with_name("away"))
    with pytest.raises(FilesGone, match=rf"{NAME}@{version} has no files; .* put back the files in {folder}, "):
        registry.download(NAME, version)
    away.rename(folder)
    assert registry.download(NAME, version).is_dir()


def test_the_database_and_its_folder_are_made_on_first_use(tmp_path: Path):
    assert Registry(f"sqlite:///{tmp_path}/deep/mlflow.db").latest("unheard_of") is None
    assert (tmp_path / "deep" / "mlflow.db").exists()


def test_filters_that_another_thread_sets_meanwhile_stay(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import mlflow

    log_metrics = mlflow.log_metrics

    def meanwhile(*args: object, **named: object) -> object:
        warnings.filterwarnings("ignore", message="of another thread")
        return log_metrics(*args, **named)

    monkeypatch.setattr(mlflow, "log_metrics", meanwhile)
    _hold_back_advice.cache_clear()  # pytest gives each test the filters of the start
    with warnings.catch_warnings():
        registry.log_model_version(log_of(tmp_path, "inputs-filters"))
        patterns = [said.pattern for _, said, *_ in warnings.filters if said is not None]
    assert "of another thread" in patterns and any("input example" in pattern for pattern in patterns)


def test_advice_is_held_back_once_a_process(registry: Registry, version: int, monkeypatch: pytest.MonkeyPatch):
    registry.download(NAME, version)
    monkeypatch.setattr(warnings, "filterwarnings", lambda *given, **named: pytest.fail("set again"))
    registry.download(NAME, version)


def test_where_the_registry_fails_twice_its_first_error_is_told(
    registry: Registry, version: int, monkeypatch: pytest.MonkeyPatch
):
    import mlflow

    def fails(said: str) -> None:
        raise mlflow.MlflowException(said)

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", lambda *given, **named: fails("first"))
    monkeypatch.setattr(Registry, "_location", lambda *given: fails("second"))
    with pytest.raises(mlflow.MlflowException, match="first"):
        registry.download(NAME, version)
