"""The demo world as rows of the contract tables, and of the truth tables beside them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from training.data.world_behaviour import Answers
from training.data.world_config import MS_DAY, WorldConfig
from training.data.world_pins import Pins
from training.data.world_policy import SOURCE_NAMES, Page
from training.data.world_topics import TopicTree
from training.data.world_users import Users
from training.data.world_visits import Visits
from validation.tables import (
    ACTIONS,
    ANCHOR,
    BID,
    BOARDS,
    FOLLOWS,
    IMPRESSIONS,
    PREDICTED,
    SEARCH,
    TIME,
    TOPICS,
    Polarity,
    Vocabulary,
)

VOCABULARY = Vocabulary(
    actions={
        "closeup": Polarity.POSITIVE,
        "click": Polarity.POSITIVE,
        "long_click": Polarity.POSITIVE,
        "save": Polarity.POSITIVE,
        "hide": Polarity.NEGATIVE,
    }
)
HOMEFEED = "homefeed"


def topic_rows(tree: TopicTree) -> pa.Table:
    roots = len(tree.roots)
    parents = [None] * roots + (tree.leaf_root.astype(int) + 1).tolist()
    ids = list(range(1, roots + len(tree.leaves) + 1))
    return pa.table(
        {"topic_id": ids, "name": [*tree.roots, *tree.leaves], "parent_id": parents}, schema=TOPICS.schema
    )


TRUE_PIN_SCHEMA = pa.schema(
    [
        ("pin_id", pa.int64()),
        ("topic_id", pa.int64()),
        ("second_topic_id", pa.int64()),
        ("mix", pa.float32()),
        ("style", pa.int8()),
        ("quality", pa.float32()),
        ("thing", pa.int8()),
    ]
)


def true_pin_rows(pins: Pins, first: int, tree: TopicTree) -> pa.Table:
    return pa.table(
        {
            "pin_id": np.arange(first + 1, first + len(pins) + 1),
            "topic_id": tree.topic_id(pins.leaf),
            "second_topic_id": tree.topic_id(pins.second),
            "mix": pins.mix,
            "style": pins.style,
            "quality": pins.quality,
            "thing": pins.thing,
        },
        schema=TRUE_PIN_SCHEMA,
    )


def first_boards(users: Users, tree: TopicTree) -> pa.Table:
    who, slot = np.nonzero(users.leaf >= 0)
    return board_rows(users.board[who, slot], who, users.leaf[who, slot], tree)


def board_rows(board: np.ndarray, who: np.ndarray, leaf: np.ndarray, tree: TopicTree) -> pa.Table:
    forms = ("{}", "{} ideas", "{} to try", "My {}", "{} inspiration")
    titles = [
        forms[b % len(forms)].format(tree.leaves[x]) for b, x in zip(board.tolist(), leaf.tolist(), strict=True)
    ]
    return pa.table(
        {"board_id": board.astype(np.int64), "user_id": who + 1, "title": pa.array(titles, pa.string())},
        schema=BOARDS.schema,
    )


def follow_rows(
    who: np.ndarray, at_ms: np.ndarray, topic: np.ndarray | None, board: np.ndarray | None
) -> pa.Table:
    none = pa.nulls(len(who), pa.int64())
    return pa.table(
        {
            "user_id": who + 1,
            "timestamp": times(at_ms),
            "topic_id": none if topic is None else pa.array(topic),
            "board_id": none if board is None else pa.array(board),
        },
        schema=FOLLOWS.schema,
    )


def interest_rows(
    who: np.ndarray,
    leaf: np.ndarray,
    style: np.ndarray,
    weight: np.ndarray,
    since: np.ndarray,
    until: int,
    config: WorldConfig,
    tree: TopicTree,
) -> pa.Table:
    start_ms = int(config.start_time.timestamp() * 1000)
    row, slot = np.nonzero(leaf >= 0)
    return pa.table(
        {
            "user_id": who[row] + 1,
            "topic_id": tree.topic_id(leaf[row, slot]),
            "style": style[row, slot],
            "weight": weight[row, slot],
            "start": times(start_ms + since[row].astype(np.int64) * MS_DAY),
            "end": times(np.full(len(row), start_ms + until * MS_DAY)),
        },
        schema=INTEREST_SCHEMA,
    )


IMPRESSION_SCHEMA = pa.schema(
    [f for f in IMPRESSIONS.schema if f.name not in ("stage", ANCHOR, BID, PREDICTED)]
)
ACTION_SCHEMA = ACTIONS.schema.set(
    ACTIONS.schema.get_field_index("action"), pa.field("action", pa.string(), False)
)


def impression_rows(
    page: Page, visits: Visits, queries: np.ndarray, first_request: int, tree: TopicTree, pins: Pins
) -> pa.Table:
    row = page.request
    by_topic = np.isin(page.source, (0, 1, 4))
    return pa.table(
        {
            "request_id": row + first_request,
            "user_id": visits.who[row] + 1,
            "pin_id": page.pin + 1,
            "position": page.position.astype(np.int32),
            "timestamp": times(visits.at_ms[row]),
            "surface": _words((HOMEFEED, SEARCH), visits.search[row].astype(np.int8)),
            "source": _words(SOURCE_NAMES, page.source.astype(np.int8)),
            "source_topic": pa.array(tree.topic_id(pins.leaf[page.pin]), mask=~by_topic),
            "propensity": page.propensity.astype(np.float32),
            "query": pa.array(queries[row], pa.string()),
        },
        schema=IMPRESSION_SCHEMA,
    )


def action_rows(
    page: Page,
    visits: Visits,
    queries: np.ndarray,
    answers: Answers,
    affinity: np.ndarray,
    users: Users,
    slot: np.ndarray,
    first_request: int,
    first_event: int,
    rng: np.random.Generator,
) -> pa.Table:
    """Rows of every answer, sorted by time. A closeup comes some seconds after the page, the rest after it."""
    n = len(page.pin)
    opened = (
        visits.at_ms[page.request] + 1_500 + 2_000 * page.position + (rng.random(n) * 1_500).astype(np.int64)
    )
    dwell = rng.lognormal(1.1 + affinity, 0.6)
    stay = np.where(answers.long_click, rng.uniform(12, 180, n), rng.uniform(1, 9, n))
    after = {
        "closeup": (opened, dwell),
        "click": (opened + 2_000 + (1_000 * np.minimum(dwell, 20)).astype(np.int64), stay),
        "long_click": (opened + 3_000 + (1_000 * np.minimum(dwell, 20)).astype(np.int64), stay),
        "save": (opened + 1_000 + (500 * np.minimum(dwell, 20)).astype(np.int64), None),
        "hide": (opened, None),
    }
    kinds, at, code, time_ms, seconds = [], [], [], [], []
    for i, name in enumerate(VOCABULARY.names):
        index = np.flatnonzero(getattr(answers, name))
        when, duration = after[name]
        kinds.append(name)
        at.append(index)
        code.append(np.full(len(index), i, dtype=np.int8))
        time_ms.append(when[index])
        seconds.append(np.full(len(index), np.nan) if duration is None else duration[index])
    index, kind, when = np.concatenate(at), np.concatenate(code), np.concatenate(time_ms)
    order = np.lexsort((kind, when))
    index, kind, when, duration = index[order], kind[order], when[order], np.concatenate(seconds)[order]
    row = page.request[index]
    who = visits.who[row]
    saved = kind == VOCABULARY.names.index("save")
    return pa.table(
        {
            "event_id": np.arange(first_event, first_event + len(index)),
            "user_id": who + 1,
            "pin_id": page.pin[index] + 1,
            "action": _words(tuple(kinds), kind),
            "timestamp": times(when),
            "surface": _words((HOMEFEED, SEARCH), visits.search[row].astype(np.int8)),
            "duration_s": pa.array(duration.astype(np.float32), mask=np.isnan(duration)),
            "board_id": pa.array(users.board[who, slot[index]].astype(np.int64), mask=~saved),
            "query": pa.array(queries[row], pa.string()),
            "request_id": row + first_request,
        },
        schema=ACTION_SCHEMA,
    )


def _words(names: tuple[str, ...], code: np.ndarray) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(code, pa.int8()), pa.array(names)).cast(pa.string())


def times(ms: np.ndarray) -> pa.Array:
    return pa.array(np.asarray(ms, dtype=np.int64) * 1000).cast(TIME)


INTEREST_SCHEMA = pa.schema(
    [
        ("user_id", pa.int64()),
        ("topic_id", pa.int64()),
        ("style", pa.int8()),
        ("weight", pa.float32()),
        ("start", TIME),
        ("end", TIME),
    ]
)
TRUE_USER_SCHEMA = pa.schema(
    [
        ("user_id", pa.int64()),
        ("bias", pa.float32()),
        ("rate", pa.float32()),
        ("disliked", pa.list_(pa.int64())),
    ]
)
INTENT_SCHEMA = pa.schema([("request_id", pa.int64()), ("topic_id", pa.int64())])


def intent_rows(visits: Visits, users: Users, first_request: int, tree: TopicTree) -> pa.Table:
    """The interest that each request's session follows."""
    return pa.table(
        {
            "request_id": np.arange(len(visits.who)) + first_request,
            "topic_id": tree.topic_id(users.leaf[visits.who, visits.intent]),
        },
        schema=INTENT_SCHEMA,
    )
