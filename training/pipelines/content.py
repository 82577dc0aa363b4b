"""Train the content space: fit the encoder on the catalogue, measure it, register it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_repo.schema import CONTENT_SERVICE, PIN_TOPICS
from training.context import TrainingContext
from training.digests import digest_files, digest_of
from training.model_log import FLAVOURS, Dataset, ModelLog, pinned
from training.models import content as content_model
from training.models import sentence as sentence_model
from training.models.content import (
    PIN_COLUMNS,
    ContentConfig,
    ContentEncoder,
    Sentences,
    open_text_encoder,
    without_content,
)
from training.models.interactions import Pins
from training.pipelines.clock import run_interval
from training.pipelines.registering import register, space_part, unchanged
from training.registry import WEIGHTS_TAG, Registry
from training.text_vectors import FILE, KeptSentences
from validation.lake import Lake
from validation.manifest import Part
from validation.tables import PADDING_ID

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

MODEL = "content"

CODE = (Path(content_model.__file__), Path(sentence_model.__file__), Path(__file__))
"""Files whose change makes a new version even on the same data."""

EVALUATED_PINS = 500
NEIGHBOURS = 10


def train_content(ctx: TrainingContext, config: ContentConfig | None = None, *, force: bool = False) -> Part:
    """Fit and register the content encoder; the part whose space is `content@<version>`.

    The version already made from the same pins, topics, configuration, sentence encoder and code is returned as
    it is, unless `force`. With `ctx.keep_weights` the newest version's encoder is not fitted again: its next
    version holds the same weights, and every pin there is by now. Raises LakeError where there is no pins
    table, and SentenceEncoderMissing where the configuration names a sentence encoder that is not there.
    """
    lake, registry = Lake(ctx.lake), Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    kept = registry.trained(MODEL) if ctx.keep_weights else None
    encoder = None if kept is None else load_encoder(ctx, registry, kept)
    learned_at = None if kept is None else registry.weights_of(MODEL, kept)
    if encoder is not None:
        config, sentences = encoder.config, encoder.sentences
    else:
        config = config or ContentConfig(seed=ctx.seed, text_encoder=ctx.text_encoder)
        sentences = _remembered(ctx, open_text_encoder(config.text_encoder))
        config = config.read_by(sentences)
    data = lake.digest(("pins", "topics"))
    reader = str(sentences.model) if sentences else config.text_encoder
    inputs = digest_of(MODEL, data, config.model_dump_json(), reader, learned_at, digest_files(CODE))
    if version := unchanged(ctx, MODEL, inputs, force=force):
        return content_part(registry, version)
    if encoder is None:
        ctx.progress(f"content: fitting on {lake.rows('pins')} pins, words read by {reader}")
        encoder = ContentEncoder.fit(pin_frames(lake), config, topic_parents(lake), sentences)
    else:
        ctx.progress(f"content: {lake.rows('pins')} pins by the weights of {MODEL}@{learned_at}")
    pins = catalogue(lake, encoder)
    metrics = evaluate(pins, ctx.seed)
    log = ModelLog(
        name=MODEL,
        flavour=FLAVOURS / "content.py",
        description="One unit vector a pin from its words, topics, link domain and given embeddings.",
        params=config.model_dump() | _sentence_params(sentences),
        metrics=metrics,
        interval=run_interval(ctx),
        datasets=(Dataset("pins", str(ctx.lake), data),),
        signature=_signature(config.dim),
        requirements=_requirements(sentences),
        inputs=inputs,
        tags={"feature_service": CONTENT_SERVICE} | _lineage(learned_at),
        notes="Learned from what pins say, never from actions: it knows likeness, not appeal. "
        "Pins without words, topics, domain or vector have no vector and are not retrieved by it. "
        f"Titles and descriptions are read by {reader}. " + lake.contract().notes,
    )
    version = register(ctx, log, encoder.save)
    return content_part(registry, version)


def content_part(registry: Registry, version: int) -> Part:
    """The release part of one content version."""
    return space_part(registry, MODEL, version, CONTENT_SERVICE)


def content_space_of(registry: Registry, part: Part) -> str:
    """The content space that a version reads, `content@7`; KeyError for a model that reads none."""
    return registry.version(part.model, part.version).tags["content_space"]


def load_catalogue(ctx: TrainingContext, part: Part) -> Pins:
    """Every pin of the lake in the part's space; `catalogue` with the registered encoder."""
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    return catalogue(Lake(ctx.lake), load_encoder(ctx, registry, part.version))


def catalogue(lake: Lake, encoder: ContentEncoder) -> Pins:
    """Every pin of the lake, ascending by id: vectors of `encoder`, topics, creation time."""
    ids, vectors, topics, created = [], [], [], []
    for frame in pin_frames(lake, ("pin_id", "created_at", *PIN_COLUMNS)):
        ids.append(frame["pin_id"].to_numpy(np.int64))
        vectors.append(encoder.encode(frame))
        topics.append(first_topics(frame["topics"]))
        created.append(unix_ms(frame["created_at"]))
    joined = np.concatenate(ids)
    order = np.argsort(joined, kind="stable")
    return Pins(
        joined[order],
        np.concatenate(vectors)[order],
        np.concatenate(topics)[order],
        np.concatenate(created)[order],
    )


