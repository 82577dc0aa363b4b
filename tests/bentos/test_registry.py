"""What a service asks the registry, and how often."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from bentos.registry import ModelRegistry


@dataclass
class Client:
    """MLflow's, as far as it is asked for aliases."""

    version: int = 1
    asked: list[str] = field(default_factory=list)

    def get_model_version_by_alias(self, model: str, alias: str) -> SimpleNamespace:
        self.asked.append(alias)
        return SimpleNamespace(version=str(self.version))


def registry(uri: str) -> tuple[ModelRegistry, Client]:
    made, client = ModelRegistry(uri), Client()
    made.__dict__["client"] = client
    return made, client


def grown(file: Path, *, age_s: float) -> None:
    """Written to, that long ago."""
    with file.open("ab") as out:
        out.write(b"a page")
    then = os.stat(file).st_mtime_ns - int(age_s * 1e9)
    os.utime(file, ns=(then, then))


@pytest.mark.parametrize("written", ["mlflow.db", "mlflow.db-wal"])
def test_a_registry_in_a_file_is_asked_where_the_file_has_changed(tmp_path: Path, written: str) -> None:
    database = tmp_path / "mlflow.db"
    grown(database, age_s=9)
    served, client = registry(f"sqlite:///{database}")
    assert [served.version_of("champion") for _ in range(3)] == [1, 1, 1] and client.asked == ["champion"]
    client.version = 2
    grown(tmp_path / written, age_s=5)
    assert [served.version_of("champion") for _ in range(3)] == [2, 2, 2] and len(client.asked) == 2
    served.version_of("challenger")
    assert client.asked[2:] == ["challenger"]


def test_a_file_that_has_just_changed_may_change_unseen_and_is_asked_again(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    grown(database, age_s=0)
    served, client = registry(f"sqlite:///{database}")
    assert served.version_of("champion") == 1
    client.version = 2  # within one tick of the file's clock
    assert served.version_of("champion") == 2


def test_a_server_is_asked_each_time_and_no_file_is_made(tmp_path: Path) -> None:
    served, client = registry("http://127.0.0.1:1")
    assert [served.version_of("champion") for _ in range(2)] == [1, 1] and len(client.asked) == 2
    absent, client = registry(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert absent.version_of("champion") is None and not client.asked and not list(tmp_path.iterdir())
