"""One table of models under a protocol: as text, as JSON, and as the differences that it is read for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.spread import Spread, difference

Floats = NDArray[np.float64]


class ReportError(KeyError):
    """A report was asked for a row that it does not have."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Row:
    """One model under one ranking."""

    model: str
    ranking: str
    """What was ranked: the name of one of the report's rankings."""
    values: Mapping[str, Floats]
    """By metric, (seeds, users): every value that the spreads are of."""
    seeds: tuple[int, ...]
    """The seeds it was fitted under; empty for a model without randomness, which ran once."""
    variant: int
    """Which of the model's variants was tuned best, from 0."""
    fit_s: float
    """Wall seconds of the choice and of all fits."""
    score_s: float
    """Wall seconds of scoring under all seeds."""

    def spread(self, metric: str) -> Spread:
        """Raises KeyError for a metric that was not measured."""
        return Spread.of(self.values[metric])

    def mean(self, metric: str) -> float:
        """Mean over users and seeds. Raises KeyError for a metric that was not measured."""
        return self.spread(metric).mean


@dataclass(frozen=True)
class Report:
    """Every model in one table."""

    protocol: str
    rankings: Mapping[str, str]
    """By name, in words: what was ranked."""
    metrics: tuple[str, ...]
    """The table's columns, those of one list length together; rows may hold more, such as slices."""
    facts: Mapping[str, Any]
    """What was evaluated: counts, intervals, settings."""
    rows: tuple[Row, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Models that were left out, and why."""
    against: str | None = None
    """The model that every other is compared with."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for, as given; in the JSON only."""
    unit: str = "user"
    """What the values are of, one each."""

    @property
    def units(self) -> str:
        return f"{self.unit[:-1]}ies" if self.unit.endswith("y") else f"{self.unit}s"

    def row(self, model: str, ranking: str | None = None) -> Row:
        """A model's row, of the first ranking unless told. Raises ReportError where there is none."""
        ranking = ranking or next(iter(self.rankings))
        for row in self.rows:
            if (row.model, row.ranking) == (model, ranking):
                return row
        raise ReportError(f"no {ranking} row of {model!r}; models are {sorted({r.model for r in self.rows})}")

    def columns(self, ranking: str) -> tuple[str, ...]:
        """Those of the report's metrics that the rows of a ranking hold."""
        rows = [row for row in self.rows if row.ranking == ranking]
        return tuple(metric for metric in self.metrics if all(metric in row.values for row in rows))

    def difference(self, model: str, other: str, metric: str, ranking: str | None = None) -> Spread:
        """`model` less `other` in `metric`, paired by user."""
        return difference(self.row(model, ranking).values[metric], self.row(other, ranking).values[metric])

    def table(self) -> str:
        """The report as text: a block a ranking and list length, best by its first metric first."""
        lines = [f"{self.protocol}: {self._summary()}"]
        for ranking, words in self.rankings.items():
            rows = [row for row in self.rows if row.ranking == ranking]
            lines += ["", f"{ranking}: {words}"]
            for _, same_length in groupby(self.columns(ranking), key=lambda metric: metric.partition("@")[2]):
                metrics = list(same_length)
                rows.sort(key=lambda row: -row.mean(metrics[0]))
                titles = "".join(f"{metric:>12}{'±':>8}{'seeds':>8}" for metric in metrics)
                lines.append(f"  {'model':<{self._width}}{titles}{'fit s':>9}{'score s':>9}")
                for row in rows:
                    cells = "".join(_cells(row.spread(metric), "12.4f") for metric in metrics)
                    lines.append(f"  {row.model:<{self._width}}{cells}{row.fit_s:9.1f}{row.score_s:9.1f}")
                lines += self._compared(ranking, [row.model for row in rows], metrics)
        runs = max((len(row.seeds) for row in self.rows), default=0)
        lines += ["", f"± is half the 95 % interval over {self.units}" + _about_seeds(runs, self.rows)]
        lines += [f"left out: {model}: {reason}" for model, reason in self.skipped.items()]
        return "\n".join(lines)

    def to_json(self) -> str:
        """The report as one JSON object; floats as measured, users' own values left out."""
        rows = [
            {
                "model": row.model,
                "ranking": row.ranking,
                "seeds": list(row.seeds),
                "variant": row.variant,
                "fit_s": row.fit_s,
                "score_s": row.score_s,
                "metrics": {
                    name: {self.units: values.shape[1], **asdict(Spread.of(values))}
                    | {"by_seed": values.mean(axis=1).tolist()}
                    for name, values in row.values.items()
                },
            }
            for row in self.rows
        ]
        whole: dict[str, Any] = {
            "protocol": self.protocol,
            "settings": dict(self.settings),
            **self.facts,
            "metrics": list(self.metrics),
            "rankings": dict(self.rankings),
            "rows": rows,
            "skipped": dict(self.skipped),
        }
        if self.against:
            whole["against"] = {"model": self.against, "differences": self._differences()}
        return json.dumps(whole, indent=2, default=str)

    @property
    def _width(self) -> int:
        return max(14, *(len(row.model) + 1 for row in self.rows))

    def _summary(self) -> str:
        shown = (f"{v:,}" if isinstance(v, int) else str(v) for v in self.facts.values())
        return ", ".join(
            f"{name.replace('_', ' ')} {value}" for name, value in zip(self.facts, shown, strict=True)
        )

    def _compared(self, ranking: str, models: list[str], metrics: list[str]) -> list[str]:
        """Lines of differences; a metric whose interval holds zero is named as level."""
        if self.against not in models:
            return []
        lines = [f"  less {self.against}, {self.unit} by {self.unit}"]
        for model in models:
            if model == self.against:
                continue
            of = {metric: self.difference(model, self.against, metric, ranking) for metric in metrics}
            cells = "".join(_cells(spread, "+12.4f") for spread in of.values())
            level = ", ".join(metric for metric, spread in of.items() if spread.level)
            lines.append(f"  {model:<{self._width}}{cells}{f'  level: {level}' if level else ''}")
        return lines

    def _differences(self) -> list[dict[str, Any]]:
        return [
            {"model": row.model, "ranking": row.ranking, "metric": metric, "level": spread.level}
            | asdict(spread)
            for row in self.rows
            if row.model != self.against
            for metric in self.columns(row.ranking)
            for spread in [self.difference(row.model, self.against or "", metric, row.ranking)]
        ]


def _cells(spread: Spread, form: str) -> str:
    error, seeds = (f"{'-':>8}" if x is None else f"{x:8.4f}" for x in (spread.error, spread.seeds))
    return f"{spread.mean:{form}}{error}{seeds}"


def _about_seeds(runs: int, rows: tuple[Row, ...]) -> str:
    once = sorted({row.model for row in rows if not row.seeds})
    said = f"; seeds is the standard deviation over {runs} seeds" if runs > 1 else ""
    return said + (f"; no randomness, run once: {', '.join(once)}" if once else "")
