"""A world whose right answer is known: each topic has pins around a centre and words that ask for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.models.content import NGRAMS
from training.models.searchsage import ScratchConfig, SearchSageConfig
from training.searchsage.frozen_pins import FrozenPins
from training.searchsage.pairs import QueryPairs
from training.searchsage.trainer import SearchSageTraining

TOPICS = ("bread oven flour", "trail boots hike", "jazz vinyl horn", "sofa lamp rug", "tulip spade soil")
PINS_EACH = 40

NETWORK = SearchSageConfig(
    text_encoder=NGRAMS,
    scratch=ScratchConfig(width=32, layers=1, heads=2, feed_forward=32, vocabulary=128),
)
TRAINING = SearchSageTraining(
    epochs=20,
    batch=96,
    learning_rate=1e-3,
    readout_rate=2e-3,
    temperature=0.07,
    random_negatives=0,
    log_q=False,
)


@dataclass(frozen=True)
class Planted:
    pins: FrozenPins
    topic: np.ndarray  # (p,) of each row
    train: QueryPairs
    held: QueryPairs
    """Of words in an order that nobody typed before."""


def planted(seed: int = 3) -> Planted:
    rng = np.random.default_rng(seed)
    topic = np.repeat(np.arange(len(TOPICS)), PINS_EACH)
    centres = np.linalg.qr(rng.standard_normal((16, 16)))[0][: len(TOPICS)]
    vectors = centres[topic] + 0.1 * rng.standard_normal((len(topic), 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    pins = FrozenPins(np.arange(1, len(topic) + 1), vectors, np.arange(len(topic)))
    words = [text.split() for text in TOPICS]
    asked = [(t, word) for t, of_topic in enumerate(words) for word in of_topic]
    later = [(t, f"{of_topic[2]} {of_topic[0]}") for t, of_topic in enumerate(words)]
    return Planted(pins, topic, _pairs(asked, 12, rng), _pairs(later, 10, rng))


def _pairs(asked: list[tuple[int, str]], each: int, rng: np.random.Generator) -> QueryPairs:
    """`each` pairs of every (topic, query), with random pins of the topic, in random order of time."""
    query = np.repeat(np.arange(len(asked)), each)
    topics = np.array([topic for topic, _ in asked])[query]
    pins = topics * PINS_EACH + rng.integers(0, PINS_EACH, len(query)) + 1
    order = rng.permutation(len(query))
    return QueryPairs(tuple(q for _, q in asked), query[order], pins[order], np.arange(len(query)))
