"""What SearchSage is learned from and measured on: pairs by time, and the pins as they were."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from training.context import TrainingContext
from training.models.content import open_text_encoder
from training.models.interactions import Pins
from training.models.lexical import LexicalIndex
from training.models.searchsage import SearchSageConfig
from training.models.searchsage.pins import PinSpace, PinSpaceConfig
from training.pipelines.clock import run_end
from training.pipelines.lexical import catalogue_texts, read_language
from training.pipelines.search_space import SearchPins
from training.searchsage.frozen_pins import FrozenPins
from training.searchsage.pairs import TITLES_HELD, QueryPairs, SplitPairs, split_pairs
from training.searchsage.trainer import SearchSageTraining
from validation.lake import Lake
from validation.manifest import Part

MOST_CHECKED = 5_000
"""Pairs that are chosen on, of titles TITLES_HELD: all that is tried is asked about each of them."""
MOST_TITLES = 20_000
"""Titles that are learned from, drawn evenly where there are more: they teach words, and those come again."""


class SearchSagePipeline(BaseModel):
    """Everything one SearchSage version is made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pins: PinSpaceConfig = PinSpaceConfig()
    network: SearchSageConfig = SearchSageConfig()
    training: SearchSageTraining = SearchSageTraining()
    checked_share: float = Field(0.15, gt=0, lt=1)
    """Newest part of the pairs to learn from that nothing is learned from: weights are chosen on it."""
    held_out_days: int | None = Field(None, ge=1)
    """Days whose pairs the metrics are on; None: as many as `pairs.split_pairs` takes."""


@dataclass(frozen=True)
class Learning:
    """What is learned from, what is chosen on, and the pins as they were when the latter began."""

    pairs: QueryPairs
    checked: QueryPairs
    pins: FrozenPins


@dataclass(frozen=True)
class SearchWorld:
    """Pairs by time, and the pins as they were at the cut."""

    lake: Lake
    split: SplitPairs
    known: SearchPins
    space: PinSpace
    pins: FrozenPins
    language: frozenset[str] = frozenset()
    """Words that are no slips."""

    @classmethod
    def read(
        cls,
        ctx: TrainingContext,
        part: Part,
        config: SearchSagePipeline,
        *,
        since: datetime | None = None,
        space: PinSpace | None = None,
    ) -> SearchWorld:
        """Vectors of pins, joined from those of `part` and of what it stands on, know nothing of what people
        did after the cut. `space` is fitted to the pins where left out. Raises as `split_pairs` does, and
        SentenceEncoderMissing where the configuration names an encoder that is not there."""
        lake = Lake(ctx.lake)
        split = split_pairs(lake, run_end(ctx), config.held_out_days, since=since)
        encoder = open_text_encoder(config.network.text_encoder)
        reader = space.sentences if space is not None else encoder and encoder.model
        known = SearchPins.read(ctx, part, reader)
        blocks = known.blocks(split.cut)
        if space is None:
            shape = config.pins.for_titles(blocks.text) if split.of_titles else config.pins
            space = PinSpace.fit(shape, blocks, reader)
        pins = frozen(known.content, space.join(blocks), split.cut)
        return cls(lake, split, known, space, pins, read_language(ctx.text_encoder))

    @property
    def candidates(self) -> np.ndarray:
        """Ids of the pins that could be found."""
        return self.pins.ids[self.pins.candidates]

    def texts(self, pin_ids: np.ndarray | None = None) -> list[str]:
        """What pins say, those of `candidates` in order where none are named."""
        ids, texts = catalogue_texts(self.lake)
        at = dict(zip(ids.tolist(), texts, strict=True))
        return [at[pin] for pin in (self.candidates if pin_ids is None else pin_ids).tolist()]

    def words(self, pin_ids: np.ndarray) -> LexicalIndex:
        """Search by words among these pins."""
        return LexicalIndex.fit(pin_ids, self.texts(pin_ids), self.language)

    def learning(self, checked: float) -> Learning:
        """The newest share `checked` of the pairs before the cut, MOST_CHECKED at most, and those before."""
        pairs, pins, of_titles = self.split.train, self.pins, self.split.of_titles
        most = TITLES_HELD if of_titles else MOST_CHECKED
        first = max(int(len(pairs) * (1 - checked)), len(pairs) - most)
        learned = np.arange(len(pairs)) < first
        if of_titles:
            drawn = np.random.default_rng(0).permutation(first)[:MOST_TITLES]
            learned = np.isin(np.arange(len(pairs)), drawn)
        else:  # a title is as old as its pin, and is not found before that
            since = datetime.fromtimestamp(int(pairs.times_ms[first]) / 1000, UTC)
            pins = frozen(self.known.content, self.space.join(self.known.blocks(since)), since)
        return Learning(pairs.where(learned), pairs.where(np.arange(len(pairs)) >= first), pins)


def frozen(pins: Pins, vectors: np.ndarray, cut: datetime) -> FrozenPins:
    """A catalogue whose pins made before `cut` can be found."""
    made_before = pins.created_at_ms < int(cut.timestamp() * 1000)
    return FrozenPins(pins.ids, vectors, np.flatnonzero(made_before & vectors.any(axis=1)))
