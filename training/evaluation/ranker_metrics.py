"""What a ranker of any kind is measured by: its order and its probabilities, head by head, as serving has them.

Scores are made at serving's position, and calibrated, so that two rankers answer the same question whatever
they learned. `auc`, `log_loss`, `ece`... are of the head ENGAGE, which every ranker has; `heads/<head>/...` of
each head.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.training_set import Block
from training.evaluation import metrics
from training.evaluation.retrieval import NEW_USERS
from training.models.interactions import INTERACTION_FEATURES
from training.models.ranker import ENGAGE
from validation.gates import SURFACES

Floats = NDArray[np.float32]

NEW_USER_POSITIVES = 5
"""A user with fewer positive actions in their sequence is new (a guardrail slice)."""


_PLAIN = re.compile(r"^[A-Za-z0-9_-]+$")
"""Names that MLflow takes in a metric's."""


def ranker_metrics(
    heads: Sequence[str], actions: Sequence[str], raw: Floats, made: Floats, block: Block
) -> dict[str, float]:
    """Metrics of `block`'s rows; `raw` and calibrated `made` are (n, H), `actions` name the label columns.

    `rows`, `positives`, `auc`, `pr_auc`, `log_loss`, `rmse`, `r2`, `ece`, `calibration_error`, `grouped_auc`
    within requests; `<metric>/<slice>` of new users and of each surface; and of each head `heads/<head>/`
    `positives`, `auc`, `pr_auc`, `log_loss`, `ece`, `calibration_error`, with `_raw` before calibration. What
    the rows cannot decide is left out.
    """
    labels, engaged = labels_of(heads, actions, block), heads.index(ENGAGE)
    label, score = block.label, made[:, engaged]
    out = {"rows": float(len(block)), "positives": float((label > 0).sum())}
    out |= _quality(label, score)
    out["grouped_auc"] = metrics.grouped_auc(label, score, block.keys["request_id"].to_numpy())
    for part, rows in row_slices(block).items():
        out[f"rows/{part}"], out[f"positives/{part}"] = float(rows.sum()), float((label[rows] > 0).sum())
        out |= {f"{name}/{part}": value for name, value in _quality(label[rows], score[rows]).items()}
    for column, head in enumerate(heads):
        y, p, before = labels[:, column], made[:, column], raw[:, column]
        own = {
            "positives": float(y.sum()),
            "auc": metrics.auc(y, before),
            "pr_auc": metrics.pr_auc(y, before),
            "log_loss": metrics.log_loss(y, p),
            "log_loss_raw": metrics.log_loss(y, before),
            "ece": metrics.ece(y, p),
            "ece_raw": metrics.ece(y, before),
            "calibration_error": metrics.calibration_error(y, p),
            "calibration_error_raw": metrics.calibration_error(y, before),
        }
        out |= {f"heads/{head}/{name}": value for name, value in own.items()}
    return {name: value for name, value in out.items() if np.isfinite(value)}


def labels_of(heads: Sequence[str], actions: Sequence[str], block: Block) -> NDArray[np.int8]:
    """(n, H): each head's label, 0 or 1."""
    columns = [block.label if h == ENGAGE else block.labels[:, list(actions).index(h)] for h in heads]
    return (np.column_stack(columns) > 0).astype(np.int8)


def engage_losses(heads: Sequence[str], made: Floats, block: Block) -> NDArray[np.float64]:
    """Log loss of each row, (n,), by the calibrated chance of any positive action."""
    p = np.clip(made[:, list(heads).index(ENGAGE)].astype(np.float64), 1e-7, 1 - 1e-7)
    return -np.where(block.label > 0, np.log(p), np.log1p(-p))


def row_slices(block: Block) -> dict[str, NDArray[np.bool_]]:
    """Guardrail slices by name, the rows of each (n,): `new_users`, and where the rows are of several surfaces
    `surfaces/<name>`."""
    found = {NEW_USERS: new_users(block)}
    surface = block.keys["surface"].to_numpy(dtype=object)
    names = sorted({name for name in surface if isinstance(name, str) and _PLAIN.match(name)})
    if len(names) > 1:
        found |= {f"{SURFACES}/{name}": surface == name for name in names}
    return {name: rows for name, rows in found.items() if rows.any()}


def new_users(block: Block) -> NDArray[np.bool_]:
    """Which rows are of users who had done little yet, (n,)."""
    return block.interactions[:, INTERACTION_FEATURES.index("sequence_positives")] < NEW_USER_POSITIVES


def _quality(label: NDArray[np.int8], score: Floats) -> dict[str, float]:
    return {
        "auc": metrics.auc(label, score),
        "pr_auc": metrics.pr_auc(label, score),
        "log_loss": metrics.log_loss(label, score),
        "rmse": metrics.rmse(label, score),
        "r2": metrics.r2(label, score),
        "ece": metrics.ece(label, score),
        "calibration_error": metrics.calibration_error(label, score),
    }
