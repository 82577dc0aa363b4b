"""Figures of a training run, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.evaluation.metrics import auc
from training.pinnerformer.staleness import Refresh

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RED, BLUE, GREY = "#c8102e", "#4a6fa5", "#999999"

Array = NDArray[np.float32]


def roc(label: Array, score: Array) -> Figure:
    """True against false positive rate at every threshold."""
    from matplotlib.figure import Figure

    order = np.argsort(-score, kind="stable")
    hits = label[order] > 0
    true = np.concatenate([[0.0], np.cumsum(hits) / max(hits.sum(), 1)])
    false = np.concatenate([[0.0], np.cumsum(~hits) / max((~hits).sum(), 1)])
    shown = np.unique(np.linspace(0, len(true) - 1, 500).astype(int))
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(false[shown], true[shown], color=RED, label=f"AUC {auc(label, score):.3f}")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.legend(loc="lower right", frameon=False)
    return figure


def importance(values: dict[str, float], shown: int = 25) -> Figure:
    """The largest importances, largest on top."""
    from matplotlib.figure import Figure

    largest = sorted(values.items(), key=lambda item: item[1])[-shown:]
    figure = Figure(figsize=(6, 0.24 * len(largest) + 0.8), layout="constrained")
    axes = figure.subplots()
    axes.barh([name for name, _ in largest], [value for _, value in largest], color=BLUE)
    axes.set_xlabel("importance")
    axes.tick_params(axis="y", labelsize=8)
    return figure


def staleness_of(metrics: Mapping[str, float]) -> Figure:
    """Recall@10 by how often users' vectors are made anew, beside popularity's, from PinnerFormer's metrics."""
    from matplotlib.figure import Figure

    recalls = {refresh.value: metrics[f"recall_at_10_{refresh}"] for refresh in Refresh}
    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(list(recalls), list(recalls.values()), marker="o", color=RED)
    axes.axhline(metrics["popular_recall_at_10"], color=GREY, linestyle=":", label="popularity")
    axes.set(xlabel="users' vectors made anew", ylabel="Recall@10", ylim=(0, None))
    axes.legend(frameon=False)
    return figure


def recall_by_length(metrics: Mapping[str, float], role: str) -> Figure:
    """Recall against how many pins are fetched, beside popularity's, from a retriever's metrics."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    for name, colour, line in ((role, RED, "-"), ("popularity", GREY, ":")):
        start = f"{name}/recall_at_"
        lengths = sorted(int(rest) for m in metrics if (rest := m.removeprefix(start)).isdecimal())
        found = [metrics[f"{start}{k}"] for k in lengths]
        axes.plot(lengths, found, marker="o", color=colour, linestyle=line, label=name)
    axes.set(xlabel="pins fetched", ylabel="recall", ylim=(0, None))
    axes.legend(frameon=False)
    return figure


def interest_map(vectors: Array, labels: NDArray[np.int64], medoids: NDArray[np.int64], title: str) -> Figure:
    """A user's pins (m, d) on their two leading principal directions, coloured by interest.

    `labels` (m,) count from 0, interest i has the pin of row `medoids[i]`, drawn large.
    """
    from matplotlib.figure import Figure

    centred = vectors - vectors.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    at = np.zeros((len(vectors), 2))
    at[:, : min(2, len(directions))] = centred @ directions[:2].T
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    colours = labels % 20
    axes.scatter(at[:, 0], at[:, 1], c=colours, cmap="tab20", vmin=0, vmax=19, s=14, alpha=0.7)
    axes.scatter(
        at[medoids, 0],
        at[medoids, 1],
        c=colours[medoids],
        cmap="tab20",
        vmin=0,
        vmax=19,
        s=110,
        edgecolors="black",
        marker="*",
        label="medoids",
    )
    axes.set(xlabel="first principal direction", ylabel="second", title=title)
    axes.legend(frameon=False)
    return figure
