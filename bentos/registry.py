"""The model registry as a service reads it: an alias, a manifest, the files of a version."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bentos.file_stamp import file_stamp
from training.models import MODEL_FILES
from validation.manifest import MANIFEST_FILE, RELEASE_MODEL, ReleaseManifest

if TYPE_CHECKING:
    from mlflow import MlflowClient


SETTLED_NS = 1_000_000_000
"""A file that changed later than this before a look may change again and look the same: its time is coarse."""


class ManifestMissing(RuntimeError):
    """A version of the release model that carries no manifest."""


@dataclass(frozen=True)
class ModelRegistry:
    """MLflow, read only. Importing it costs seconds, so it happens on the first question."""

    uri: str
    _seen: dict[tuple[str, str], tuple[object, int | None]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """What each model's alias named when the registry's file was as it says."""

    @cached_property
    def client(self) -> MlflowClient:
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
        import mlflow

        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        return mlflow.MlflowClient(self.uri, self.uri)

    def version_of(self, alias: str, model: str = RELEASE_MODEL) -> int | None:
        """The version `alias` points at, None where there is none yet.

        A registry in a file is asked where the file has changed: the answer takes it milliseconds, and services
        look every few seconds.
        """
        if not self.uri.startswith("sqlite:///"):
            return self._asked(alias, model)
        now, stamp = time.time_ns(), _stamp(Path(self.uri.removeprefix("sqlite:///")))
        if not stamp:
            return None  # asking would create an empty registry
        seen = self._seen.get((alias, model))
        if seen is not None and seen[0] == stamp:
            return seen[1]
        version = self._asked(alias, model)
        if now - max(stamp[0], stamp[3]) > SETTLED_NS:
            self._seen[alias, model] = stamp, version
        return version

    def _asked(self, alias: str, model: str) -> int | None:
        from mlflow.exceptions import MlflowException

        try:
            return int(self.client.get_model_version_by_alias(model, alias).version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def manifest(self, version: int) -> ReleaseManifest:
        """The manifest of a release. Raises ManifestMissing."""
        path = self._download(RELEASE_MODEL, version) / MANIFEST_FILE
        if not path.exists():
            raise ManifestMissing(
                f"{RELEASE_MODEL} version {version} holds no {MANIFEST_FILE}; run `corkboard release` again"
            )
        return ReleaseManifest.model_validate_json(path.read_text())

    def files(self, model: str, version: int) -> Path:
        """Folder of a version's weights and configuration."""
        return self._download(model, version) / MODEL_FILES

    def _download(self, model: str, version: int) -> Path:
        import mlflow

        uri = self.client.get_model_version_download_uri(model, str(version))
        return Path(mlflow.artifacts.download_artifacts(uri, tracking_uri=self.uri))


def _stamp(database: Path) -> tuple[int, ...]:
    """What changes with every write to an SQLite database, be it to the file or to its log; empty where there is
    none."""
    try:
        main = file_stamp(database)
    except FileNotFoundError:
        return ()
    try:
        log = file_stamp(database.with_name(database.name + "-wal"))
    except FileNotFoundError:
        log = (0, 0, 0)
    return *main, *log
