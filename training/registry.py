"""The model registry: one MLflow run and one model version for everything that is trained.

A version holds weights and configuration, never a pickled class, together with what a reader needs to trust
it: parameters, metrics, the data's interval and digest, the code's commit, the signature, the requirements
and a model card. Plain MLflow underneath: `mlflow ui`, aliases and `models:/name@alias` work as ever.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.commit import git_commit
from training.model_log import Dataset, ModelLog, model_card
from training.models import MODEL_FILES
from validation.file_uri import local_folder, sqlite_file
from validation.part_files import FilesGone

if TYPE_CHECKING:
    import mlflow
    from mlflow.entities.model_registry import ModelVersion

EXPERIMENT = "corkboard"

INPUTS_TAG = "corkboard.inputs"
"""Digest of everything a version was made from; a pipeline whose digest is already here has nothing to do."""

WEIGHTS_TAG = "weights_of"
"""Version whose weights a version has kept."""

LEARNED_UNTIL_TAG = "learned_until"
"""UTC time before which everything a version's weights were learned from lies."""

DROPPED_TAG = "corkboard.files"
"""On a version whose files retention takes away: it is there to read about, and counts as gone."""

_DROPPING, _DROPPED = "going", "gone"

COMMIT_TAG = "git_commit"
CARD = "model_card.md"

TRAINED = "trained"
"""Alias of the version that the last training run made or found unchanged: what releases are composed of."""


class VersionDropped(LookupError):
    """A version whose files retention took away."""


