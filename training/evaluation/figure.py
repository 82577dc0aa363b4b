"""The report as a picture: each model's metric with its two spreads."""

from __future__ import annotations

from pathlib import Path

from training.evaluation.report import Report


class FigureError(ValueError):
    """The picture cannot be drawn."""


FORMATS = (".png", ".svg", ".pdf")


def check_format(path: Path) -> None:
    """Raise FigureError for an ending that is no picture's."""
    if path.suffix not in FORMATS:
        raise FigureError(f"{path}: a figure ends in {', '.join(FORMATS)}")


def draw(report: Report, path: Path, metric: str | None = None) -> None:
    """Write `metric` (the report's first) by model to `path`, one panel a ranking, best model on top.

    Thin bars are the 95 % interval over users, ticks the means of single seeds. Raises FigureError for an
    ending that is no picture's.
    """
    check_format(path)
    from matplotlib.figure import Figure

    metric = metric or report.metrics[0]
    rankings = list(report.rankings)
    tallest = max(len([r for r in report.rows if r.ranking == ranking]) for ranking in rankings)
    figure = Figure(figsize=(1.0 + 5.0 * len(rankings), 1.4 + 0.4 * tallest), layout="constrained")
    for panel, ranking in zip(figure.subplots(1, len(rankings), squeeze=False)[0], rankings, strict=True):
        rows = sorted((r for r in report.rows if r.ranking == ranking), key=lambda row: row.mean(metric))
        for place, row in enumerate(rows):
            spread = row.spread(metric)
            panel.barh(
                place, spread.mean, xerr=spread.error or 0.0, color="#e4a9b2", ecolor="#444444", capsize=3
            )
            if len(row.seeds) > 1:
                runs = row.values[metric].mean(axis=1)
                panel.plot(runs, [place] * len(runs), "|", color="#c8102e", markersize=10)
        panel.set_yticks(range(len(rows)), [row.model for row in rows])
        panel.set_xlabel(metric)
        panel.set_title(f"{report.protocol}, {ranking}" if len(rankings) > 1 else report.protocol, fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
