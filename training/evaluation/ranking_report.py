"""Rankers in one table: a block a head, a line a model, means over seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from training.evaluation.calibration_metrics import CalibrationRow
from training.evaluation.diversity_curve import TradePoint
from training.evaluation.spread import Spread

_SHOWN = {
    "auc_same_place": "same place",
    "pr_auc": "PR-AUC",
    "log_loss": "log loss",
    "ece": "ECE",
    "ece_calibrated": "ECE cal.",
}


@dataclass(frozen=True)
class HeadQuality:
    """One head of one model on the test rows."""

    head: str
    positives: int
    auc: float
    auc_error: float
    """Half the 95 % interval."""
    auc_same_place: float
    """AUC among pins shown at one position: what is left when the place a pin was given explains nothing."""
    pr_auc: float
    log_loss: float
    """Of calibrated probabilities, nats."""
    ece: float
    """Of the scores as they come."""
    ece_calibrated: float
    total_error: float
    """Sum of calibrated probabilities over positives, less 1."""


@dataclass(frozen=True)
class RankingRow:
    """One model under one seed."""

    model: str
    seed: int
    heads: tuple[HeadQuality, ...]
    hits: tuple[Spread, ...]
    """HIT@K of each head with its interval over users."""
    calibration: tuple[CalibrationRow, ...]
    """Reliability of each head before and after, of all rows and by slice."""
    trade: tuple[TradePoint, ...]
    """Utility kept and variety won on pages of the test requests; empty where not asked for."""
    uncalibrated: Mapping[str, str]
    """Heads whose scores could not be calibrated, with the reason."""
    fit_s: float
    """Wall seconds of fitting and scoring."""


@dataclass(frozen=True)
class RankingReport:
    """Every model under every seed."""

    heads: tuple[str, ...]
    k: int
    facts: Mapping[str, Any]
    """What was evaluated."""
    rows: tuple[RankingRow, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Heads and models that were left out, and why."""
    against: str | None = None
    """The model that the others are compared with."""
    changes: Mapping[str, tuple[Spread, ...]] = field(default_factory=dict)
    """By model: AUC of each head less that of `against`, with its interval over users, paired."""

    def mean(self, model: str, head: str, metric: str) -> float:
        """Mean over the model's seeds of a field of HeadQuality, or of `hit`. Raises KeyError for another
        model."""
        place = self.heads.index(head)
        values = [
            row.hits[place].mean if metric == "hit" else getattr(row.heads[place], metric)
            for row in self.rows
            if row.model == model
        ]
        if not values:
            raise KeyError(f"no model {model!r}; models are {', '.join(self.models)}")
        return float(np.mean(values))

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.model for row in self.rows))

    def table(self) -> str:
        """As text: a block a head, best AUC first; ± is half a 95 % interval of the first seed's run, `seeds`
        the deviation of AUC over them."""
        lines = [", ".join(f"{name} {value}" for name, value in self.facts.items())]
        hit = f"HIT@{self.k}"
        for place, head in enumerate(self.heads):
            positives = self.rows[0].heads[place].positives if self.rows else 0
            lines += ["", f"{head}: {positives} positives"]
            titles = "".join(f"{title:>11}" for title in _SHOWN.values())
            change = f"{'change':>10}{'±':>8}" if self.against else ""
            lines.append(
                f"  {'model':<24}{'AUC':>10}{'±':>8}{'seeds':>8}{titles}{hit:>10}{'±':>8}{'fit s':>9}{change}"
            )
            for model in sorted(self.models, key=lambda m: -self.mean(m, head, "auc")):
                first = next(row for row in self.rows if row.model == model)
                cells = "".join(f"{self.mean(model, head, name):11.4f}" for name in _SHOWN)
                own, hits = first.heads[place], first.hits[place]
                lines.append(
                    f"  {model:<24}{self.mean(model, head, 'auc'):10.4f}{own.auc_error:8.4f}"
                    f"{self._deviation(model, place):>8}{cells}"
                    f"{self.mean(model, head, 'hit'):10.4f}{hits.error or 0.0:8.4f}{first.fit_s:9.1f}"
                    f"{self._change(model, place)}"
                )
        seeds = {model: sum(row.model == model for row in self.rows) for model in self.models}
        lines += ["", "± is half a 95 % interval; seeds: " + ", ".join(f"{m} {n}" for m, n in seeds.items())]
        if self.against:
            lines.append(
                f"change: AUC less that of {self.against}, ± half its 95 % interval over users, paired"
            )
        lines += [f"left out: {name}: {why}" for name, why in self.skipped.items()]
        said = dict.fromkeys(f"{row.model}: {why}" for row in self.rows for why in row.uncalibrated.values())
        return "\n".join([*lines, *said])

    def _deviation(self, model: str, place: int) -> str:
        aucs = [row.heads[place].auc for row in self.rows if row.model == model]
        return f"{np.std(aucs, ddof=1):.4f}" if len(aucs) > 1 else "-"

    def _change(self, model: str, place: int) -> str:
        if model not in self.changes:
            return ""
        change = self.changes[model][place]
        return f"{change.mean:+10.4f}{change.error or 0.0:8.4f}"

    def to_json(self) -> str:
        """As one JSON object, every seed apart."""
        whole = {
            "facts": dict(self.facts),
            "heads": list(self.heads),
            "k": self.k,
            "rows": [asdict(row) for row in self.rows],
            "skipped": dict(self.skipped),
            "against": self.against,
            "changes": {model: [asdict(change) for change in own] for model, own in self.changes.items()},
        }
        return json.dumps(whole, indent=2, default=_plain)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else str(value)
