"""The model registry as a service reads it: an alias, a manifest, the files of a version."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bentos.settings import Settings
from training.models import MODEL_FILES
from validation.file_stamp import SETTLED_NS, file_stamp
from validation.file_uri import folder_gone, sqlite_file
from validation.kept_release import KeptRelease, note_of
from validation.manifest import MANIFEST_FILE, RELEASE_MODEL, ReleaseManifest
from validation.part_files import FilesGone

if TYPE_CHECKING:
    from mlflow import MlflowClient


logger = logging.getLogger("corkboard.release")

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""How long a server that does not answer is asked, unless the environment says: MLflow's own are minutes a
question, and a service that starts has a dozen. Whoever asks first writes it into the environment of the whole
process."""

UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""How MLflow says that there is no such alias, or no such model."""


class ManifestMissing(RuntimeError):
    """A version of the release model that carries no manifest."""


@dataclass(frozen=True)
class ModelRegistry:
    """MLflow, read only. Importing it costs seconds, so it happens on the first question.

    Where it cannot be asked, `version_of` raises, and the note at `kept` says what was served last and where
    its files are on this machine: a version's never change.
    """

    uri: str
    kept: Path | None = None
    _folders: dict[str, Path] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Where versions are on this machine, by `model@version`: their files never change, and asking takes many
    queries."""
    _seen: dict[str, tuple[object, int | None]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """What each alias named when the registry's file was as it says."""

    @classmethod
    def of(cls, settings: Settings, role: str) -> ModelRegistry:
        """The settings' registry, with the note of the home's processes of one role."""
        return cls(settings.mlflow_uri, note_of(settings.home, role))

    @cached_property
    def client(self) -> MlflowClient:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
        import mlflow

        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        return mlflow.MlflowClient(self.uri, self.uri)

    def version_of(self, alias: str) -> int | None:
        """The release that `alias` points at, None where there is none yet.

        A registry in a file is asked where the file has changed: the answer takes it milliseconds, and services
        look every few seconds. Raises whatever MLflow's client raises where it cannot be asked.
        """
        now, stamp = time.time_ns(), ()
        database = sqlite_file(self.uri)
        if database is not None:
            stamp = _stamp(database)
            if not stamp:
                return None  # asking would create an empty registry
            seen = self._seen.get(alias)
            if seen is not None and seen[0] == stamp:
                return seen[1]
        version = self._asked(alias)
        if stamp and now - max(stamp[0], stamp[4]) > SETTLED_NS:
            self._seen[alias] = stamp, version
        return version

    def served_last(self, alias: str) -> int | None:
        """The release that was noted last as served for `alias`, None where no note says; asks no registry."""
        note = self._note()
        return note.version if note is not None and note.alias == alias else None

    def _asked(self, alias: str) -> int | None:
        try:
            return int(self.client.get_model_version_by_alias(RELEASE_MODEL, alias).version)
        except Exception as error:
            if getattr(error, "error_code", None) in UNKNOWN:
                return None
            raise

    def keep(self, alias: str, manifest: ReleaseManifest, version: int) -> None:
        """Note that `version` is served, for a start without the registry."""
        made_of = {f"{RELEASE_MODEL}@{version}", *(f"{p.model}@{p.version}" for p in manifest.parts.values())}
        if self.kept is not None:
            folders = {name: str(path) for name, path in self._folders.items() if name in made_of}
            KeptRelease(alias=alias, version=version, folders=folders).save(self.kept)

    def manifest(self, version: int) -> ReleaseManifest:
        """The manifest of a release. Raises ManifestMissing, and what `files` does."""
        path = self._download(RELEASE_MODEL, version) / MANIFEST_FILE
        if not path.exists():
            raise ManifestMissing(
                f"{RELEASE_MODEL} version {version} holds no {MANIFEST_FILE}; run `corkboard release` again"
            )
        return ReleaseManifest.model_validate_json(path.read_text())

    def files(self, model: str, version: int) -> Path:
        """Folder of a version's weights and configuration.

        Raises FilesGone where the registry names a folder of this machine that is not there, and what MLflow's
        client raises where it cannot be asked.
        """
        return self._download(model, version) / MODEL_FILES

    def _download(self, model: str, version: int) -> Path:
        import mlflow

        name = f"{model}@{version}"
        held = self._folders.get(name)
        if held is not None and held.exists():
            return held
        uri = ""
        try:
            uri = self.client.get_model_version_download_uri(model, str(version))
            folder = Path(mlflow.artifacts.download_artifacts(uri, tracking_uri=self.uri))
        except Exception as error:
            # Drivers and servers fail in ways of their own; what this machine has of a version is that version.
            note = self._note()
            if note is None or name not in note.folders or not Path(note.folders[name]).is_dir():
                gone = folder_gone(uri) if uri else None
                if gone is None:
                    raise
                raise FilesGone.of(model, version, gone) from error
            folder = Path(note.folders[name])
            logger.warning("%s is read where it was before: %r", name, error)
        self._folders[name] = folder
        return folder

    def _note(self) -> KeptRelease | None:
        return None if self.kept is None else KeptRelease.read(self.kept)


def _stamp(database: Path) -> tuple[int, ...]:
    """What changes with every write to an SQLite database, be it to the file or to its log; empty where there
    is none."""
    try:
        main = file_stamp(database)
    except FileNotFoundError:
        return ()
    try:
        log = file_stamp(database.with_name(database.name + "-wal"))
    except FileNotFoundError:
        log = (0, 0, 0, 0)
    return *main, *log
