"""A finished training set on disk whose labels follow a law that is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from training.data.training_set import INFO, TrainingSet
from training.data.training_set_facts import (
    LABEL,
    LABEL_PREFIX,
    WEIGHT,
    TrainingSetConfig,
    TrainingSetInfo,
    day_file,
)
from training.models.interactions import INTERACTION_FEATURES
from training.models.pinnability import PIN_PREFIX, USER_PREFIX
from validation.tables import Polarity, Vocabulary

VOCABULARY = Vocabulary(
    actions={"save": Polarity.POSITIVE, "hide": Polarity.NEGATIVE, "report": Polarity.NEGATIVE}
)
START = datetime(2026, 3, 1, tzinfo=UTC)
TRUE, BAIT = "cos_positive_max", "cos_positive_mean"
"""What users save by, and what the policy ordered its pages by, which moves nobody."""


def planted(
    root: Path, *, days: int = 6, requests: int = 150, page: int = 8, positions: bool = True
) -> TrainingSet:
    """Saves follow TRUE and fall with the position; hides follow its opposite; nobody ever reports."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    counts, sums = {}, np.zeros(3, int)
    for d in range(days):
        rows = _day(rng, START + timedelta(days=d), requests, page, positions)
        rows.to_parquet(day_file(root, START + timedelta(days=d)))
        counts[(START + timedelta(days=d)).date().isoformat()] = len(rows)
        sums += rows[[LABEL_PREFIX + a for a in VOCABULARY.names]].sum().to_numpy()
    info = TrainingSetInfo(
        start=START,
        end=START + timedelta(days=days),
        scheme="impressions",
        scheme_note="planted",
        rows=sum(counts.values()),
        positives=int(sums[0]),
        label_sums=dict(zip(VOCABULARY.names, sums.tolist(), strict=True)),
        actions=int(sums.sum()),
        actions_answering=int(sums.sum()),
        immature_rows=0,
        has_position=positions,
        has_propensity=False,
        vocabulary=VOCABULARY,
        space="content@1",
        config=TrainingSetConfig(),
        fingerprint="planted",
        days=counts,
    )
    (root / INFO).write_text(info.model_dump_json())
    return TrainingSet(root)


def _day(rng: np.random.Generator, day: datetime, requests: int, page: int, positions: bool) -> pd.DataFrame:
    n = requests * page
    values = rng.normal(size=(n, len(USER_SCALARS) + len(PIN_SCALARS) + len(INTERACTION_FEATURES)))
    names = [
        *(USER_PREFIX + c for c in USER_SCALARS),
        *(PIN_PREFIX + c for c in PIN_SCALARS),
        *INTERACTION_FEATURES,
    ]
    rows = pd.DataFrame(values.astype(np.float32), columns=names)
    rows["request_id"] = np.repeat(np.arange(requests) + 1 + day.toordinal() * 10_000, page)
    rows["user_id"] = rows["request_id"] % 40 + 1
    rows["pin_id"] = np.tile(np.arange(page), requests) + 1
    order = rows.groupby("request_id")[BAIT].rank(ascending=False, method="first") - 1
    rows["position"] = (order if positions else order * 0).astype(np.int32)
    rows["timestamp"] = pd.to_datetime(day) + pd.to_timedelta(np.sort(rng.integers(0, 86_000, n)), unit="s")
    rows["surface"], rows["source"], rows["propensity"] = "homefeed", "pixie", np.float32(1)
    save = 1.5 * rows[TRUE] - (0.6 * rows["position"] if positions else 0) - 0.5
    hide = -1.5 * rows[TRUE] - 2.5
    rows[LABEL_PREFIX + "save"] = (rng.random(n) < 1 / (1 + np.exp(-save))).astype(np.int8)
    rows[LABEL_PREFIX + "hide"] = (rng.random(n) < 1 / (1 + np.exp(-hide))).astype(np.int8)
    rows[LABEL_PREFIX + "report"] = np.int8(0)
    rows[LABEL], rows[WEIGHT] = rows[LABEL_PREFIX + "save"], np.float32(1)
    return rows