@dataclass(frozen=True)
class Registry:
    """One MLflow tracking server or database. Creating the object touches nothing and imports nothing."""

    uri: str
    artifacts: Path | None = None
    """Artifact folder of an experiment created here; a tracking server (http) chooses its own."""

    @cached_property
    def client(self) -> mlflow.MlflowClient:
        self._use()
        from mlflow import MlflowClient

        client = MlflowClient(self.uri, self.uri)
        client.get_experiment("0")  # a SQLite database is made on its first use
        return client

    def log_model_version(self, log: ModelLog) -> int:
        """Log one run with its model and register the model's version; the version's number.

        Raises ValueError for a folder not named as MODEL_FILES ends, mlflow.MlflowException where the store
        refuses; nothing is registered then.
        """
        files = _named_model(log.files)
        self._use()
        import mlflow

        start, end = log.interval
        tags = {
            **log.tags,
            COMMIT_TAG: git_commit(),
            "mlflow.source.git.commit": git_commit(),
            "data_start": start.isoformat(),
            "data_end": end.isoformat(),
            INPUTS_TAG: log.inputs,
        }
        card = model_card(log)
        with mlflow.start_run(experiment_id=self.experiment(), run_name=log.name, tags=tags) as run:
            mlflow.log_params({k: str(v)[:5000] for k, v in log.params.items()})
            for data in log.datasets:
                mlflow.log_input(_mlflow_dataset(data), data.context)
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(log.flavour),
                artifacts={"model": str(files)},
                signature=log.signature,
                pip_requirements=list(log.requirements),
                metadata={INPUTS_TAG: log.inputs, COMMIT_TAG: git_commit()},
            )
            mlflow.log_metrics({k: float(v) for k, v in log.metrics.items()}, model_id=info.model_id)
            mlflow.log_text(card, CARD)
            for name, figure in log.figures.items():
                mlflow.log_figure(figure, f"figures/{name}.png")
        self.ensure_model(log.name, log.description)
        version = self.client.create_model_version(
            log.name, info.model_uri, run.info.run_id, tags=tags, description=card, model_id=info.model_id
        )
        return int(version.version)

    def ensure_model(self, name: str, description: str = "") -> None:
        """Create the registered model where it does not exist yet."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name, description=description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def experiment(self) -> str:
        """Id of the experiment, created on first use with its artifacts under `artifacts`."""
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        location = None
        if self.artifacts is not None and not self.uri.startswith("http"):
            self.artifacts.mkdir(parents=True, exist_ok=True)
            location = self.artifacts.resolve().as_uri()
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=location))

    def version(self, name: str, version: int) -> ModelVersion:
        """The registry's record of one version. Raises KeyError naming what there is instead."""
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_model_version(name, str(version))
        except MlflowException as error:
            known = ", ".join(str(v) for v in self.versions(name)) or "none"
            raise KeyError(f"{name} has no version {version}; versions: {known}") from error

    def versions(self, name: str) -> list[int]:
        """Versions of a model, oldest first; empty for a model never registered."""
        return sorted(int(v.version) for v in self._found(name) if DROPPED_TAG not in v.tags)

    def latest(self, name: str) -> int | None:
        """The newest version, or None."""
        versions = self.versions(name)
        return versions[-1] if versions else None

    def next_version(self, name: str) -> int:
        """The number that the next version registered will have, if nobody else registers one meanwhile."""
        return (self.latest(name) or 0) + 1

    def trained(self, name: str) -> int | None:
        """The version of the last training run; the newest where no run has said."""
        return self.alias(name, TRAINED) or self.latest(name)

    def find(self, name: str, inputs: str) -> int | None:
        """The newest version made from exactly these inputs, or None."""
        same = [
            int(v.version)
            for v in self._found(name)
            if v.tags.get(INPUTS_TAG) == inputs and DROPPED_TAG not in v.tags
        ]
        return max(same, default=None)

    def weights_of(self, name: str, version: int) -> int:
        """The version at which a version's weights were learned: itself, unless it kept an earlier one's."""
        return int(self.version(name, version).tags.get(WEIGHTS_TAG, version))

    def learned_until(self, name: str, version: int) -> datetime | None:
        """The UTC time before which everything a version's weights were learned from lies; None if unsaid."""
        said = self.version(name, version).tags.get(LEARNED_UNTIL_TAG)
        return None if said is None else datetime.fromisoformat(said)

    def made_at(self, name: str, version: int) -> datetime:
        """The UTC time at which a version was registered."""
        return datetime.fromtimestamp(self.version(name, version).creation_timestamp / 1000, UTC)

    def data_end(self, name: str, version: int) -> datetime:
        """The UTC end, exclusive, of the data that a version was made of."""
        return datetime.fromisoformat(self.version(name, version).tags["data_end"])

    def metrics(self, name: str, version: int) -> dict[str, float]:
        """Metrics of the run that made a version."""
        run_id = self.version(name, version).run_id
        return dict(self.client.get_run(run_id).data.metrics)

    def params(self, name: str, version: int) -> dict[str, str]:
        """Parameters of the run that made a version."""
        run_id = self.version(name, version).run_id
        return dict(self.client.get_run(run_id).data.params)

    def add_to_card(self, name: str, version: int, title: str, text: str) -> None:
        """Put a section at the end of a version's card, in place of one of the same title."""
        found = self.version(name, version)
        sections = re.split(r"\n(?=## )", (found.description or "").rstrip("\n"))
        kept = [part.rstrip("\n") for part in sections if part.partition("\n")[0] != f"## {title}"]
        card = "\n\n".join([*kept, f"## {title}", text.strip("\n")]) + "\n"
        self.client.update_model_version(name, str(version), description=card)
        self.client.log_text(found.run_id, card, CARD)

    def download(self, name: str, version: int) -> Path:
        """Folder of the version's weights and configuration, what the model's `load` takes.

        With a local artifact folder this is that folder itself: read, do not write. Raises VersionDropped,
        FilesGone, and what MLflow raises where it cannot be asked.
        """
        self._use()
        import mlflow

        if self.dropped(name, version):
            raise VersionDropped(f"the files of {name}@{version} were cleared away by `corkboard gc`")
        with self._naming_gone(name, version):
            root = mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", tracking_uri=self.uri)
        return Path(root) / MODEL_FILES

    def text(self, name: str, version: int, file: str) -> str:
        """What a text file says that lies in the version's own folder.

        Raises FilesGone, and what MLflow raises where it cannot be asked.
        """
        self._use()
        import mlflow

        with self._naming_gone(name, version, file):
            location = self._location(name, version)
            return str(mlflow.artifacts.load_text(f"{location.rstrip('/')}/{file}"))

    def aliases(self, name: str) -> dict[str, int]:
        """Every alias of a model and its version; empty for a model never registered."""
        from mlflow.exceptions import MlflowException

        try:
            found = self.client.get_registered_model(name).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return {alias: int(version) for alias, version in found.items()}

    def dropped(self, name: str, version: int) -> bool:
        """Whether retention took a version's files away, or began to."""
        return DROPPED_TAG in self.version(name, version).tags

    def half_dropped(self, name: str) -> list[int]:
        """Versions that a `drop` which was killed has left."""
        return sorted(int(v.version) for v in self._found(name) if v.tags.get(DROPPED_TAG) == _DROPPING)

    def files_size(self, name: str, version: int) -> int:
        """Bytes of a version's files; 0 where they lie on a server."""
        folder = local_folder(self._location(name, version))
        if folder is None:
            return 0
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    def drop(self, name: str, version: int) -> None:
        """Delete a version's files; what is written of it (parameters, metrics, tags, card) stays.

        From the first step on it counts as gone, so that nobody takes up one whose files are half deleted;
        killed, it is finished by the next call.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        self._use()
        self.client.set_model_version_tag(name, str(version), DROPPED_TAG, _DROPPING)
        get_artifact_repository(self._location(name, version)).delete_artifacts()
        self.client.set_model_version_tag(name, str(version), DROPPED_TAG, _DROPPED)

    @contextmanager
    def _naming_gone(self, name: str, version: int, file: str = "") -> Iterator[None]:
        """Raises FilesGone in place of what MLflow raises where the version's folder (or `file` in it) is gone
        from this machine."""
        from mlflow import MlflowException

        try:
            yield
        except MlflowException as error:
            with suppress(MlflowException):  # where the registry cannot be asked, what it said first is raised
                folder = local_folder(self._location(name, version))
                if folder is not None and not (folder / file).exists():
                    raise FilesGone.of(name, version, folder, file) from error
            raise

    def _location(self, name: str, version: int) -> str:
        """Where a version's files lie, a URI."""
        found = self.version(name, version)
        if found.model_id:
            return str(self.client.get_logged_model(found.model_id).artifact_location)
        return str(self.client.get_model_version_download_uri(name, str(version)))

    def _found(self, name: str) -> list[ModelVersion]:
        return list(self.client.search_model_versions(f"name = '{name}'", max_results=10_000))

    def alias(self, name: str, alias: str) -> int | None:
        """The version an alias points at, or None."""
        from mlflow.exceptions import MlflowException

        try:
            return int(self.client.get_model_version_by_alias(name, alias).version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point `alias` at a version."""
        self.client.set_registered_model_alias(name, alias, str(version))

    def _use(self) -> None:
        """Make this the process's tracking store, its folder created where it is a SQLite file."""
        database = sqlite_file(self.uri)
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        import mlflow

        _hold_back_advice()
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)


def _named_model(folder: Path) -> Path:
    """`folder` itself; MLflow keeps its last name, and MODEL_FILES says it is `model`."""
    if folder.name != Path(MODEL_FILES).name:
        raise ValueError(f"{folder}: the folder of a model's files is to be named {Path(MODEL_FILES).name!r}")
    return folder


def _mlflow_dataset(data: Dataset) -> Any:
    from mlflow.data.http_dataset_source import HTTPDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    source = Path(data.source).resolve().as_uri() if "://" not in data.source else data.source
    return MetaDataset(HTTPDatasetSource(source), name=data.name, digest=data.digest)


@cache
def _hold_back_advice() -> None:
    """MLflow's and alembic's lines of progress, and the plea for an example: signatures are ours.

    For the whole process and for good, once: filters that are put back afterwards are put back for every
    thread, and each that is set makes Python forget which warnings it has shown.
    """
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*input example")
