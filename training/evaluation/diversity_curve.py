"""What variety costs: utility kept against likeness within the page, as the diversity stage is turned up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.training_set import Block
from training.models.diversity import DiversityConfig, diversify, unit_rows
from training.models.interactions import Pins
from validation.tables import PIN_ID, REQUEST_ID

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

THETAS = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.0)


@dataclass(frozen=True)
class Request:
    """The ranked candidates of one request, as `diversify` takes them."""

    utility: Floats  # (n,)
    vectors: Floats  # (n, d)
    topics: Ints | None = None  # (n,) 0 is none
    boards: Ints | None = None  # (n,)


@dataclass(frozen=True)
class TradePoint:
    """Means over requests of pages made with one theta."""

    theta: float
    utility_kept: float
    """Utility of the page over that of the most useful page; both less the candidates' mean, so that 0 is a
    page drawn blindly, whatever the unit."""
    similarity: float
    """Mean cosine of two pins of a page."""
    neighbour_similarity: float
    """Mean cosine of pins beside each other."""
    topics: float
    """Distinct topics of a page; NaN without topics."""


@dataclass(frozen=True)
class Trade:
    """How to draw the curve over rows that a ranker has scored."""

    pins: Pins
    """The catalogue in the space that pages are compared in, ascending by id."""
    limit: int = 10
    """Pins of a page, out of those that a request showed."""
    config: DiversityConfig = field(default_factory=DiversityConfig)
    most: int = 1_000
    """Requests looked at: a sample of so many where there are more."""
    seed: int = 0

    def curve(self, block: Block, utility: Floats) -> tuple[TradePoint, ...]:
        """Pages made of the pins that each request of `block` showed, whose utility is (n,).

        Pins that the catalogue does not hold are like nothing else. Empty where no request showed more than
        `limit` pins.
        """
        requests = block.keys[REQUEST_ID].to_numpy(np.int64)
        order = np.argsort(requests, kind="stable")
        starts = np.flatnonzero(np.diff(requests[order], prepend=-1))
        groups = [g for g in np.split(order, starts[1:]) if len(g) > self.limit]
        if len(groups) > self.most:
            kept = np.random.default_rng(self.seed).choice(len(groups), self.most, replace=False)
            groups = [groups[i] for i in np.sort(kept).tolist()]
        if not groups:
            return ()
        ids = block.keys[PIN_ID].to_numpy(np.int64)
        return trade_curve([self._request(ids[g], utility[g]) for g in groups], self.limit, self.config)

    def _request(self, ids: Ints, utility: Floats) -> Request:
        rows = np.minimum(np.searchsorted(self.pins.ids, ids), len(self.pins.ids) - 1)
        known = self.pins.ids[rows] == ids
        vectors = np.where(known[:, None], self.pins.vectors[rows], np.float32(0))
        return Request(utility, vectors, topics=np.where(known, self.pins.topics[rows, 0], 0))


def text(points: Sequence[TradePoint]) -> str:
    """The curve as a table, a line a theta."""
    lines = [f"{'theta':>6}{'utility kept':>14}{'cosine':>9}{'of neighbours':>15}{'topics':>8}"]
    lines += [
        f"{p.theta:>6g}{p.utility_kept:>14.3f}{p.similarity:>9.3f}{p.neighbour_similarity:>15.3f}{p.topics:>8.2f}"
        for p in points
    ]
    return "\n".join(lines)


def trade_curve(
    requests: Sequence[Request],
    limit: int,
    config: DiversityConfig | None = None,
    thetas: Sequence[float] = THETAS,
) -> tuple[TradePoint, ...]:
    """Pages of `limit` pins at every theta, caps and window as `config` says.

    Requests with fewer than two pins, or all of whose pins are shown anyway, show no trade and are left out.
    Raises ValueError where none remains.
    """
    config = config or DiversityConfig()
    kept = [r for r in requests if len(r.utility) > limit >= 2]
    if not kept:
        raise ValueError(f"no request has more than {limit} candidates: any page of {limit} is the same page")
    return tuple(_point(kept, limit, config.model_copy(update={"theta": float(theta)})) for theta in thetas)


def _point(requests: Sequence[Request], limit: int, config: DiversityConfig) -> TradePoint:
    values = np.array([_page(request, limit, config) for request in requests])
    means = [
        float(np.mean(column[np.isfinite(column)])) if np.isfinite(column).any() else np.nan
        for column in values.T
    ]
    return TradePoint(config.theta, *means)


def _page(request: Request, limit: int, config: DiversityConfig) -> tuple[float, float, float, float]:
    page = diversify(
        request.utility, request.vectors, limit, config, topics=request.topics, boards=request.boards
    )
    wide = np.asarray(request.utility, np.float64)
    blind = wide.mean()
    best = np.sort(wide)[-limit:].mean() - blind
    rows = unit_rows(request.vectors[page]).astype(np.float64)
    cosines = rows @ rows.T
    pairs = len(page) * (len(page) - 1)
    topics = np.nan
    if request.topics is not None:
        shown = request.topics[page]
        topics = float(len(np.unique(shown[shown != 0])))
    return (
        float((wide[page].mean() - blind) / best) if best > 0 else np.nan,
        float((cosines.sum() - np.trace(cosines)) / pairs),
        float(np.diagonal(cosines, 1).mean()),
        topics,
    )


def draw(points: Sequence[TradePoint], path: Path) -> None:
    """Write the curve to `path`, a dot a theta. Raises FigureError for an ending that is no picture's."""
    from matplotlib.figure import Figure

    from training.evaluation.figure import check_format

    check_format(path)
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    likeness = [p.similarity for p in points]
    kept = [p.utility_kept for p in points]
    axes.plot(likeness, kept, marker="o", color="#c8102e")
    for point in points:
        axes.annotate(
            f"{point.theta:g}",
            (point.similarity, point.utility_kept),
            textcoords="offset points",
            xytext=(5, -10),
            fontsize=7,
        )
    axes.set(xlabel="mean cosine within the page", ylabel="utility kept", title="labels: theta")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
