"""Labelled ads as arrays: a training set's rows, the pins they were shown beside, and vectors of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_repo.schema import PIN_TOPICS
from training.data.splits import Interval
from training.data.training_set import Block, TrainingSet
from training.data.training_set_facts import TrainingSetError
from training.models.ads.rows import AdRows, assemble
from training.models.interactions import Pins
from validation.lake import Lake
from validation.tables import ANCHOR, IMPRESSIONS, PIN_ID, REQUEST_ID, SOURCE, TIMESTAMP

UNKNOWN = "unknown"
"""The source of ads whose impression names none."""


@dataclass(frozen=True)
class AdExamples:
    """n impressions of ads and what came of them."""

    rows: AdRows
    sources: NDArray[np.str_]
    """(n,) names."""
    labels: NDArray[np.int8]
    """(n, A), in the order of `actions`."""
    actions: tuple[str, ...]
    days: NDArray[np.datetime64]
    """(n,) UTC days, datetime64[D]."""

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, index: NDArray) -> AdExamples:
        """The examples a mask or positions name."""
        return AdExamples(
            self.rows.take(index), self.sources[index], self.labels[index], self.actions, self.days[index]
        )

    def of(self, heads: Sequence[str]) -> NDArray[np.float32]:
        """Labels float32 (n, H) of the heads. Raises ValueError for one that is no action."""
        unknown = [head for head in heads if head not in self.actions]
        if unknown:
            raise ValueError(f"heads {', '.join(unknown)} are no actions; they are {', '.join(self.actions)}")
        return self.labels[:, [self.actions.index(h) for h in heads]].astype(np.float32)


def read_examples(rows: TrainingSet, lake: Lake, pins: Pins, interval: Interval) -> AdExamples:
    """The training set's rows inside `interval`, with what ads need besides.

    `pins` are the catalogue with its vectors, by ascending id. Raises TrainingSetError where the lake no longer
    has an impression of the set.
    """
    block = rows.block(interval)
    shown = lake.read(
        IMPRESSIONS.name, [REQUEST_ID, PIN_ID, ANCHOR, SOURCE], interval.start, interval.end
    ).set_index([REQUEST_ID, PIN_ID])
    at = shown.index.get_indexer(pd.MultiIndex.from_frame(block.keys[[REQUEST_ID, PIN_ID]]))
    if (at < 0).any():
        raise TrainingSetError(
            f"{int((at < 0).sum())} rows of {rows.path} are no impressions of the lake; build the set again"
        )
    return examples_of(block, shown[ANCHOR].to_numpy(np.int64)[at], pins, rows.info.action_names)


def examples_of(block: Block, anchors: NDArray[np.int64], pins: Pins, actions: tuple[str, ...]) -> AdExamples:
    """A block beside the pin `anchors` (n,) that each of its rows was shown with, 0 for none."""
    keys = block.keys
    pin_ids = keys[PIN_ID].to_numpy(np.int64)
    sources = keys[SOURCE].fillna(UNKNOWN).to_numpy(np.str_)
    vectors, topics = _of_pins(pins, pin_ids)
    anchor_vectors, anchor_topics = _of_pins(pins, anchors)
    assembled = assemble(
        user_scalars=block.user_scalars,
        pin_scalars=block.pin_scalars,
        interactions=block.interactions,
        sources=sources,
        user_ids=keys["user_id"].to_numpy(np.int64),
        pin_ids=pin_ids,
        pin_topics=topics,
        anchor_topics=anchor_topics,
        pin_vectors=vectors,
        anchor_vectors=anchor_vectors,
        positions=block.position,
    )
    days = keys[TIMESTAMP].to_numpy(dtype="datetime64[us]").astype("datetime64[D]")
    return AdExamples(assembled, sources, block.labels, actions, days)


def _of_pins(pins: Pins, ids: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors (n, d) and topics (n, T) of pins, zeros for those the catalogue has not."""
    at = np.minimum(np.searchsorted(pins.ids, ids), max(len(pins.ids) - 1, 0))
    known = (pins.ids[at] == ids) & (ids != 0)
    vectors = np.where(known[:, None], pins.vectors[at], 0.0).astype(np.float32)
    topics = np.where(known[:, None], pins.topics[at], 0)[:, :PIN_TOPICS]
    return vectors, topics.astype(np.int64)
