"""Pins as SearchSage's space has them at a time: texts, content and PinSage vectors, and what people did."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from training.context import TrainingContext
from training.models.content import Sentences, sentence_texts
from training.models.interactions import Pins
from training.models.searchsage.pins import PinBlocks, PinSpace
from training.models.sentence import SentenceEncoder, SentenceModel
from training.pipelines import content as content_pipeline
from training.pipelines import pinsage as pinsage_pipeline
from training.pipelines.clock import run_end
from training.registry import Registry
from training.text_vectors import FILE, KeptSentences
from validation.lake import Lake
from validation.manifest import Part, Space
from validation.tables import Polarity

PIN_SPACE_TAG = "pin_space"
"""Tag of a version: the newest of the spaces that its pins are joined from, `pinsage@3`."""

ENGAGED_DAYS = 30


@dataclass(frozen=True)
class SearchPins:
    """The lake's pins with what does not depend on the time, read once."""

    ctx: TrainingContext
    part: Part
    """PinSage's, or the content space's where that is served alone."""
    content: Pins
    text: NDArray[np.float32] | None  # (p, w)

    @classmethod
    def read(cls, ctx: TrainingContext, part: Part, reader: SentenceModel | None) -> SearchPins:
        """Texts are read by `reader`, and by nobody where that is None. Raises SentenceEncoderMissing and
        SentenceEncoderChanged."""
        registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
        alone = part.model == content_pipeline.MODEL
        named = part.space if alone else content_pipeline.content_space_of(registry, part)
        version = Space.parse(named or "").version
        content = content_pipeline.load_catalogue(ctx, content_pipeline.content_part(registry, version))
        text = None
        if reader is not None:
            sentences = KeptSentences(SentenceEncoder.reopen(reader), ctx.training_sets / FILE, ctx.progress)
            text = _read_texts(Lake(ctx.lake), content.ids, sentences)
        return cls(ctx, part, content, text)

    def blocks(self, as_of: datetime) -> PinBlocks:
        """What is known of every pin at a UTC time, in the order of `content.ids`."""
        graph = None
        if self.part.model == pinsage_pipeline.MODEL:
            made = pinsage_pipeline.pinsage_catalogue(self.ctx, self.part, as_of, content=self.content)
            graph = made.vectors
        actions = engagements(Lake(self.ctx.lake), self.content.ids, as_of)
        return PinBlocks(self.content.vectors, graph, self.text, actions)


def searchsage_catalogue(ctx: TrainingContext, part: Part, as_of: datetime | None = None) -> Pins:
    """Every pin of the lake in the space that a SearchSage version makes, as of a UTC time (default: the run's
    end). Raises as `SearchPins.read` does."""
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    space = PinSpace.load(registry.download(part.model, part.version))
    named = Space.parse(registry.version(part.model, part.version).tags[PIN_SPACE_TAG])
    alone = named.model == content_pipeline.MODEL
    part_of = content_pipeline.content_part if alone else pinsage_pipeline.pinsage_part
    pins = SearchPins.read(ctx, part_of(registry, named.version), space.sentences)
    vectors = space.join(pins.blocks(as_of or run_end(ctx)))
    return Pins(pins.content.ids, vectors, pins.content.topics, pins.content.created_at_ms)


def engagements(lake: Lake, pin_ids: NDArray[np.int64], until: datetime) -> NDArray[np.int64]:
    """Positive actions of each pin in the ENGAGED_DAYS before `until` (UTC), (n,)."""
    positive = lake.contract().vocabulary.codes(Polarity.POSITIVE)
    rows = lake.read("actions", ["pin_id", "action"], until - timedelta(days=ENGAGED_DAYS), until)
    counts = rows.loc[rows["action"].isin(positive), "pin_id"].value_counts()
    return counts.reindex(pin_ids, fill_value=0).to_numpy(np.int64)


def _read_texts(lake: Lake, pin_ids: NDArray[np.int64], sentences: Sentences) -> NDArray[np.float32]:
    pins = lake.read("pins", ["pin_id", "title", "description"]).set_index("pin_id").loc[pin_ids]
    return sentences.encode(sentence_texts(pins))
