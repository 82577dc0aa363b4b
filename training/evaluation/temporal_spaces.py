"""Spaces of pins as of a cut, and PinnerSage in them: no registered version knows only that much."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.context import silent
from training.data.graph import build_graph
from training.evaluation.as_of import AsOf, Ints, NotApplicable, Recommend
from training.evaluation.measured import unknown
from training.evaluation.pinnersage_alpha import NothingToChooseBy, choose_alpha
from training.models.content import (
    AUTO,
    PIN_COLUMNS,
    ContentConfig,
    ContentEncoder,
    Sentences,
    open_text_encoder,
    without_content,
)
from training.models.interactions import Pins
from training.models.pinnersage import PinnerSageConfig, sample_medoids, user_interests
from training.models.pinsage import Rung
from training.pinsage.ladder import rung_vectors
from training.pipelines.content import catalogue, pin_frames, topic_parents
from training.pipelines.pinsage import embed_pin_catalogue
from training.pipelines.pinsage_world import PinSagePipeline, TooFewPairs, read_world
from training.pipelines.user_actions import UserActions
from validation.tables import CREATED_AT

OpenSentences = Callable[[], Sentences | None]
"""Opens what reads the words of pins; None where hashed n-grams do."""


def default_sentences() -> Sentences | None:
    """The sentence encoder of the `text` extra, where it is installed."""
    return open_text_encoder(AUTO)


def content_pins(known: AsOf, sentences: OpenSentences = default_sentences) -> Pins:
    """Pins made before the cut that have content, in a space fitted on them, once a cut.

    Raises NotApplicable where no pin has any.
    """
    pins = known.once("content", lambda: _content_pins(known, sentences()))
    if not len(pins.ids):
        raise NotApplicable("no pin has words, topics, a domain or a vector")
    return pins


def _content_pins(known: AsOf, sentences: Sentences | None) -> Pins:
    columns = (CREATED_AT, *PIN_COLUMNS)
    frames = (frame[frame[CREATED_AT] < known.cut] for frame in pin_frames(known.lake, columns))
    config = ContentConfig().read_by(sentences)
    pins = catalogue(known.lake, ContentEncoder.fit(frames, config, topic_parents(known.lake), sentences))
    kept = (pins.created_at_ms < known.cut_ms) & ~without_content(pins.vectors) & np.isin(pins.ids, known.pins)
    return Pins(pins.ids[kept], pins.vectors[kept], pins.topics[kept], pins.created_at_ms[kept])


def pinnersage(known: AsOf, *, seed: int, sentences: OpenSentences = default_sentences) -> Recommend:
    """PinnerSage over content vectors, which know nothing of what people did."""
    pins = content_pins(known, sentences)
    return by_medoids(known, pins, pins, seed)


def pinsage(known: AsOf, *, seed: int, sentences: OpenSentences = default_sentences) -> Recommend:
    """PinnerSage in PinSage's space, as in the paper: learned before the cut, on the graph as of it.

    Alpha is chosen on vectors of the older graph that the network's own held-out week begins with: those of a
    graph that holds these days would know them. Raises NotApplicable where too few pins were saved.
    """
    pins = content_pins(known, sentences)
    config = PinSagePipeline()
    config = config.model_copy(
        update={
            "training": config.training.model_copy(update={"seed": seed}),
            "walks": config.walks.model_copy(update={"seed": seed}),
        }
    ).fitted_to(len(pins.ids))
    rung = config.rung or Rung.PINSAGE
    try:
        world = read_world(known.lake, pins, known.cut, config, silent, hard=rung is Rung.PINSAGE)
    except TooFewPairs as reason:
        raise NotApplicable(str(reason)) from reason
    trained, older = rung_vectors(world, rung, config.network, config.training)
    graph = build_graph(known.lake, config.graph, as_of=known.cut)
    newer = embed_pin_catalogue(trained.network, pins, graph, config.walks)
    at = (Pins(pins.ids, vectors, pins.topics, pins.created_at_ms) for vectors in (newer, older))
    return by_medoids(known, *at, seed)


def by_medoids(known: AsOf, pins: Pins, before: Pins, seed: int) -> Recommend:
    """Each user's sampled medoids give their nearest of `pins` in turns.

    Alpha is chosen on the days before the cut in `before`, vectors of the same pins; the default stands where
    they decide nothing.
    """
    start, config = known.lake.interval()[0], PinnerSageConfig()
    past = UserActions.read(known.lake, before, start, known.cut)
    try:
        alpha = choose_alpha(past, known.cut_ms, config, seed=seed).alpha
        config = config.model_copy(update={"alpha": alpha})
    except NothingToChooseBy:
        pass
    actions = past if pins is before else UserActions.read(known.lake, pins, start, known.cut)
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


def first_new(ids: Ints, known: AsOf, row: int, k: int) -> Ints:
    """The first k distinct of `ids` that the user of `row` had not taken, zero-padded, (k,)."""
    return unknown(ids, known.pins[known.known(row)], k)
