"""The model registry as a service reads it: an alias, a manifest, the files of a version."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from training.models import MODEL_FILES
from validation.manifest import MANIFEST_FILE, RELEASE_MODEL, ReleaseManifest

if TYPE_CHECKING:
    from mlflow import MlflowClient


class ManifestMissing(RuntimeError):
    """A version of the release model that carries no manifest."""


@dataclass(frozen=True)
class ModelRegistry:
    """MLflow, read only. Importing it costs seconds, so it happens on the first question."""

    uri: str
    _folders: dict[tuple[str, int], Path] = field(default_factory=dict, init=False, compare=False)
    """Where versions are on this machine: a version's files never change, and asking takes many queries."""

    @cached_property
    def client(self) -> MlflowClient:
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
        import mlflow

        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        return mlflow.MlflowClient(self.uri, self.uri)

    def version_of(self, alias: str, model: str = RELEASE_MODEL) -> int | None:
        """The version `alias` points at, None where there is none yet."""
        from mlflow.exceptions import MlflowException

        if self.uri.startswith("sqlite:///") and not Path(self.uri.removeprefix("sqlite:///")).exists():
            return None  # asking would create an empty registry
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

        held = self._folders.get((model, version))
        if held is None or not held.exists():
            uri = self.client.get_model_version_download_uri(model, str(version))
            held = Path(mlflow.artifacts.download_artifacts(uri, tracking_uri=self.uri))
            self._folders[model, version] = held
        return held
