"""What `corkboard evaluate` does: picks data and models, runs the protocol, shows and keeps the report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from infra.console import console, live, say
from infra.home import Home

if TYPE_CHECKING:
    import pandas as pd

    from training.context import Progress
    from training.evaluation.candidates import Candidates
    from training.evaluation.report import Report
    from training.models.content import Sentences
    from validation.lake import Lake

LEAVE_ONE_OUT, TEMPORAL = "leave-one-out", "temporal"

OWN = {
    LEAVE_ONE_OUT: ("candidates", "interactions", "columns", "k"),
    TEMPORAL: ("at", "days"),
}
"""Options that mean something under one protocol only."""


class EvaluationError(RuntimeError):
    """Options that cannot be evaluated as given; the message says what can."""


class EvaluateConfig(BaseModel):
    """What to evaluate, and where to put it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Literal["leave-one-out", "temporal"] = TEMPORAL
    models: tuple[str, ...] | None = None
    """None: all that the protocol has and the data allows; a named one that the data forbids is an error."""
    candidates: Path | None = None
    """Ids are the data set's own."""
    interactions: Path | None = None
    """None: positive actions of the home's lake."""
    columns: tuple[str, ...] | None = None
    """Of an interactions file without a header."""
    k: int | None = Field(None, ge=1)
    """Leave-one-out; None is 10."""
    at: tuple[int, ...] | None = None
    """Temporal; None is 100."""
    days: int | None = Field(None, ge=1)
    """Temporal; None grows from 1 (`training.evaluation.retrieval.hold_out_last`)."""
    seeds: int = Field(3, ge=1)
    """Seeds 0, 1, ... under which a model with randomness is fitted."""
    max_users: int | None = Field(None, ge=1)
    against: str | None = None
    json_file: Path | None = None
    figure: Path | None = None


def lengths(values: Sequence[str] | None) -> tuple[int, ...] | None:
    """`--at` as numbers, ascending. Raises EvaluationError for what is none, or below 1."""
    if values is None:
        return None
    wrong = [value for value in values if not value.isascii() or not value.isdigit() or int(value) < 1]
    if wrong or not values:
        raise EvaluationError(
            f"--at is {', '.join(wrong) or 'empty'}; give whole numbers from 1: --at 100,1000"
        )
    return tuple(sorted({int(value) for value in values}))


def refuse_foreign(task: str, options: Mapping[str, Any]) -> None:
    """Raise EvaluationError for options that were given and mean nothing under `task`."""
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given:
        raise EvaluationError(f"{', '.join(given)} means nothing under {task}; leave it out")


def run(home: Home, config: EvaluateConfig) -> Report:
    """Evaluate, print the table, write the JSON and the figure where asked for.

    Raises EvaluationError for options that do not go together, a model that is not known or not allowed by the
    data, and a home without tables; errors of the protocols name what they cannot use.
    """
    _check(config)
    check_writable(config.json_file, config.figure)
    with live(f"evaluating, {config.protocol}") as update:

        def progress(line: str) -> None:
            say(line)
            update(line)

        measure = _temporal if config.protocol == TEMPORAL else _leave_one_out
        report = measure(home, config, progress)
    show(report, config.model_dump(mode="json"), config.json_file, config.figure)
    return report


def show(report: Report, settings: Mapping[str, Any], json_file: Path | None, figure: Path | None) -> None:
    """Print the table, and write the JSON, with the `settings` that were asked for, and the figure."""
    from training.evaluation.figure import draw

    console.print()
    console.print(report.table(), markup=False, soft_wrap=True)
    if json_file is not None:
        json_file.write_text(replace(report, settings=settings).to_json())
        say(f"everything measured: {json_file}")
    if figure is not None:
        draw(report, figure)
        say(f"figure: {figure}")


def _check(config: EvaluateConfig) -> None:
    """Raise EvaluationError for options that belong to the other protocol or miss what they need."""
    foreign = [
        name
        for protocol, names in OWN.items()
        if protocol != config.protocol
        for name in names
        if getattr(config, name) is not None
    ]
    if foreign:
        other = LEAVE_ONE_OUT if config.protocol == TEMPORAL else TEMPORAL
        options = ", ".join(f"--{name}" for name in foreign)
        raise EvaluationError(f"{options}: only under --protocol {other}, this is {config.protocol}")
    if config.columns is not None and config.interactions is None:
        raise EvaluationError("--columns names the columns of an --interactions file; give one")


