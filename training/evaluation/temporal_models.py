"""The models of the temporal table. A further one is a function `AsOf -> Recommend` and a line in `MODELS`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.sequence import SequenceLog
from training.data.graph import Context, GraphConfig, build_graph
from training.evaluation import leave_one_out_models
from training.evaluation import temporal_networks as networks
from training.evaluation import temporal_spaces as spaces
from training.evaluation.as_of import AsOf, Blend, Fit, Ints, Model, NotApplicable, Recommend, by_score
from training.evaluation.histories import COLUMNS
from training.evaluation.retrieval import popularity as most_popular
from training.evaluation.sasrec import SasRecConfig
from training.evaluation.seeded import Seeded
from training.evaluation.temporal_spaces import OpenSentences, content_pins, default_sentences, first_new
from training.light.rule_sources import POPULAR, Popular
from training.models import baselines
from training.models.baselines import Scorer
from training.models.interests import Method
from training.models.pinnerformer import PinnerFormerConfig
from training.models.pixie import Pixie, PixieConfig, by_code, history_query
from training.pinnerformer.timelines import LabelRules
from training.pipelines.interests import InterestsPipeline
from training.pipelines.two_tower import TwoTowerPipeline
from validation.tables import ACTION, ACTIONS, PIN_ID, TIMESTAMP, USER_ID, Polarity, Vocabulary


def popularity(known: AsOf) -> Recommend:
    """The pins most taken in the 30 days before the cut, the same for everybody less what each had taken."""
    listed = most_popular(known.lake, known.cut, len(known.pins))
    listed = listed[np.isin(listed, known.pins)]

    def recommend(users: Ints, k: int) -> Ints:
        return np.stack([first_new(listed, known, row, k) for row in known.rows_of(users).tolist()])

    return recommend


def popular_by_topic(known: AsOf, *, sentences: OpenSentences = default_sentences) -> Recommend:
    """The funnel's popular pins: of the whole catalogue and of the topics a user acted on lately, in turns."""
    popular, pins = Popular.at(known.lake, known.cut), content_pins(known, sentences)
    vocabulary = known.lake.contract().vocabulary
    log = SequenceLog.from_actions(known.lake.read(ACTIONS.name, list(COLUMNS), end=known.cut))

    def recommend(users: Ints, k: int) -> Ints:
        lists = (popular.by_topic(log.sequence(u, known.cut_ms), vocabulary, pins)[0] for u in users.tolist())
        rows = known.rows_of(users).tolist()
        return np.stack([first_new(ids, known, row, k) for ids, row in zip(lists, rows, strict=True)])

    return recommend


def on_matrix(known: AsOf, *, baseline: Callable[..., Scorer]) -> Recommend:
    """A baseline of `training.models.baselines` on all that was taken before the cut."""
    return by_score(known, baseline(known.matrix))


def ease(known: AsOf, *, ridge: float) -> Recommend:
    """EASE, where its square of pins fits."""
    taken = int((np.diff(known.matrix.tocsc().indptr) > 0).sum())
    if taken > leave_one_out_models.EASE_PINS:
        raise NotApplicable(leave_one_out_models.too_many_for_ease(taken))
    return by_score(known, baselines.ease(known.matrix, ridge=ridge))


def pixie(
    known: AsOf,
    *,
    graph: GraphConfig,
    config: PixieConfig,
    half_life_days: float = 7.0,
    seed: int = 7,
    threads: int = 1,
) -> Recommend:
    """Pixie on the pin-board graph as of the cut, from each user's history weighed by its age at the cut."""
    walker = Pixie(build_graph(known.lake, graph, as_of=known.cut), config)
    weights = action_weights(known.lake.contract().vocabulary)
    actions = known.lake.read(ACTIONS.name, [USER_ID, PIN_ID, ACTION, TIMESTAMP], end=known.cut)
    actions = actions.sort_values(USER_ID, kind="stable")
    owners = actions[USER_ID].to_numpy(np.int64)
    pins, codes = actions[PIN_ID].to_numpy(np.int64), actions[ACTION].to_numpy()
    times = actions[TIMESTAMP].dt.as_unit("ms").astype("int64").to_numpy()

    def one(user: int, k: int) -> Ints:
        of = slice(*np.searchsorted(owners, (user, user + 1)))
        query = history_query(
            pins[of], codes[of], times[of], known.cut_ms, weights, half_life_days=half_life_days
        )
        found = walker.recommend(query, k, seed=seed).pin_ids if len(query) else np.empty(0, np.int64)
        return np.pad(found, (0, k - len(found)))

    def recommend(users: Ints, k: int) -> Ints:
        with ThreadPoolExecutor(threads) as pool:
            return np.stack(list(pool.map(lambda user: one(user, k), users.tolist())))

    return recommend


def action_weights(vocabulary: Vocabulary) -> NDArray[np.float64]:
    """(CODES,) for Pixie: every positive action weighs 1, every negative one -1, neutral ones nothing."""
    signs = {Polarity.POSITIVE: 1.0, Polarity.NEGATIVE: -1.0, Polarity.NEUTRAL: 0.0}
    return by_code({code: signs[p] for code, p in enumerate(vocabulary.actions.values(), start=1)})


