"""The models of the leave-one-out table: Pixie beside the classical baselines, each with its few variants to
tune.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.leave_one_out import Fit, TrainSet
from training.models.baselines import Scorer, ease, ials, itemknn, popularity, rp3beta
from training.models.pin_board_graph import from_codes
from training.models.pixie import Pixie, PixieConfig, Query


def on_matrix(baseline: Callable[..., Scorer], **settings: Any) -> Fit:
    """A baseline of `training.models.baselines` as a fit."""
    return lambda train: baseline(train.matrix, **settings)


def pixie(
    train: TrainSet, config: PixieConfig, *, flatten: float = 0.0, seed: int = 7, threads: int = 1
) -> Scorer:
    """Pixie on the pin-context graph of a train set, from the user's pins; pins not visited score 0.

    A query pin weighs degree ** -`flatten`: step allocation grows with degree, which suits pins chosen one by
    one and gives a whole history's bestsellers too much.
    """
    pins = train.matrix.shape[1]
    contexts = int(train.edge_contexts.max(initial=-1)) + 1
    ids = np.arange(1, pins + 1), np.arange(1, contexts + 1)
    graph = from_codes(train.edge_pins, train.edge_contexts, *ids)
    walker = Pixie(graph, config)
    degrees = np.maximum(graph.degrees(graph.index_of(np.arange(1, pins + 1))), 1)

    def one(row: NDArray[np.float32], user: int) -> None:
        own = train.matrix.indices[train.matrix.indptr[user] : train.matrix.indptr[user + 1]]
        visits = walker.visits(Query.of(own + 1, degrees[own] ** -flatten), seed=seed)
        row[graph.ids_of(visits.pins) - 1] = visits.scores

    def score(chosen: NDArray[np.integer]) -> NDArray[np.float32]:
        scores = np.zeros((len(chosen), pins), np.float32)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, scores, chosen.tolist()))
        return scores

    return score


EASE_TUNED_PINS = 5_000
"""EASE is tuned up to so many pins, fitted once up to `EASE_PINS`, and left out beyond: it inverts pins x
pins.
"""

EASE_PINS = 20_000


def default_models(pins: int, *, seed: int = 7, threads: int = 1) -> dict[str, Sequence[Fit]]:
    """The table's models for a data set of `pins` pins; several variants of one are tuned on the training
    part.
    """
    models: dict[str, Sequence[Fit]] = {
        "popularity": [on_matrix(popularity)],
        "itemknn": [on_matrix(itemknn, shrink=shrink) for shrink in (10.0, 100.0)],
        "rp3beta": [
            on_matrix(rp3beta, beta=beta, neighbours=k) for beta, k in ((0.0, 2_000), (0.3, 500), (0.6, 200))
        ],
        "ials": [on_matrix(ials, regularisation=r, seed=seed) for r in (0.003, 0.03)],
        "pixie": [
            partial(pixie, config=PixieConfig(stop_pins=0, **settings), flatten=1.0, seed=seed, threads=threads)
            for settings in PIXIE_VARIANTS
        ],
    }
    if pins <= EASE_PINS:
        ridges = (50.0, 250.0, 1_000.0) if pins <= EASE_TUNED_PINS else (250.0,)
        models["ease"] = [on_matrix(ease, ridge=ridge) for ridge in ridges]
    return models


PIXIE_VARIANTS = (
    {"restart": 1.0, "boost": False},
    {"restart": 0.7, "boost": False},
    {"restart": 1.0, "boost": True, "popularity_discount": 0.3},
    {"restart": 1.0, "boost": False, "popularity_discount": 0.3},
    {"restart": 1.0, "boost": False, "popularity_discount": 0.6},
)
"""Walks of whole histories: the booster has less to say the more query pins there are."""
