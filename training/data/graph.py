"""The pin-board graph of a lake: positive actions as edges between pins and boards, pruned as Pixie prunes.

An edge is a positive action with a board (a save, a purchase in a basket). A data set without boards gets a
declared context in their place: the request, the session or the user. Rows are streamed, so memory follows
the number of edges (about 60 bytes each at the peak), not the number of actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse

from training.context import Progress, silent
from training.data import graph_edges, graph_pruning
from training.data.graph_edges import BATCH_ROWS, Context, any_id, read_edges
from training.data.graph_pruning import board_entropy, kept_edges, most_frequent
from training.models.pin_board_graph import (
    TOPICS_PER_LANGUAGE,
    GraphError,
    GraphInfo,
    PinBoardGraph,
    from_codes,
    label,
)
from validation.lake import Lake
from validation.tables import (
    BOARD_ID,
    BOARDS,
    CREATED_AT,
    PIN_ID,
    PINS,
    REQUEST_ID,
    TOPIC_ID,
    TOPICS,
    USER_ID,
    USERS,
)

Ids = NDArray[np.int64]

CODE = tuple(Path(file) for file in (__file__, graph_edges.__file__, graph_pruning.__file__))
"""What makes a graph of a lake: whoever keeps what was made of one, makes it anew when this changes."""

VECTOR_DIM = 64
"""Width of the topic vectors that stand in where no content vectors are given."""


class GraphConfig(BaseModel):
    """How a lake becomes a graph."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    context: Context | Literal["auto"] = "auto"
    """auto: boards where any positive action has one, else sessions. `info.context` says which was taken."""
    session_gap_minutes: int = Field(30, ge=1)
    """A user's session ends after so long without a positive action."""
    delta: float | None = Field(0.91, gt=0, le=1)
    """Each pin keeps ceil(degree ** delta) edges, to the boards most like it; None keeps all."""
    diverse_share: float = Field(0.1, ge=0, le=1)
    """Share of boards dropped for the highest entropy of topics."""
    diverse_nats: float = Field(1.0, ge=0)
    """No board of an entropy up to this is dropped: exp(1) = 2.7 topics in even parts is no mixed bag."""
    labels: bool = True
    """Sort rows by language and topic, for biased walks; 4 bytes an edge."""


@dataclass(frozen=True)
class PinVectors:
    """Content vectors for the similarity of a pin and a board; NaN rows count as absent."""

    pin_ids: Ids  # (n,)
    vectors: NDArray[np.float32]  # (n, d)


@dataclass(frozen=True)
class _Pins:
    """Pins of the lake: ids ascending, and their topics as rows of a sparse matrix whose rows sum to 1 (or
    0).
    """

    ids: Ids
    topics: sparse.csr_matrix  # (pins, topics) float32
    topic_ids: Ids  # (topics,)
    first: NDArray[np.int64]  # (pins,) first topic id, 0 where there is none