def pin_frames(
    lake: Lake, columns: tuple[str, ...] = PIN_COLUMNS, rows: int = 20_000
) -> Iterator[pd.DataFrame]:
    """The lake's pins in frames of at most `rows`, in file order."""
    for batch in lake.dataset("pins").to_batches(columns=list(columns), batch_size=rows):
        if batch.num_rows:
            yield batch.to_pandas()


def topic_parents(lake: Lake) -> dict[int, int]:
    """Parent of each topic that has one; empty without a topics table."""
    if not lake.has("topics"):
        return {}
    topics = lake.read("topics", ["topic_id", "parent_id"]).dropna()
    topics = topics[topics["parent_id"] != PADDING_ID]
    return dict(zip(topics["topic_id"].astype(int), topics["parent_id"].astype(int), strict=True))


def first_topics(topics: pd.Series) -> NDArray[np.int64]:
    """The first PIN_TOPICS topics of each pin, (n, PIN_TOPICS) int64, zero-padded; a missing list is none."""
    out = np.zeros((len(topics), PIN_TOPICS), np.int64)
    for row, listed in enumerate(topics):
        if listed is not None and not isinstance(listed, float):
            out[row, : min(len(listed), PIN_TOPICS)] = listed[:PIN_TOPICS]
    return out


def unix_ms(times: pd.Series) -> NDArray[np.int64]:
    """Unix milliseconds of a column of zoned timestamps, (n,) int64."""
    return times.dt.as_unit("ms").astype("int64").to_numpy()


def evaluate(pins: Pins, seed: int) -> dict[str, float]:
    """How many pins have a vector, and how often neighbours share a topic, beside what chance would give."""
    empty = without_content(pins.vectors)
    metrics = {"pins": float(len(pins.ids)), "content_coverage": float(1 - empty.mean())}
    known = np.flatnonzero(~empty & (pins.topics[:, 0] != 0))
    if len(known) <= NEIGHBOURS:
        return metrics
    rng = np.random.default_rng(seed)
    sampled = np.sort(rng.choice(known, min(EVALUATED_PINS, len(known)), replace=False))
    similarity = pins.vectors[sampled] @ pins.vectors[known].T
    similarity[np.arange(len(sampled)), np.searchsorted(known, sampled)] = -np.inf
    nearest = known[np.argpartition(-similarity, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]]
    chance = rng.choice(known, (len(sampled), NEIGHBOURS))
    metrics["topic_agreement_at_10"] = _agreement(pins.topics, sampled, nearest)
    metrics["topic_agreement_by_chance"] = _agreement(pins.topics, sampled, chance)
    return metrics


def _agreement(topics: NDArray[np.int64], rows: NDArray[np.int64], others: NDArray[np.int64]) -> float:
    """Share of (row, other) pairs with a topic in common; `others` is (rows, k)."""
    mine = topics[rows][:, None, :, None]  # (q, 1, t, 1)
    theirs = topics[others][:, :, None, :]  # (q, k, 1, t)
    return float(((mine == theirs) & (mine != 0)).any(axis=(2, 3)).mean())


def load_encoder(ctx: TrainingContext, registry: Registry, version: int) -> ContentEncoder:
    """A registered encoder, its sentences kept in the home."""
    encoder = ContentEncoder.load(registry.download(MODEL, version))
    return replace(encoder, sentences=_remembered(ctx, encoder.sentences))


def _lineage(learned_at: int | None) -> dict[str, str]:
    return {} if learned_at is None else {WEIGHTS_TAG: str(learned_at)}


def _remembered(ctx: TrainingContext, sentences: Sentences | None) -> KeptSentences | None:
    return KeptSentences(sentences, ctx.training_sets / FILE, ctx.progress) if sentences else None


def _sentence_params(sentences: Sentences | None) -> dict[str, object]:
    """What `text_encoder` alone does not say of the sentence encoder."""
    if sentences is None:
        return {}
    return {"text_encoder_version": sentences.model.version, "text_encoder_width": sentences.model.width}


def _requirements(sentences: Sentences | None) -> tuple[str, ...]:
    packages = ["numpy", "pandas", "pydantic", "safetensors", "scipy"]
    if sentences is not None:
        packages += ["torch", "transformers"]
        packages += [sentences.model.name] if sentences.model.is_package else []
    return pinned(*packages)


def _signature(dim: int) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema, TensorSpec

    text = [ColSpec(DataType.string, c, required=False) for c in ("title", "description", "link_domain")]
    topics = [ColSpec(Array(DataType.long), "topics", required=False)]
    vectors = [
        ColSpec(Array(DataType.float), c, required=False) for c in ("visual_embedding", "text_embedding")
    ]
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, dim))])
    return ModelSignature(Schema([*text, *topics, *vectors]), outputs)
