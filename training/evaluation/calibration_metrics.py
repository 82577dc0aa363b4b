"""How far probabilities are from what happens, by head and slice, before and after calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.evaluation import metrics
from training.evaluation.metrics import Reliability

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float32]

ALL = "all"
"""The slice that holds every row."""

BINS = 20

PANEL_IN = 2.8
"""Inches of a panel of `figure`."""


@dataclass(frozen=True)
class Fit:
    """One head's probabilities against what happened, on one slice."""

    total_error: float
    """Sum of probabilities over positives, less 1: 0 is right, 0.1 promises a tenth too much."""
    ece: float
    """Expected calibration error over bins of equal row count, in probability."""
    log_loss: float
    diagram: Reliability


@dataclass(frozen=True)
class CalibrationRow:
    """One head on one slice; errors that no positive decides are NaN."""

    head: str
    slice: str
    rows: int
    positives: int
    before: Fit | None
    """None where only calibrated probabilities are known."""
    after: Fit
    ece_by_chance: float
    """The ECE that perfect probabilities would show on so few rows: below, nothing is left to mend."""


def calibration_table(
    labels: ArrayLike,
    before: Floats | None,
    after: Floats,
    heads: Sequence[str],
    slices: Mapping[str, NDArray[np.bool_]] | None = None,
    *,
    bins: int = BINS,
) -> tuple[CalibrationRow, ...]:
    """A row for each head and slice, the whole (`all`) first; slices without rows are left out.

    `labels` is (n, H) 0 or 1; `before` (if known) and `after` (n, H) probabilities; a slice is bool (n,).
    Measure on rows that the calibration was not fitted on, those of the next day. Raises ValueError for blocks
    of different shapes.
    """
    y = np.asarray(labels)
    shapes = {y.shape, after.shape, *(() if before is None else (before.shape,))}
    if y.ndim != 2 or len(shapes) > 1 or y.shape[1] != len(heads):
        raise ValueError(f"labels and probabilities of shapes {shapes} must be rows of {len(heads)} heads")
    parts = {ALL: np.ones(len(y), bool), **(slices or {})}
    out = []
    for column, head in enumerate(heads):
        for name, mask in parts.items():
            if mask.shape != (len(y),):
                raise ValueError(f"slice {name} is {mask.shape}; a mask of {len(y)} rows is needed")
            if not mask.any():
                continue
            label, made = y[mask, column], after[mask, column]
            out.append(
                CalibrationRow(
                    head=head,
                    slice=name,
                    rows=len(label),
                    positives=int(label.sum()),
                    before=None if before is None else fit_of(label, before[mask, column], bins=bins),
                    after=fit_of(label, made, bins=bins),
                    ece_by_chance=ece_by_chance(made, bins=bins),
                )
            )
    return tuple(out)


def fit_of(label: ArrayLike, p: ArrayLike, *, bins: int = BINS) -> Fit:
    """Every error of one column of probabilities, (n,) beside labels (n,)."""
    return Fit(
        total_error=metrics.calibration_error(label, p),
        ece=metrics.ece(label, p, bins=bins),
        log_loss=metrics.log_loss(label, p),
        diagram=metrics.reliability(label, p, bins=bins),
    )


def ece_by_chance(p: ArrayLike, *, bins: int = BINS) -> float:
    """Mean ECE of labels drawn from `p` itself, by the normal approximation in every bin.

    The mean of |x| of a normal with variance v is sqrt(2 v / pi); in a bin v is the sum of p (1 - p) over its
    squared row count.
    """
    order = np.sort(np.asarray(p, np.float64))
    parts = np.array_split(order * (1 - order), min(bins, len(order)))
    return float(sum(np.sqrt(2 / np.pi * part.sum()) for part in parts) / len(order))


def text(rows: Sequence[CalibrationRow]) -> str:
    """The table as text, a line a head and slice."""
    lines = [
        f"{'head':<14} {'slice':<18} {'rows':>9} {'positives':>9} "
        f"{'total error':>18} {'ECE':>17} {'by chance':>9} {'log loss':>17}"
    ]
    for row in rows:
        before, after = row.before, row.after
        total = (f"{before.total_error:>+8.3f} ->" if before else "") + f"{after.total_error:>+7.3f}"
        ece = (f"{before.ece:>7.4f} ->" if before else "") + f"{after.ece:>7.4f}"
        loss = (f"{before.log_loss:>7.4f} ->" if before else "") + f"{after.log_loss:>7.4f}"
        lines.append(
            f"{row.head:<14} {row.slice:<18} {row.rows:>9} {row.positives:>9} "
            f"{total:>18} {ece:>17} {row.ece_by_chance:>9.4f} {loss:>17}"
        )
    return "\n".join(lines)


def figure(rows: Sequence[CalibrationRow]) -> Figure:
    """Reliability diagrams, a panel a head and slice: observed against predicted, before (if known) grey, after
    red."""
    from matplotlib.figure import Figure

    heads = list(dict.fromkeys(row.head for row in rows))
    slices = list(dict.fromkeys(row.slice for row in rows))
    # Margins in inches: to lay out so many panels by what they hold takes as long as to draw them.
    width, height = PANEL_IN * len(slices) + 0.4, PANEL_IN * len(heads) + 0.4
    drawn = Figure(figsize=(width, height))
    drawn.subplots_adjust(0.75 / width, 0.6 / height, 1 - 0.2 / width, 1 - 0.3 / height, 0.25, 0.25)
    panels = drawn.subplots(len(heads), len(slices), squeeze=False)
    for panel in panels.flat:
        panel.set_visible(False)
    for row in rows:
        panel = panels[heads.index(row.head), slices.index(row.slice)]
        panel.set_visible(True)
        fits = [(row.before, "#999999", "before"), (row.after, "#c8102e", "after" if row.before else "served")]
        drawn_fits = [(fit, color, name) for fit, color, name in fits if fit is not None]
        ends = [max(f.diagram.predicted.max(), f.diagram.observed.max(), 1e-6) for f, _, _ in drawn_fits]
        top = 1.05 * max(ends)
        panel.plot([0, top], [0, top], color="#999999", linestyle=":", linewidth=1)
        for fit, color, name in drawn_fits:
            panel.plot(
                fit.diagram.predicted,
                fit.diagram.observed,
                marker="o",
                markersize=3,
                linewidth=1,
                color=color,
                label=f"{name}, ECE {fit.ece:.4f}",
            )
        panel.set(xlim=(0, top), ylim=(0, top))
        panel.locator_params(nbins=4)
        panel.set_title(f"{row.head}, {row.slice} ({row.positives} of {row.rows})", fontsize=8)
        panel.legend(fontsize=6, frameon=False, loc="upper left")
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    drawn.supxlabel("predicted", fontsize=9)
    drawn.supylabel("observed", fontsize=9)
    return drawn


def draw(rows: Sequence[CalibrationRow], path: Path) -> None:
    """Write `figure` to `path`. Raises FigureError for an ending that is no picture's."""
    from training.evaluation.figure import check_format

    check_format(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure(rows).savefig(path, dpi=150)
