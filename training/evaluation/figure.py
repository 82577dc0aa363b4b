"""The report as a picture: each model's metric with its two spreads, and recall against length of list."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from training.evaluation.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class FigureError(ValueError):
    """The picture cannot be drawn."""


FORMATS = (".png", ".svg", ".pdf")

BUDGETS = (10, 20, 50, 100, 200, 500, 1000)
"""Lengths of list that a curve is drawn over."""
CURVE = "Recall"
"""The metric of the curve."""


def check_format(path: Path) -> None:
    """Raise FigureError for an ending that is no picture's."""
    if path.suffix not in FORMATS:
        raise FigureError(f"{path}: a figure ends in {', '.join(FORMATS)}")


def draw(report: Report, path: Path, metric: str | None = None) -> None:
    """Write `metric` (the first of each ranking) by model to `path`, one panel a ranking, best model on top.

    Thin bars are the 95 % interval over users, ticks the means of single seeds. A ranking whose rows hold
    recall at several lengths of list gets a second panel: recall against length, a line a model. Raises
    FigureError for an ending that is no picture's.
    """
    check_format(path)
    from matplotlib.figure import Figure

    panels: list[tuple[str, list[int]]] = []
    for ranking in report.rankings:
        panels += [(ranking, [])] + ([(ranking, at)] if len(at := lengths(report, ranking)) > 1 else [])
    tallest = max(len([r for r in report.rows if r.ranking == ranking]) for ranking in report.rankings)
    height = max(1.4 + 0.4 * tallest, 4.0 if any(at for _, at in panels) else 0.0)
    figure = Figure(figsize=(1.0 + 5.0 * len(panels), height), layout="constrained")
    for axes, (ranking, at) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _curves(axes, report, ranking, at) if at else _bars(
            axes, report, ranking, metric or report.columns(ranking)[0]
        )
        axes.set_title(
            f"{report.protocol}, {ranking}" if len(report.rankings) > 1 else report.protocol, fontsize=10
        )
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def lengths(report: Report, ranking: str) -> list[int]:
    """Lengths of list at which every row of a ranking holds recall, ascending."""
    rows = [row for row in report.rows if row.ranking == ranking]
    held = [{name.partition("@")[2] for name in row.values if name.startswith(f"{CURVE}@")} for row in rows]
    return sorted(int(at) for at in set.intersection(*held) if at.isdigit()) if held else []


def _bars(axes: Axes, report: Report, ranking: str, metric: str) -> None:
    rows = sorted((r for r in report.rows if r.ranking == ranking), key=lambda row: row.mean(metric))
    for place, row in enumerate(rows):
        spread = row.spread(metric)
        axes.barh(place, spread.mean, xerr=spread.error or 0.0, color="#e4a9b2", ecolor="#444444", capsize=3)
        if len(row.seeds) > 1:
            runs = row.values[metric].mean(axis=1)
            axes.plot(runs, [place] * len(runs), "|", color="#c8102e", markersize=10)
    axes.set_yticks(range(len(rows)), [row.model for row in rows])
    axes.set_xlabel(metric)


def _curves(axes: Axes, report: Report, ranking: str, at: list[int]) -> None:
    from matplotlib import colormaps

    rows = [row for row in report.rows if row.ranking == ranking]
    rows.sort(key=lambda row: -row.mean(f"{CURVE}@{at[-1]}"))
    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    for place, row in enumerate(rows):
        means = [row.mean(f"{CURVE}@{k}") for k in at]
        axes.plot(at, means, marker=".", color=colours[place % len(colours)], label=row.model)
    axes.set_xscale("log")
    axes.set_xticks(at, [str(k) for k in at], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("pins in the list")
    axes.set_ylabel(CURVE)
    axes.legend(frameon=False, fontsize=7)
