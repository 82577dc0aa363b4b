"""Everything a TransAct version is made with, and what the home's `transact.yaml` says of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from training.context import TrainingContext
from training.models.calibration import CalibrationConfig
from training.models.pinnability import FeatureSpec
from training.models.settings_file import Unreadable, first_fault, read_settings
from training.pipelines.pinnerformer import LEAST_ROW_DAYS
from training.pipelines.ranker_features import EVERY
from training.transact.fitting import TransActRecipe, config_of, every_head
from validation.tables import Polarity, Vocabulary

SETTINGS = "transact.yaml"
"""File in the home: settings of the ranker that differ from the recipe's, `version: v2` for TransAct V2's."""

_FOLLOW = {"epochs": "max_reads and max_epochs decide it", "seed": "it is the run's"}
"""Settings of `training` that are no choice of a home's."""


class TransActPipeline(TransActRecipe):
    """Everything one TransAct version is made with."""

    features: FeatureSpec = EVERY
    """What is read beside the sequence, as far as the rows have it (`spec_of`); a copy of EVERY with less."""
    calibration: CalibrationConfig = CalibrationConfig()
    max_rows: int = Field(4_000_000, ge=1)
    """Newest training rows that are read, whole days: memory is about 600 bytes a row."""
    warm_days: int = Field(7, ge=1)
    """A warm start reads the rows since the version it goes on from learned, and those of so many days."""
    user_vectors: bool = True
    """Whether PinnerFormer's vectors are read; rows that its weights know are left out (`night_vectors.py`)."""
    least_days: int = Field(LEAST_ROW_DAYS, ge=1)
    """Days of rows that must be left; where there are fewer, PinnerFormer's vectors are, and no row."""


def settings_of(ctx: TrainingContext, vocabulary: Vocabulary) -> TransActPipeline:
    """What the home's file says of the ranker, over the recipe of the version it names; the defaults without.

    Groups of settings are merged, everything else is replaced. Raises Unreadable for a file that cannot be
    read, and naming the first setting that does not fit, alone, beside the others or beside `vocabulary`.
    """
    file = Path(ctx.feast_home) / SETTINGS
    said = read_settings(file) if file.exists() else None
    said = {} if said is None else said
    if not isinstance(said, dict):
        raise Unreadable(f"{file}: holds no settings, `name: value` a line")
    version = said.pop("version", "v1")
    if version not in ("v1", "v2"):
        raise Unreadable(f"{file}: version is {version!r}; TransAct's are v1 and v2")
    positives = tuple(vocabulary.codes(Polarity.POSITIVE))
    base = TransActPipeline.v2(positives) if version == "v2" else TransActPipeline()
    try:
        config = TransActPipeline.model_validate(_merged(base.model_dump(), said))
        config_of(every_head(vocabulary.names, config), config.features, config)
    except ValidationError as error:
        raise Unreadable(f"{file}: {first_fault(error)}") from error
    except ValueError as error:
        raise Unreadable(f"{file}: {error}") from error
    for name, why in _FOLLOW.items():
        if name in said.get("training", {}):
            raise Unreadable(f"{file}: training.{name}: {why}; leave it out")
    if config.next_action is not None:
        codes = dict(enumerate(vocabulary.names, start=1))
        strange = sorted(set(config.next_action.positives) - set(codes))
        if strange:
            known = ", ".join(f"{code} {name}" for code, name in codes.items())
            raise Unreadable(
                f"{file}: next_action.positives: no action has code {strange[0]}; there are {known}"
            )
    return config


def _merged(base: dict[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in said.items():
        deeper = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = _merged(base[name], value) if deeper else value
    return merged