def check_writable(json_file: Path | None, figure: Path | None) -> None:
    """Make the folders of files to be written. Raises EvaluationError where one cannot be, FigureError for an
    ending that is no picture's."""
    from training.evaluation.figure import check_format

    if figure is not None:
        check_format(figure)
    for path in filter(None, (json_file, figure)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EvaluationError(f"{path} cannot be written: {error.strerror}; name another file") from error
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise EvaluationError(f"{path} cannot be written; name another file")


def _leave_one_out(home: Home, config: EvaluateConfig, progress: Progress) -> Report:
    from training.evaluation import leave_one_out
    from training.evaluation.leave_one_out_models import MODELS, default_models, left_out

    _known(config, MODELS)
    if config.interactions is not None:
        from training.evaluation.interactions import from_file

        name, rows = config.interactions.name, from_file(config.interactions, config.columns)
        candidates = _candidates(config, rows)
    else:
        from training.evaluation.interactions import from_lake

        lake = lake_of(home)
        name, rows = lake.contract().name, from_lake(lake)
        candidates = _lake_candidates(config, lake)
    pins = rows["pin_id"].nunique()
    skipped = left_out(pins)
    chosen = _chosen(config, default_models(pins, threads=os.cpu_count() or 1), skipped)
    report = leave_one_out.evaluate(
        rows,
        chosen,
        candidates,
        k=config.k or 10,
        seeds=range(config.seeds),
        max_users=config.max_users,
        against=config.against,
        progress=progress,
    )
    skipped = skipped if config.models is None else {}
    return replace(report, facts={"data": name, **report.facts}, skipped=skipped)


def _temporal(home: Home, config: EvaluateConfig, progress: Progress) -> Report:
    from training.cpu import tune_cpu
    from training.evaluation import temporal
    from training.evaluation.figure import BUDGETS
    from training.evaluation.temporal_models import models

    lake = lake_of(home)
    known = models(os.cpu_count() or 1, partial(sentences_of, home, progress))
    _known(config, tuple(known))
    tune_cpu()
    report = temporal.evaluate(
        lake,
        _chosen(config, known, {}),
        days=config.days,
        at=config.at or (100,),
        budgets=BUDGETS if config.figure is not None else (),
        seeds=range(config.seeds),
        max_users=config.max_users,
        against=config.against,
        strict=config.models is not None,
        progress=progress,
    )
    return replace(report, facts={"data": lake.contract().name, **report.facts})


def sentences_of(home: Home, progress: Progress) -> Sentences | None:
    """What reads the words of this home's pins; a text is encoded once, for all that the home ever runs."""
    from training.models.content import open_text_encoder
    from training.text_vectors import FILE, KeptSentences

    encoder = open_text_encoder(os.environ.get("CORKBOARD_TEXT_ENCODER") or "auto")
    return KeptSentences(encoder, home.training_sets / FILE, progress) if encoder else None


def _known(config: EvaluateConfig, names: Sequence[str]) -> None:
    """Raise EvaluationError for a model the protocol does not have."""
    asked = [*(config.models or ()), *([config.against] if config.against else [])]
    unknown = [name for name in asked if name not in names]
    if unknown or config.models == ():
        raise EvaluationError(
            f"no model {', '.join(map(repr, unknown)) or 'named'}; {config.protocol} has {', '.join(names)}"
        )
    if config.against and config.models is not None and config.against not in config.models:
        raise EvaluationError(f"--against {config.against}: add it to --models, or leave --models out")


def _chosen(config: EvaluateConfig, models: Mapping[str, Any], skipped: Mapping[str, str]) -> dict[str, Any]:
    """The models to evaluate. Raises EvaluationError for a named one that the data does not allow."""
    if config.models is None:
        return dict(models)
    forbidden = [f"{name}: {skipped[name]}" for name in config.models if name in skipped]
    if forbidden:
        raise EvaluationError("; ".join(forbidden))
    return {name: models[name] for name in config.models}


def lake_of(home: Home) -> Lake:
    from validation.lake import Lake

    lake = Lake(home.lake)
    if not lake.exists():
        raise EvaluationError(
            f"{home.root} has no tables yet; run `corkboard ingest FOLDER`, or give --protocol leave-one-out"
            " --interactions FILE"
        )
    return lake


def _candidates(config: EvaluateConfig, rows: pd.DataFrame) -> Candidates | None:
    """Candidates for a file of interactions; ids that are text there stay text."""
    if config.candidates is None:
        return None
    from pandas.api.types import is_numeric_dtype

    from training.evaluation.candidates import read_candidates

    text = [column for column in ("user_id", "pin_id") if not is_numeric_dtype(rows[column])]
    return read_candidates(config.candidates, text)


def _lake_candidates(config: EvaluateConfig, lake: Lake) -> Candidates | None:
    """Candidates in the lake's ids."""
    if config.candidates is None:
        return None
    from training.evaluation.candidates import of_lake, read_candidates
    from validation.ids import IdForm
    from validation.tables import EntityKind

    ids = lake.id_map()
    kinds = {"user_id": EntityKind.USER, "pin_id": EntityKind.PIN}
    text = [column for column, kind in kinds.items() if ids.form(kind) is IdForm.STRING]
    return of_lake(read_candidates(config.candidates, text), ids)
