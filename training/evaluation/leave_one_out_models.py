"""The models of the leave-one-out table: Pixie and PinnerFormer beside the baselines, each with its few
variants to tune.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation import leave_one_out_sequences as sequences
from training.evaluation import sasrec
from training.evaluation.leave_one_out import Fit, TrainSet
from training.evaluation.seeded import Seeded
from training.models.baselines import Scorer, ease, ials, itemknn, popularity, rp3beta
from training.models.pin_board_graph import from_codes
from training.models.pinnerformer.objectives import Objective
from training.models.pixie import Pixie, PixieConfig, Query
from training.pinnerformer.trainer import PinnerFormerTraining


def on_matrix(baseline: Callable[..., Scorer], **settings: Any) -> Fit:
    """A baseline of `training.models.baselines` as a fit."""
    return lambda train: baseline(train.matrix, **settings)


def pixie(train: TrainSet, config: PixieConfig, *, seed: int = 7, threads: int = 1) -> Scorer:
    """Pixie on the pin-context graph of a train set, from the user's pins; pins not visited score 0."""
    pins = train.matrix.shape[1]
    contexts = int(train.edge_contexts.max(initial=-1)) + 1
    ids = np.arange(1, pins + 1), np.arange(1, contexts + 1)
    graph = from_codes(train.edge_pins, train.edge_contexts, *ids)
    walker = Pixie(graph, config)

    def one(row: NDArray[np.float32], user: int) -> None:
        own = train.matrix.indices[train.matrix.indptr[user] : train.matrix.indptr[user + 1]]
        visits = walker.visits(Query.of(own + 1), seed=seed)
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


MODELS = ("popularity", "itemknn", "rp3beta", "ials", "ease", "sasrec", "pixie", "pinnerformer")
"""Names of `default_models`."""


def default_models(pins: int, *, threads: int = 1) -> dict[str, Sequence[Fit] | Seeded[Fit]]:
    """The table's models for a data set of `pins` pins; several variants of one are tuned on the training
    part.
    """
    models: dict[str, Sequence[Fit] | Seeded[Fit]] = {
        "popularity": [on_matrix(popularity)],
        "itemknn": [on_matrix(itemknn, shrink=shrink) for shrink in (10.0, 100.0)],
        "rp3beta": [
            on_matrix(rp3beta, beta=beta, neighbours=k) for beta, k in ((0.0, 2_000), (0.3, 500), (0.6, 200))
        ],
        "ials": Seeded(lambda seed: [on_matrix(ials, regularisation=r, seed=seed) for r in (0.003, 0.03)]),
        "pixie": Seeded(
            lambda seed: [
                partial(pixie, config=WHOLE_HISTORY.model_copy(update=changes), seed=seed, threads=threads)
                for changes in PIXIE_VARIANTS
            ]
        ),
        "pinnerformer": Seeded(
            lambda seed: [partial(sequences.pinnerformer, training=training) for training in _objectives(seed)]
        ),
    }
    if sasrec.installed():
        models["sasrec"] = Seeded(
            lambda seed: [partial(sequences.sasrec, config=sasrec.SasRecConfig(seed=seed))]
        )
    if pins <= EASE_PINS:
        ridges = (50.0, 250.0, 1_000.0) if pins <= EASE_TUNED_PINS else (250.0,)
        models["ease"] = [on_matrix(ease, ridge=ridge) for ridge in ridges]
    return models


def left_out(pins: int) -> dict[str, str]:
    """Models of `MODELS` that a data set of `pins` pins or this machine does not allow, and why."""
    reasons = {} if sasrec.installed() else {"sasrec": sasrec.INSTALL}
    if pins > EASE_PINS:
        reasons["ease"] = too_many_for_ease(pins)
    return reasons


def too_many_for_ease(pins: int) -> str:
    """Why EASE does not take so many pins with users, and what does."""
    limit = f"{pins:,} pins with users are more than {EASE_PINS:,}"
    return f"it inverts a pins x pins matrix, and {limit}; itemknn, rp3beta and ials take so many"


def _objectives(seed: int) -> list[PinnerFormerTraining]:
    """What PinnerFormer is tuned over: the next pin, or any of the next few."""
    out = []
    for objective, window in ((Objective.SASREC, 28.0), (Objective.DENSE_ALL_ACTION, 7.0)):
        sampling = sequences.TRAINING.sampling.model_copy(
            update={"objective": objective, "window_days": window}
        )
        out.append(sequences.TRAINING.model_copy(update={"sampling": sampling, "seed": seed}))
    return out


WHOLE_HISTORY = PixieConfig(
    steps=1_000_000, restart=1.0, stop_pins=0, steps_by_degree=False, boost=False, max_query_pins=2_000
)
"""One step from each of a user's pins in turn is RP3beta's walk, sampled; so many that of 68,000 pins those few
visit are told apart too (four times as many tell no more). The booster, made for a handful of
query pins that differ, favours what is popular when there are hundreds.
"""

PIXIE_VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"popularity_discount": 0.3},
    {"popularity_discount": 0.6},
    {"restart": 0.7},
    {"restart": 0.7, "popularity_discount": 0.3},
    {"restart": 0.7, "steps_by_degree": True, "boost": True},
)
