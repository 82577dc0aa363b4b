"""The models of the temporal table. A further one is a function `AsOf -> Recommend` and a line in `MODELS`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from training.data.graph import Context, GraphConfig, build_graph
from training.evaluation.leave_one_out_models import EASE_PINS
from training.evaluation.pinnersage_alpha import NothingToChooseBy, choose_alpha
from training.evaluation.retrieval import popularity as most_popular
from training.evaluation.seeded import Seeded
from training.evaluation.temporal import AsOf, Fit, Ints, Model, NotApplicable, Recommend, by_score
from training.models import baselines
from training.models.baselines import Scorer
from training.models.content import PIN_COLUMNS, ContentConfig, ContentEncoder, without_content
from training.models.interactions import Pins
from training.models.pinnersage import PinnerSageConfig, sample_medoids, user_interests
from training.models.pixie import Pixie, PixieConfig, history_query
from training.pipelines.content import catalogue, pin_frames, topic_parents
from training.pipelines.user_actions import UserActions
from validation.lake import Lake
from validation.tables import ACTION, ACTIONS, CREATED_AT, PIN_ID, TIMESTAMP, USER_ID, Polarity, Vocabulary


def popularity(known: AsOf) -> Recommend:
    """The pins most taken in the 30 days before the cut, the same for everybody less what each had taken."""
    listed = most_popular(known.lake, known.cut, len(known.pins))
    listed = listed[np.isin(listed, known.pins)]

    def recommend(users: Ints, k: int) -> Ints:
        return np.stack([first_new(listed, known, row, k) for row in known.rows_of(users).tolist()])

    return recommend


def first_new(ids: Ints, known: AsOf, row: int, k: int) -> Ints:
    """The first k distinct of `ids` that the user of `row` had not taken, zero-padded, (k,)."""
    kept = ids[(ids > 0) & ~np.isin(ids, known.pins[known.known(row)])]
    _, first = np.unique(kept, return_index=True)
    kept = kept[np.sort(first)][:k]
    return np.pad(kept, (0, k - len(kept)))


def on_matrix(baseline: Callable[..., Scorer], **settings: Any) -> Fit:
    """A baseline of `training.models.baselines` on all that was taken before the cut."""
    return lambda known: by_score(known, baseline(known.matrix, **settings))


def ease(known: AsOf, *, ridge: float) -> Recommend:
    """EASE, where its square of pins fits."""
    taken = int((np.diff(known.matrix.tocsc().indptr) > 0).sum())
    if taken > EASE_PINS:
        raise NotApplicable(
            f"it inverts a pins x pins matrix, and {taken:,} pins with users are more than {EASE_PINS:,}"
        )
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


def action_weights(vocabulary: Vocabulary) -> dict[int, float]:
    """Every positive action weighs 1, every negative one -1, neutral ones nothing."""
    signs = {Polarity.POSITIVE: 1.0, Polarity.NEGATIVE: -1.0, Polarity.NEUTRAL: 0.0}
    return {code: signs[p] for code, p in enumerate(vocabulary.actions.values(), start=1)}


def pinnersage(known: AsOf, *, seed: int) -> Recommend:
    """PinnerSage over content vectors, both as of the cut: no registered version knows only that much.

    The encoder is fitted on the pins made before the cut, alpha chosen on the histories before it; each user's
    sampled medoids then give their nearest pins in turns.
    """
    pins = content_pins(known.lake, known, seed)
    actions = UserActions.read(known.lake, pins, known.lake.interval()[0], known.cut)
    config = PinnerSageConfig()
    try:
        chosen = choose_alpha(actions, known.cut_ms, config, seed=seed)
        config = config.model_copy(update={"alpha": chosen.alpha})
    except NothingToChooseBy:  # the default alpha stands
        pass
    columns = np.searchsorted(known.pins, pins.ids)

    def one(user: int, row: int, k: int) -> Ints:
        place = int(np.searchsorted(actions.users, user))
        if place == len(actions) or actions.users[place] != user:
            return np.zeros(k, np.int64)
        interests = user_interests(actions.history(place), known.cut_ms, config)
        drawn = sample_medoids(interests, config.sampled, seed=seed + user)
        if not len(drawn):
            return np.zeros(k, np.int64)
        similarity = interests.vectors[drawn] @ pins.vectors.T  # (q, p)
        similarity[:, np.isin(columns, known.known(row))] = -np.inf
        near = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        near = np.where(np.take_along_axis(similarity, near, axis=1) > -np.inf, pins.ids[near], 0)
        return first_new(near.T.ravel(), known, row, k)

    def recommend(users: Ints, k: int) -> Ints:
        rows = known.rows_of(users).tolist()
        return np.stack([one(user, row, k) for user, row in zip(users.tolist(), rows, strict=True)])

    return recommend


def content_pins(lake: Lake, known: AsOf, seed: int) -> Pins:
    """Pins made before the cut that have content, in a space fitted on them. Raises NotApplicable without."""
    columns = (CREATED_AT, *PIN_COLUMNS)
    frames = (frame[frame[CREATED_AT] < known.cut] for frame in pin_frames(lake, columns))
    encoder = ContentEncoder.fit(frames, ContentConfig(seed=seed), topic_parents(lake))
    pins = catalogue(lake, encoder)
    kept = (pins.created_at_ms < known.cut_ms) & ~without_content(pins.vectors)
    kept &= np.isin(pins.ids, known.pins)
    if not kept.any():
        raise NotApplicable("no pin has words, topics, a domain or a vector")
    return Pins(pins.ids[kept], pins.vectors[kept], pins.topics[kept], pins.created_at_ms[kept])


SOURCE = PixieConfig()
"""As a source walks: the paper's defaults, early stopping included."""

BY_WEIGHT = PixieConfig(steps=200_000, stop_pins=0, steps_by_degree=False, boost=False)
"""Whole histories: steps by weight alone, no booster, the whole walk."""


def models(threads: int = 1) -> dict[str, Model]:
    """The table's models by name; several variants of one are tuned on the days before the cut."""
    return {
        "popularity": popularity,
        "itemknn": [on_matrix(baselines.itemknn, shrink=shrink) for shrink in (10.0, 100.0)],
        "rp3beta": [
            on_matrix(baselines.rp3beta, beta=beta, neighbours=k)
            for beta, k in ((0.0, 2_000), (0.3, 500), (0.6, 200))
        ],
        "ease": [partial(ease, ridge=ridge) for ridge in (250.0, 1_000.0)],
        "ials": Seeded(
            lambda seed: [on_matrix(baselines.ials, regularisation=r, seed=seed) for r in (0.003, 0.03)]
        ),
        "pixie": Seeded(
            lambda seed: [
                partial(pixie, graph=graph, config=config, seed=seed, threads=threads)
                for graph, config in PIXIE_VARIANTS
            ]
        ),
        "pinnersage": Seeded(lambda seed: [partial(pinnersage, seed=seed)]),
    }


BY_USER = GraphConfig(context=Context.USER, delta=None, diverse_share=0.0)
"""A user's whole history as one board, nothing pruned: what the matrix of the other models holds. Where few
actions have a board, or sessions are of one pin, the boards' graph says little."""

PIXIE_VARIANTS = (
    (GraphConfig(), SOURCE),
    (GraphConfig(), BY_WEIGHT),
    (GraphConfig(), BY_WEIGHT.model_copy(update={"popularity_discount": 0.3})),
    (BY_USER, BY_WEIGHT.model_copy(update={"restart": 1.0})),
)
