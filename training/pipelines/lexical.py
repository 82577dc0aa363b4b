"""Index the catalogue by its words, count what people search for, and register both as one version."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from training.context import TrainingContext
from training.digests import digest_files, digest_of
from training.model_log import FLAVOURS, Dataset, ModelLog, pinned
from training.models import lexical as lexical_model
from training.models.content import open_text_encoder
from training.models.lexical import LexicalIndex, PopularQueries, language_of
from training.models.lexical.index import K1, MOST_WORDS, B
from training.models.lexical.popular import FEWEST_USERS
from training.pipelines.clock import run_interval
from training.pipelines.content import pin_frames
from training.pipelines.registering import register, unchanged
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import Part

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

MODEL = "lexical"

TABLES = ("pins", "topics", "actions")
CODE = (Path(lexical_model.__file__).parent, Path(__file__))

POPULAR_DAYS = 90
"""Days of searches that suggestions are counted over."""
DAY = timedelta(days=1)


class NoWords(ValueError):
    """No pin says anything."""


def train_lexical(ctx: TrainingContext, *, force: bool = False) -> Part:
    """Index titles, descriptions and topic names, and register; the part of the release, without a space.

    The version already made from the same tables and code is returned as it is, unless `force`. Raises NoWords
    where no pin has a title, description or named topic, SentenceEncoderMissing where the text encoder that the
    run names is not there.
    """
    lake, registry = Lake(ctx.lake), Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    start, end = run_interval(ctx)
    data = lake.digest(TABLES)
    encoder = open_text_encoder(ctx.text_encoder)
    inputs = digest_of(MODEL, data, end, "" if encoder is None else str(encoder.model), digest_files(CODE))
    if version := unchanged(ctx, MODEL, inputs, force=force):
        return lexical_part(registry, version)
    pin_ids, texts = catalogue_texts(lake)
    try:
        index = LexicalIndex.fit(pin_ids, texts, read_language(ctx.text_encoder))
    except ValueError as reason:
        raise NoWords(str(reason)) from reason
    popular = PopularQueries.of(searches(lake, end - POPULAR_DAYS * DAY, end))

    def save(files: Path) -> None:
        index.save(files)
        popular.save(files)

    log = ModelLog(
        name=MODEL,
        flavour=FLAVOURS / "lexical.py",
        description="BM25 over what pins say, with mistyped words read as their nearest; and the queries that "
        f"at least {FEWEST_USERS} people made in {POPULAR_DAYS} days.",
        params={"k1": K1, "b": B, "most_words": MOST_WORDS, "popular_days": POPULAR_DAYS},
        metrics={
            "pins": float(len(pin_ids)),
            "with_words": float(np.mean([bool(text.strip()) for text in texts])),
            "words": float(index.words),
            "popular_queries": float(len(popular.users)),
        },
        interval=(start, end),
        datasets=(Dataset(", ".join(TABLES), str(ctx.lake), data),),
        signature=_signature(),
        requirements=pinned("bm25s", "numpy", "pandas"),
        inputs=inputs,
        notes="It finds words, not meaning: a pin that says the same in other words is not found. "
        + lake.contract().notes,
    )
    return lexical_part(registry, register(ctx, log, save))


def lexical_part(registry: Registry, version: int) -> Part:
    """The release part of one version."""
    return Part(model=MODEL, version=version, metrics=registry.metrics(MODEL, version))


def read_language(text_encoder: str) -> frozenset[str]:
    """Words that the configured text encoder knows; none without one. Raises SentenceEncoderMissing."""
    encoder = open_text_encoder(text_encoder)
    return language_of(None if encoder is None else encoder.folder)


def catalogue_texts(lake: Lake) -> tuple[np.ndarray, list[str]]:
    """(pin ids (n,) int64, what each pin says: title, description and the names of its topics)."""
    names = topic_names(lake)
    ids, texts = [], []
    for frame in pin_frames(lake, ("pin_id", "title", "description", "topics")):
        ids.append(frame["pin_id"].to_numpy(np.int64))
        for title, description, topics in zip(
            frame["title"], frame["description"], frame["topics"], strict=True
        ):
            named = [names.get(int(topic), "") for topic in topics] if topics is not None else []
            said = (title, description, *named)
            texts.append("\n".join(part for part in said if isinstance(part, str) and part))
    return np.concatenate(ids) if ids else np.empty(0, np.int64), texts


def topic_names(lake: Lake) -> dict[int, str]:
    """Name of each topic that has one; empty without a topics table."""
    if not lake.has("topics"):
        return {}
    topics = lake.read("topics", ["topic_id", "name"]).dropna()
    return dict(zip(topics["topic_id"].astype(int), topics["name"], strict=True))


def searches(lake: Lake, start: datetime, end: datetime) -> pd.DataFrame:
    """Distinct (user_id, query) of actions that followed from a query, `start` <= time < `end` (UTC)."""
    nothing = pd.DataFrame({"user_id": np.empty(0, np.int64), "query": np.empty(0, object)})
    return pd.concat([nothing, *_by_day(lake, start, end)], ignore_index=True).drop_duplicates()


def _by_day(lake: Lake, start: datetime, end: datetime) -> Iterator[pd.DataFrame]:
    for day in lake.days("actions"):
        midnight = datetime.combine(day, time(), UTC)
        if start - DAY < midnight < end:
            rows = lake.read("actions", ["user_id", "query"], max(midnight, start), min(midnight + DAY, end))
            yield rows.dropna().drop_duplicates()


def _signature() -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, DataType, Schema

    query = ColSpec(DataType.string, "query")
    found = [query, ColSpec(DataType.long, "pin_id"), ColSpec(DataType.float, "score")]
    return ModelSignature(Schema([query]), Schema(found))
