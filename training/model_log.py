"""What is said of a trained model beside its weights: where from, how good, under which limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.commit import git_commit

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.models import ModelSignature

FLAVOURS = Path(__file__).resolve().parent / "flavours"
"""Scripts by which MLflow loads the files of models."""


@dataclass(frozen=True)
class Dataset:
    """One data set a model was trained on."""

    name: str
    source: str
    """Where it lies: a path or URI."""
    digest: str
    """Of its content (`digest_files`)."""
    context: str = "training"


@dataclass(frozen=True, kw_only=True)
class ModelLog:
    """Everything there is to say of one trained model."""

    name: str
    """Registered model name."""
    files: Path = Path()
    """Folder of weights and configuration; it becomes `MODEL_FILES` of the version. Pipelines leave it to
    `pipelines.registering.register`, which has the files written."""
    flavour: Path
    """Script by which MLflow loads the files, in training/flavours."""
    description: str
    """What it is and does, the card's first paragraph."""
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    interval: tuple[datetime, datetime]
    """Of the actions it was trained on, UTC; the end is exclusive."""
    datasets: tuple[Dataset, ...]
    signature: ModelSignature
    requirements: tuple[str, ...]
    """Pinned pip requirements (`pinned`)."""
    inputs: str
    """Digest of data, parameters and upstream versions together."""
    tags: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    notes: str = ""
    """The card's limits: what the data cannot say, what the model must not be used for."""


def pinned(*packages: str) -> tuple[str, ...]:
    """Requirements of exactly the installed versions, without local parts: ("numpy==2.4.6", ...)."""
    return tuple(f"{name}=={installed_version(name).partition('+')[0]}" for name in packages)


def columns_signature(inputs: Mapping[str, str], output: str = "float") -> ModelSignature:
    """Signature of named columns of MLflow types to one column of type `output`."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    columns = [ColSpec(kind, name) for name, kind in inputs.items()]
    return ModelSignature(Schema(columns), Schema([ColSpec(output)]))


def model_card(log: ModelLog) -> str:
    """The model card, Markdown."""
    start, end = log.interval
    lines = [f"# {log.name}", "", log.description, ""]
    span = f"Actions from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC (end exclusive)."
    lines += ["## Data", "", span, ""]
    lines += [f"- {d.name}: digest `{d.digest}`" for d in log.datasets]
    lines += ["", "## Metrics", "", "| metric | value |", "|---|---|"]
    lines += [f"| {name} | {value:.5g} |" for name, value in sorted(log.metrics.items())]
    lines += ["", "## Parameters", "", "| parameter | value |", "|---|---|"]
    lines += [f"| {name} | {str(value)[:200]} |" for name, value in log.params.items()]
    if log.notes:
        lines += ["", "## Limits", "", log.notes]
    lines += ["", "## Made by", "", f"Commit `{git_commit()}`; inputs `{log.inputs}`.", ""]
    return "\n".join(lines)