def build_graph(
    lake: Lake,
    config: GraphConfig | None = None,
    *,
    as_of: datetime | None = None,
    vectors: PinVectors | None = None,
    progress: Progress = silent,
) -> PinBoardGraph:
    """Graph of the positive actions before `as_of` (UTC, exclusive; default: the lake's end).

    Every pin created by then is a node, with or without edges. Similarity for pruning uses `vectors`, else
    topics, and is skipped where there are neither. `info.notes` tells each choice. Raises GraphError for a
    declared context that the lake does not have, and LakeError without pins or actions.
    """
    config = config or GraphConfig()
    end = as_of or lake.interval()[1]
    context = context_of(lake, config)
    pins = _read_pins(lake, end)
    pin_codes, context_ids, unknown = read_edges(
        lake, context, end, pins.ids, session_gap_minutes=config.session_gap_minutes
    )
    board_ids = np.unique(context_ids)
    board_codes = np.empty(len(context_ids), np.int32)
    for start in range(0, len(context_ids), BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        board_codes[part] = np.searchsorted(board_ids, context_ids[part])
    del context_ids
    raw = len(pin_codes)
    graph = from_codes(pin_codes, board_codes, pins.ids, board_ids)
    del pin_codes, board_codes
    name = _name(lake, context)
    notes = [f"{raw:,} positive actions on {len(board_ids):,} {name}s, {graph.edges:,} distinct edges"]
    if unknown:
        notes.append(f"{unknown:,} actions on pins that are not in the pins table were left out")
    progress(notes[0])
    edge_pins, edge_boards, pruned = _pruned(graph, pins, vectors, config)
    notes += pruned
    for line in pruned:
        progress(line)
    pin_labels = board_labels = None
    languages: tuple[str, ...] = ()
    topics: tuple[int, ...] = ()
    if config.labels:
        pin_labels, board_labels, languages, topics = _labels(lake, graph, pins, context)
    if not languages and not topics:
        pin_labels = board_labels = None
    info = GraphInfo(
        context=name,
        as_of_ms=int(end.timestamp() * 1000),
        languages=languages,
        topics=topics,
        notes=tuple(notes),
    )
    return from_codes(edge_pins, edge_boards, graph.pin_ids, graph.board_ids, pin_labels, board_labels, info)


def _name(lake: Lake, context: Context) -> str:
    return lake.contract().board_name if context is Context.BOARD else context.value


def context_of(lake: Lake, config: GraphConfig) -> Context:
    """The context to use. Raises GraphError where the declared one has no ids in the lake."""
    column = {Context.BOARD: BOARD_ID, Context.REQUEST: REQUEST_ID}
    if config.context == "auto":
        return Context.BOARD if any_id(lake, BOARD_ID) else Context.SESSION
    if config.context in column and not any_id(lake, column[config.context]):
        raise GraphError(
            f"context {config.context}: no positive action of {lake.path} has a {column[config.context]}; "
            "declare session or user"
        )
    return config.context


def _read_pins(lake: Lake, end: datetime) -> _Pins:
    """Ids and topics of the pins created before `end`."""
    ids: list[Ids] = []
    lengths: list[NDArray[np.int64]] = []
    flat: list[Ids] = []
    for batch in lake.dataset(PINS.name).to_batches(columns=[PIN_ID, CREATED_AT, "topics"]):
        frame = batch.filter(
            batch.column(CREATED_AT).cast("int64").to_numpy() < int(end.timestamp() * 1_000_000)
        )
        topics = frame.column("topics")
        ids.append(frame.column(PIN_ID).to_numpy())
        lengths.append(topics.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
        flat.append(topics.flatten().fill_null(0).to_numpy(zero_copy_only=False))
    pin_ids = np.concatenate(ids) if ids else np.empty(0, np.int64)
    if not len(pin_ids):
        raise GraphError(f"{lake.path} has no pin created before {end:%Y-%m-%d %H:%M}")
    length = np.concatenate(lengths).astype(np.int64)
    topic = np.concatenate(flat)
    owner = np.repeat(np.arange(len(pin_ids)), length)
    starts = np.cumsum(length) - length
    first = np.zeros(len(pin_ids), np.int64)
    first[length > 0] = topic[starts[length > 0]]
    topic_ids, code = np.unique(topic[topic > 0], return_inverse=True)
    known = owner[topic > 0]
    share = 1.0 / np.maximum(np.bincount(known, minlength=len(pin_ids)), 1)
    matrix = sparse.csr_matrix(
        (share[known].astype(np.float32), (known, code)), shape=(len(pin_ids), len(topic_ids)), dtype=np.float32
    )
    order = np.argsort(pin_ids, kind="stable")
    return _Pins(pin_ids[order], matrix[order], topic_ids, first[order])


def _pruned(
    graph: PinBoardGraph, pins: _Pins, vectors: PinVectors | None, config: GraphConfig
) -> tuple[NDArray[np.int32], NDArray[np.int32], list[str]]:
    """Edges left after both prunings, as indexes of `graph`, and a line about each."""
    notes = []
    place = np.searchsorted(pins.ids, graph.pin_ids)
    topics = pins.topics[place]
    dropped = np.zeros(graph.boards, bool)
    if config.diverse_share > 0 and topics.nnz and graph.edges:
        entropy = board_entropy(graph, topics)
        filled = np.diff(graph.rows.board_offsets) > 0
        bound = max(np.quantile(entropy[filled], 1 - config.diverse_share), config.diverse_nats)
        dropped = entropy > bound
        notes.append(f"{int(dropped.sum()):,} boards of topic entropy above {bound:.2f} nats dropped")
    elif config.diverse_share > 0 and not topics.nnz:
        notes.append("no topics: boards were not pruned by their entropy")
    content = _content(graph, topics, pins.topic_ids, vectors) if config.delta else None
    if config.delta and content is None:
        notes.append("no content vectors and no topics: edges were not pruned by similarity")
    kept = kept_edges(graph, dropped, content, config.delta if content is not None else None)
    edge_pins, edge_boards = graph.edge_list()
    if content is not None:
        source = "content vectors" if vectors is not None else "topics"
        share = kept.sum() / max(graph.edges, 1)
        notes.append(f"degree ^ {config.delta} edges kept by similarity of {source}: {share:.0%} of all")
    return edge_pins[kept], edge_boards[kept], notes


def _content(
    graph: PinBoardGraph, topics: sparse.csr_matrix, topic_ids: Ids, vectors: PinVectors | None
) -> NDArray[np.float32] | None:
    """One row a pin of `graph`: the given vectors, else its topics projected to at most VECTOR_DIM; None
    without both.
    """
    if vectors is not None:
        rows = np.zeros((graph.pins, vectors.vectors.shape[1]), np.float32)
        found = graph.index_of(vectors.pin_ids)
        sound = (found >= 0) & np.isfinite(vectors.vectors).all(axis=1)
        rows[found[sound]] = vectors.vectors[sound]
        return rows
    if not topics.nnz:
        return None
    if topics.shape[1] <= VECTOR_DIM:
        return topics.toarray()
    # Random signs keep cosines within about 1 / sqrt(dim); seeded by topic id, they stay from build to build.
    signs = np.stack([np.random.default_rng(int(t)).choice((-1.0, 1.0), VECTOR_DIM) for t in topic_ids])
    return np.asarray(topics @ (signs / np.sqrt(VECTOR_DIM)).astype(np.float32))


def _labels(
    lake: Lake, graph: PinBoardGraph, pins: _Pins, context: Context
) -> tuple[NDArray[np.uint16], NDArray[np.uint16], tuple[str, ...], tuple[int, ...]]:
    """(pin labels, board labels, languages, topics). Codes go by frequency; beyond 255 they are unknown (0).

    A pin's topic is the root of its first one, a board's the most frequent among its pins. A board's language
    is its owner's, a pin's the most frequent among its boards'.
    """
    roots = _roots(lake, pins.first)[np.searchsorted(pins.ids, graph.pin_ids)]
    pin_topic, topics = _codes(roots[roots > 0], roots)
    rows = graph.rows
    board_topic = most_frequent(rows.board_offsets, rows.board_pins, pin_topic, TOPICS_PER_LANGUAGE)
    spoken = _board_languages(lake, graph.board_ids, context)
    board_language, languages = _codes(spoken[spoken != ""], spoken)
    pin_language = most_frequent(rows.pin_offsets, rows.pin_boards, board_language, TOPICS_PER_LANGUAGE)
    return (
        label(pin_language, pin_topic),
        label(board_language, board_topic),
        tuple(str(x) for x in languages),
        tuple(int(x) for x in topics),
    )


def _codes(
    known: NDArray[np.generic], values: NDArray[np.generic]
) -> tuple[NDArray[np.int64], NDArray[np.generic]]:
    """(code of each value, values of codes 1...): by falling frequency among `known`, at most 255, else 0."""
    names, counts = np.unique(known, return_counts=True)
    names = names[np.argsort(-counts, kind="stable")][: TOPICS_PER_LANGUAGE - 1]
    if not len(names):
        return np.zeros(len(values), np.int64), names
    order = np.argsort(names)
    place = np.minimum(np.searchsorted(names, values, sorter=order), len(names) - 1)
    return np.where(names[order[place]] == values, order[place] + 1, 0), names


def _roots(lake: Lake, topics: Ids) -> Ids:
    """Root of each topic id; the topic itself without a topics table or a parent."""
    if not lake.has(TOPICS.name):
        return topics
    table = lake.read(TOPICS.name, [TOPIC_ID, "parent_id"]).dropna().astype(np.int64)
    parent = dict(zip(table[TOPIC_ID], table["parent_id"], strict=True))
    root: dict[int, int] = {}
    for topic in np.unique(topics):
        seen = {int(topic)}
        at = int(topic)
        while parent.get(at, 0) > 0 and parent[at] not in seen:  # a cycle of parents ends where it closes
            at = int(parent[at])
            seen.add(at)
        root[int(topic)] = at
    return np.array([root[int(t)] for t in topics], np.int64)


def _board_languages(lake: Lake, board_ids: Ids, context: Context) -> NDArray[np.str_]:
    """Language of each board's owner; empty where unknown (only boards and users have an owner)."""
    none = np.full(len(board_ids), "", dtype="U1")
    if not lake.has(USERS.name) or context not in (Context.BOARD, Context.USER):
        return none
    users = lake.read(USERS.name, [USER_ID, "language"]).dropna().set_index(USER_ID)["language"]
    owners = pd.Series(board_ids)
    if context is Context.BOARD:
        if not lake.has(BOARDS.name):
            return none
        boards = lake.read(BOARDS.name, [BOARD_ID, USER_ID]).drop_duplicates(BOARD_ID).set_index(BOARD_ID)
        owners = owners.map(boards[USER_ID])
    return owners.map(users).fillna("").to_numpy(dtype=str)
