"""Releases that were never trained: versions with a small file each, their rows and tables.

Release r is of `content@r`, `pinnerformer@r` over it, `pinnersage@r` and a ranker in it.
"""

from __future__ import annotations

import fcntl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from training.context import TrainingContext
from training.models import MODEL_FILES
from training.registry import INPUTS_TAG, Registry
from training.release import register
from validation.gates import RETRIEVERS
from validation.manifest import CollectionCheck, DataChecks, Part, ReleaseManifest

WHEN = datetime(2026, 3, 1, tzinfo=UTC)
WITHOUT = dict.fromkeys((*RETRIEVERS, "ranker"), "planted")
ROWS, DIM = 3, 4
BYTES = 1_000
"""Of each version's file."""


def context(home: Path, milvus_uri: str = "nowhere") -> TrainingContext:
    """The context of a planted home."""
    return TrainingContext(
        lake=home / "lake",
        features=home / "features",
        training_sets=home / "training_sets",
        feast_home=str(home),
        mlflow_uri=f"sqlite:///{home / 'mlflow' / 'mlflow.db'}",
        mlflow_artifacts=home / "mlflow" / "artifacts",
        milvus_uri=milvus_uri,
    )


def ledger(home: Path) -> Path:
    return home / "releases" / "ledger.jsonl"


def is_locked(ledger: Path) -> bool:
    """Whether somebody holds the lock of a ledger."""
    with ledger.with_suffix(".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def manifest(number: int, **changes: object) -> ReleaseManifest:
    """A release without any part, which passes every gate; another for each number."""
    fields = {
        "created_at": WHEN,
        "git_commit": f"{number:040}",
        "dataset": "planted",
        "data_start": WHEN - timedelta(days=3),
        "data_end": WHEN,
        "parts": {},
        "light_by": "merge",
        "sources": ("popular_by_topic",),
        "skipped": WITHOUT,
        "collections": (),
        "metrics": {},
        "data_checks": DataChecks(expectations=1, rows={"pins": 3}),
        "evaluation": "planted",
    }
    return ReleaseManifest.model_validate({**fields, **changes})


def whole_manifest(number: int) -> ReleaseManifest:
    """A release of the parts of `plant_parts`."""
    space = f"content@{number}"
    parts = {
        "content": Part(model="content", version=number, space=space),
        "pinnerformer": Part(model="pinnerformer", version=number, space=f"pinnerformer@{number}"),
        "pinnersage": Part(model="pinnersage", version=number, space=space),
        "ranker": Part(model="pinnability_gbdt", version=number, space=space),
    }
    check = CollectionCheck(
        collection=f"pins__content__{number}",
        space=space,
        dim=DIM,
        rows=ROWS,
        recall_at_100=1.0,
        filtered_fill=1.0,
    )
    return manifest(number, parts=parts, collections=(check,))


def plant(home: Path, registry: Registry, releases: int) -> None:
    """Register `releases` whole releases, oldest first, and fill the home's folders as training would."""
    from feature_repo.jobs import (
        UserInterests,
        write_pin_embeddings,
        write_user_embeddings,
        write_user_interests,
    )

    ids, rng = np.arange(1, ROWS + 1), np.random.default_rng(0)
    for number in range(1, releases + 1):
        content, former = f"content@{number}", f"pinnerformer@{number}"
        version(registry, "content", {"space": content})
        version(registry, "pinnerformer", {"content_space": content})
        version(registry, "pinnersage", {"space": content})
        version(registry, "pinnability_gbdt", {"space": content})
        vectors = rng.normal(size=(ROWS, DIM)).astype(np.float32)
        for space in (content, former):
            write_pin_embeddings(home / "features", space, ids, vectors, WHEN)
        write_user_embeddings(home / "features", former, ids, vectors, WHEN)
        one = UserInterests(1, ids[:1], np.ones(1, np.float32), np.ones(1, np.int64), vectors[:1])
        write_user_interests(home / "features", content, [one], WHEN)
        for folder in (
            *(f"replicas/pins__content__{number}", f"training_sets/pinnability_content_{number}"),
            *(f"training_sets/pinnerformer-users/v{number}", f"training_sets/content-{number:032x}"),
        ):
            (home / folder).mkdir(parents=True)
            name = "checkpoint.safetensors" if "training_sets/content-" in folder else "rows.npz"
            (home / folder / name).write_bytes(bytes(10))
        register(context(home), whole_manifest(number))


def version(registry: Registry, model: str, tags: dict[str, str]) -> int:
    """The next version of a model, with one file of `BYTES`."""
    registry.ensure_model(model)
    run = registry.client.create_run(registry.experiment(), run_name=model)
    registry.client.log_text(run.info.run_id, "x" * BYTES, f"{model}/{MODEL_FILES}/weights.txt")
    inputs = f"{registry.next_version(model):032x}"
    source = f"{run.info.artifact_uri}/{model}"
    made = registry.client.create_model_version(
        model, source, run.info.run_id, tags={**tags, INPUTS_TAG: inputs}
    )
    return int(made.version)