SOURCE = PixieConfig()
"""As a source walks: the paper's defaults, early stopping included."""

BY_WEIGHT = PixieConfig(steps=200_000, stop_pins=0, steps_by_degree=False, boost=False)
"""Whole histories: steps by weight alone, no booster, the whole walk."""


SOURCES = (
    *("pixie", "pinnersage", "pinsage", "pinnerformer", "dcm", "conditional", "two_tower"),
    POPULAR,
)
"""Models that a release can serve as sources: what `blended` is made of."""

BLENDED = "blended"


def models(threads: int = 1, sentences: OpenSentences = default_sentences) -> dict[str, Model]:
    """The table's models by name; several variants of one are tuned on the days before the cut.

    `sentences` opens what reads the words of pins.
    """
    read = {"sentences": sentences}

    def matrix(baseline: Callable[..., Scorer], **settings: Any) -> Fit:
        return partial(on_matrix, baseline=partial(baseline, **settings))

    def interests(method: Method) -> Seeded[Fit]:
        return Seeded(
            lambda seed: [partial(networks.interests, method=method, config=INTERESTS, seed=seed, **read)]
        )

    return {
        "popularity": popularity,
        "itemknn": [matrix(baselines.itemknn, shrink=shrink) for shrink in (10.0, 100.0)],
        "rp3beta": [
            matrix(baselines.rp3beta, beta=beta, neighbours=k)
            for beta, k in ((0.0, 2_000), (0.3, 500), (0.6, 200))
        ],
        "ease": [partial(ease, ridge=ridge) for ridge in (250.0, 1_000.0)],
        "ials": Seeded(
            lambda seed: [matrix(baselines.ials, regularisation=r, seed=seed) for r in (0.003, 0.03)]
        ),
        "sasrec": Seeded(
            lambda seed: [
                partial(networks.sasrec, config=SASREC.model_copy(update={"seed": seed, "learning_rate": rate}))
                for rate in (1e-3, 3e-3)
            ]
        ),
        "pixie": Seeded(
            lambda seed: [
                partial(pixie, graph=graph, config=config, seed=seed, threads=threads)
                for graph, config in PIXIE_VARIANTS
            ]
        ),
        "pinnersage": Seeded(lambda seed: [partial(spaces.pinnersage, seed=seed, **read)]),
        "pinsage": Seeded(lambda seed: [partial(spaces.pinsage, seed=seed, **read)]),
        "pinnerformer": Seeded(
            lambda seed: [
                partial(networks.pinnerformer, network=network, labels=EVERY_POSITIVE, seed=seed, **read)
                for network in PINNERFORMERS
            ]
        ),
        "dcm": interests(Method.DCM),
        "single": interests(Method.SINGLE),
        "mind": interests(Method.MIND),
        "conditional": Seeded(
            lambda seed: [partial(networks.conditional, config=INTERESTS, seed=seed, **read)]
        ),
        "two_tower": Seeded(
            lambda seed: [partial(networks.two_tower, config=TwoTowerPipeline(), seed=seed, **read)]
        ),
        POPULAR: partial(popular_by_topic, **read),
        BLENDED: Blend(SOURCES),
    }


SASREC = SasRecConfig(length=50, epochs=40)
"""On a few hundred users what pins have in common comes long after they are known by heart, so that it gets
twice the epochs of `SasRecConfig`; what three times as many bring is little."""

INTERESTS = InterestsPipeline(train_days=28)
"""Four weeks to learn from: on the demo world's days before the held-out ones better than two."""

PINNERFORMERS = (PinnerFormerConfig(length=64), PinnerFormerConfig(length=64, id_dim=32))
"""Pins by their content, as a release serves them, and also by their ids, as every pin of a table is known."""

EVERY_POSITIVE = LabelRules(surfaces=(), min_duration_s=0.0)
"""All that is held out is a label."""

FAR = SOURCE.model_copy(update={"steps": 300_000, "stop_pins": 0})
"""Longer walks that seldom restart: where boards are small, what is near the query is soon used up."""

WHOLE = GraphConfig(delta=None, diverse_share=0.0)
"""Nothing pruned."""

BY_USER = GraphConfig(context=Context.USER, delta=None, diverse_share=0.0)
"""A user's whole history as one board, nothing pruned: what the matrix of the other models holds. Where few
actions have a board, or sessions are of one pin, the boards' graph says little."""

PIXIE_VARIANTS = (
    (GraphConfig(), SOURCE),
    (GraphConfig(), BY_WEIGHT),
    (GraphConfig(), BY_WEIGHT.model_copy(update={"popularity_discount": 0.3})),
    (BY_USER, BY_WEIGHT.model_copy(update={"restart": 1.0})),
    *((WHOLE, FAR.model_copy(update={"restart": restart})) for restart in (0.3, 0.15)),
)
