"""The demo world: a seeded simulator that writes contract tables whose right answers are known.

    topics, pins      a catalogue with text, content vectors and pictures        world_pins.py
    users             several interests each, which drift; boards, follows       world_users.py
    pages             a logging policy with known propensities                   world_policy.py
    answers           closeup, click, long_click, save, hide, by position        world_behaviour.py
    truth             interests, traits, laws: apart, for tests and simulations  world_truth.py

Days run one after another and users in blocks within a day, so that memory holds a few hundred bytes a user and
a pin, never the log. Every block draws from a seed of its own: equal configurations write equal tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.context import Progress, silent
from training.data import world_pins, world_users
from training.data.world_behaviour import Answers, answer, match, strength
from training.data.world_config import WorldConfig
from training.data.world_pins import Catalogue, Pins
from training.data.world_policy import SOURCE_NAMES, Page, Requests, Shelves, draw_pages
from training.data.world_topics import TopicTree, query_text
from training.data.world_truth import write_laws
from training.data.world_users import COUNTRIES, STATES, Users
from validation.tables import (
    ACTIONS,
    BOARDS,
    FOLLOWS,
    IMPRESSIONS,
    TIME,
    TOPICS,
    USERS,
    Contract,
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
HOMEFEED, SEARCH = "homefeed", "search"

_MS_DAY = 86_400_000
_LAST_SESSION_MS = _MS_DAY - 2 * 3_600_000
"""No session starts in a day's last two hours: a day's rows all lie within the day."""
_NOTES = (
    "A simulated world. Impressions are everything the simulated logging policy showed, with the true "
    "probability that the pin was on that page; actions follow from planted interests, pin quality and the "
    "position on the page."
)


@dataclass(frozen=True)
class WorldPaths:
    """Where a world was written."""

    root: Path

    @property
    def tables(self) -> Path:
        """Contract tables, a source folder for ingest."""
        return self.root / "tables"

    @property
    def truth(self) -> Path:
        """What was planted; nothing that trains or serves may read it."""
        return self.root / "truth"


def simulate(out_dir: Path, config: WorldConfig, *, progress: Progress = silent) -> WorldPaths:
    """Write one world under `out_dir`: contract tables in `tables/`, what was planted in `truth/`.

    Event tables are one file a UTC day, in no order within it; ids are int64 from 1; every time is before
    `config.end`. Raises FileExistsError if `out_dir/tables` already holds a world.
    """
    paths = WorldPaths(Path(out_dir))
    if paths.tables.exists():
        raise FileExistsError(f"{paths.tables} already exists; remove it or choose another folder")
    for folder in (paths.tables / "actions", paths.tables / "impressions", paths.truth):
        folder.mkdir(parents=True)
    tree = TopicTree.of(config.leaves_per_root)
    _write_contract(paths.tables)
    pq.write_table(_topics(tree), paths.tables / "topics.parquet")

    pins = _write_pins(paths, config, tree, progress)
    users = world_users.create(config, tree)
    _write_users(paths.tables, config, users)
    with _Writers(paths) as writers:
        writers.write("boards", _boards(users, tree))
        for start, stop in world_users.blocks(config):
            rng = np.random.default_rng([config.seed, 11, start])
            writers.write("follows", _first_follows(users, start, stop, config, tree, rng))
        _run_days(paths, config, tree, pins, users, writers, progress)
    write_laws(paths.truth, config, tree)
    return paths


def _write_contract(folder: Path) -> None:
    import yaml

    contract = Contract(name="demo-world", vocabulary=VOCABULARY, notes=_NOTES)
    text = yaml.safe_dump(
        contract.model_dump(mode="json", include={"name", "vocabulary", "notes"}), sort_keys=False
    )
    (folder / "contract.yaml").write_text(text)


def _topics(tree: TopicTree) -> pa.Table:
    roots = len(tree.roots)
    parents = [None] * roots + (tree.leaf_root.astype(int) + 1).tolist()
    ids = list(range(1, roots + len(tree.leaves) + 1))
    return pa.table(
        {"topic_id": ids, "name": [*tree.roots, *tree.leaves], "parent_id": parents}, schema=TOPICS.schema
    )


def _write_pins(paths: WorldPaths, config: WorldConfig, tree: TopicTree, progress: Progress) -> Pins:
    catalogue = Catalogue(config, tree)
    parts: list[Pins] = []
    with (
        pq.ParquetWriter(paths.tables / "pins.parquet", world_pins.PIN_SCHEMA, compression="zstd") as rows,
        pq.ParquetWriter(paths.truth / "pins.parquet", _TRUE_PIN_SCHEMA, compression="zstd") as truth,
    ):
        for block, (start, stop) in enumerate(world_pins.blocks(config)):
            progress(f"world: pins {start:,} of {config.pins:,}")
            part = world_pins.traits(config, tree, block, stop - start)
            rows.write_table(catalogue.rows(block, start, part))
            truth.write_table(_true_pins(part, start, tree))
            parts.append(part)
    pins = world_pins.join(parts)
    if not (pins.created_ms < int(config.start_time.timestamp() * 1000)).any():
        raise ValueError(f"a world of {config.pins} pins has none on its first day; ask for more pins")
    return pins


_TRUE_PIN_SCHEMA = pa.schema(
    [
        ("pin_id", pa.int64()),
        ("topic_id", pa.int64()),
        ("second_topic_id", pa.int64()),
        ("mix", pa.float32()),
        ("style", pa.int8()),
        ("quality", pa.float32()),
    ]
)


def _true_pins(pins: Pins, first: int, tree: TopicTree) -> pa.Table:
    return pa.table(
        {
            "pin_id": np.arange(first + 1, first + len(pins) + 1),
            "topic_id": tree.topic_id(pins.leaf),
            "second_topic_id": tree.topic_id(pins.second),
            "mix": pins.mix,
            "style": pins.style,
            "quality": pins.quality,
        },
        schema=_TRUE_PIN_SCHEMA,
    )


def _write_users(folder: Path, config: WorldConfig, users: Users) -> None:
    countries = np.array(list(COUNTRIES))
    languages = np.array([language for _, language in COUNTRIES.values()])
    states = np.array([*STATES, "new"])
    with pq.ParquetWriter(folder / "users.parquet", USERS.schema, compression="zstd") as out:
        for start, stop in world_users.blocks(config):
            rows = slice(start, stop)
            out.write_table(
                pa.table(
                    {
                        "user_id": np.arange(start + 1, stop + 1),
                        "country": pa.array(countries[users.country[rows]]),
                        "language": pa.array(languages[users.country[rows]]),
                        "created_at": _times(users.created_ms[rows]),
                        "state": pa.array(states[users.state[rows]]),
                    },
                    schema=USERS.schema,
                )
            )


def _boards(users: Users, tree: TopicTree) -> pa.Table:
    who, slot = np.nonzero(users.leaf >= 0)
    return _board_rows(users.board[who, slot], who, users.leaf[who, slot], tree)


def _board_rows(board: np.ndarray, who: np.ndarray, leaf: np.ndarray, tree: TopicTree) -> pa.Table:
    forms = ("{}", "{} ideas", "{} to try", "My {}", "{} inspiration")
    titles = [
        forms[b % len(forms)].format(tree.leaves[x]) for b, x in zip(board.tolist(), leaf.tolist(), strict=True)
    ]
    return pa.table(
        {"board_id": board.astype(np.int64), "user_id": who + 1, "title": pa.array(titles, pa.string())},
        schema=BOARDS.schema,
    )


def _first_follows(
    users: Users, start: int, stop: int, config: WorldConfig, tree: TopicTree, rng: np.random.Generator
) -> pa.Table:
    """Topics followed when the account was made, and up to three boards of others that share an interest."""
    rows = np.arange(start, stop)
    who, slot = np.nonzero(users.followed[start:stop] >= 0)
    at = users.created_ms[start:stop][who] + (rng.random(len(who)) * 1_800_000).astype(np.int64)
    topics = _follow_rows(who + start, at, tree.topic_id(users.followed[start:stop][who, slot]), None)

    count = rng.integers(0, 4, len(rows))
    fan = np.repeat(rows, count)
    slots = rng.integers(0, 2, len(fan))  # every user holds at least two interests, in the first slots
    leaf = users.leaf[fan, slots]
    # boards of the block's users are candidates: a block is large, and all boards of a world would not fit
    owner, place = np.nonzero(users.leaf[start:stop] >= 0)
    by_leaf = np.argsort(users.leaf[start:stop][owner, place], kind="stable")
    bounds = np.searchsorted(users.leaf[start:stop][owner, place][by_leaf], np.arange(len(tree.leaves) + 1))
    low, size = bounds[leaf], bounds[leaf + 1] - bounds[leaf]
    pick = by_leaf[low + (rng.random(len(fan)) * size).astype(np.int64)]
    board, theirs = users.board[start:stop][owner[pick], place[pick]], owner[pick] + start != fan
    _, first = np.unique(fan.astype(np.int64) * (int(users.board.max()) + 1) + board, return_index=True)
    kept = np.sort(first[theirs[first]])
    end_ms = int(config.end_time.timestamp() * 1000)
    since = np.maximum(users.created_ms[fan], end_ms - (config.days + 30) * _MS_DAY)
    at = since + (rng.random(len(fan)) * (end_ms - since)).astype(np.int64)
    boards = _follow_rows(fan[kept], at[kept], None, board[kept].astype(np.int64))
    return pa.concat_tables([topics, boards])


def _follow_rows(
    who: np.ndarray, at_ms: np.ndarray, topic: np.ndarray | None, board: np.ndarray | None
) -> pa.Table:
    none = pa.nulls(len(who), pa.int64())
    return pa.table(
        {
            "user_id": who + 1,
            "timestamp": _times(at_ms),
            "topic_id": none if topic is None else pa.array(topic),
            "board_id": none if board is None else pa.array(board),
        },
        schema=FOLLOWS.schema,
    )


def _run_days(
    paths: WorldPaths,
    config: WorldConfig,
    tree: TopicTree,
    pins: Pins,
    users: Users,
    writers: _Writers,
    progress: Progress,
) -> None:
    start_ms = int(config.start_time.timestamp() * 1000)
    shelves = Shelves(pins, len(tree.leaves), start_ms)
    counters = _Counters(next_board=int(users.board.max()) + 1)
    for day in range(config.days):
        progress(f"world: day {day + 1} of {config.days}")
        day_ms = start_ms + day * _MS_DAY
        shelves.open(day_ms)
        positives = np.zeros(len(pins), dtype=np.int64)
        name = f"{(config.start_time + timedelta(days=day)).date()}.parquet"
        with (
            pq.ParquetWriter(
                paths.tables / "impressions" / name, IMPRESSION_SCHEMA, compression="zstd"
            ) as shown,
            pq.ParquetWriter(paths.tables / "actions" / name, ACTION_SCHEMA, compression="zstd") as done,
        ):
            for block, (start, stop) in enumerate(world_users.blocks(config)):
                rng = np.random.default_rng([config.seed, 12, day, block])
                if day:
                    counters.next_board += _drift(
                        users, slice(start, stop), day, day_ms, counters.next_board, config, tree, writers, rng
                    )
                visits = _Visits.draw(users, start, stop, day_ms, config, tree, rng)
                if len(visits.who):
                    _serve(visits, users, pins, shelves, config, tree, counters, shown, done, positives, rng)
        shelves.close(positives)
    _write_open_interests(users, config, writers, tree)


@dataclass
class _Counters:
    next_board: int
    next_request: int = 1
    next_event: int = 1


def _drift(
    users: Users,
    rows: slice,
    day: int,
    day_ms: int,
    next_board: int,
    config: WorldConfig,
    tree: TopicTree,
    writers: _Writers,
    rng: np.random.Generator,
) -> int:
    """Let a block's interests drift and write what changed; returns how many boards were opened."""
    change = world_users.drift(users, rows, day, next_board, config, tree, rng)
    leaf, style, weight, since = change.former
    writers.write("interests", _interest_rows(change.changed, leaf, style, weight, since, day, config, tree))
    board, owner, board_leaf = change.boards
    writers.write("boards", _board_rows(board, owner, board_leaf, tree))
    who, topic = change.follows
    at = np.maximum(day_ms, users.created_ms[who] + 1) + (rng.random(len(who)) * 3_600_000).astype(np.int64)
    at = np.minimum(at, int(config.end_time.timestamp() * 1000) - 1)
    writers.write("follows", _follow_rows(who, at, tree.topic_id(topic), None))
    return len(board)


def _interest_rows(
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
            "start": _times(start_ms + since[row].astype(np.int64) * _MS_DAY),
            "end": _times(np.full(len(row), start_ms + until * _MS_DAY)),
        },
        schema=_INTEREST_SCHEMA,
    )


def _write_open_interests(users: Users, config: WorldConfig, writers: _Writers, tree: TopicTree) -> None:
    for start, stop in world_users.blocks(config):
        rows = slice(start, stop)
        writers.write(
            "interests",
            _interest_rows(
                np.arange(start, stop),
                users.leaf[rows],
                users.style[rows],
                users.weight[rows],
                users.since[rows],
                config.days,
                config,
                tree,
            ),
        )
        writers.write(
            "users",
            pa.table(
                {"user_id": np.arange(start + 1, stop + 1), "bias": users.bias[rows], "rate": users.rate[rows]},
                schema=_TRUE_USER_SCHEMA,
            ),
        )


@dataclass(frozen=True)
class _Visits:
    """Requests of one block on one day; arrays (R,)."""

    who: np.ndarray
    """Rows of users."""
    at_ms: np.ndarray
    intent: np.ndarray
    """Interest slot that the session follows."""
    search: np.ndarray
    """bool."""
    word: np.ndarray
    """Which word of the topic a search uses."""

    @classmethod
    def draw(
        cls,
        users: Users,
        start: int,
        stop: int,
        day_ms: int,
        config: WorldConfig,
        tree: TopicTree,
        rng: np.random.Generator,
    ) -> _Visits:
        rate = np.where(users.created_ms[start:stop] < day_ms, users.rate[start:stop], 0.0)
        session_user = start + np.repeat(np.arange(stop - start), rng.poisson(rate))
        n = len(session_user)
        hour = np.clip(rng.normal(16.5, 4.5, n), 0.0, _LAST_SESSION_MS / 3_600_000 - 0.01)
        begins = day_ms + (hour * 3_600_000).astype(np.int64)
        weight = users.weight[session_user]
        intent = (rng.random(n)[:, None] >= np.cumsum(weight, axis=1)).sum(axis=1)
        intent = np.minimum(intent, (weight > 0).sum(axis=1) - 1)
        pages = 1 + np.minimum(rng.poisson(config.requests_per_session - 1, n), 9)
        session = np.repeat(np.arange(n), pages)
        nth = np.arange(len(session)) - np.repeat(np.cumsum(pages) - pages, pages)
        gap = 300_000 + (rng.random(len(session)) * 60_000).astype(np.int64)
        return cls(
            who=session_user[session],
            at_ms=begins[session] + nth * gap,
            intent=intent[session],
            search=rng.random(len(session)) < config.search_share,
            word=rng.integers(0, 20, len(session)),
        )


def _serve(
    visits: _Visits,
    users: Users,
    pins: Pins,
    shelves: Shelves,
    config: WorldConfig,
    tree: TopicTree,
    counters: _Counters,
    shown: pq.ParquetWriter,
    done: pq.ParquetWriter,
    positives: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Show pages to a block's visits, draw the answers, and write both."""
    who = visits.who
    query_leaf = np.where(visits.search, users.leaf[who, visits.intent], -1)
    requests = Requests(
        believed=users.believed[who],
        followed=users.followed[who],
        remembered=users.remembered[who],
        query_leaf=query_leaf,
    )
    page = draw_pages(requests, shelves, config.policy, rng)
    row, pin = page.request, page.pin
    law = config.behaviour
    matches = match(
        users.leaf[who[row]],
        users.style[who[row]],
        pins.leaf[pin],
        pins.second[pin],
        pins.mix[pin],
        pins.style[pin],
        tree.leaf_root,
        law,
    )
    affinity = (matches * strength(users.weight[who], visits.intent, law)[row]).max(axis=1)
    answers = answer(affinity, pins.quality[pin], users.bias[who[row]], page.position, law, rng)

    slot = matches.argmax(axis=1)
    shown.write_table(_impressions(page, visits, counters.next_request, tree, pins))
    table = _actions(page, visits, answers, affinity, users, slot, counters, tree, pins, rng)
    done.write_table(table)
    counters.next_request += len(who)
    counters.next_event += len(table)
    opened = answers.closeup
    positives += np.bincount(pin[opened], minlength=len(pins))
    touched = opened | answers.hide
    world_users.remember(users, who[row[touched]], pin[touched].astype(np.int32))


IMPRESSION_SCHEMA = pa.schema([f for f in IMPRESSIONS.schema if f.name != "stage"])
ACTION_SCHEMA = ACTIONS.schema.set(
    ACTIONS.schema.get_field_index("action"), pa.field("action", pa.string(), False)
)


def _impressions(page: Page, visits: _Visits, first_request: int, tree: TopicTree, pins: Pins) -> pa.Table:
    row = page.request
    by_topic = np.isin(page.source, (0, 1, 4))
    return pa.table(
        {
            "request_id": row + first_request,
            "user_id": visits.who[row] + 1,
            "pin_id": page.pin + 1,
            "position": page.position.astype(np.int32),
            "timestamp": _times(visits.at_ms[row]),
            "surface": _words((HOMEFEED, SEARCH), visits.search[row].astype(np.int8)),
            "source": _words(SOURCE_NAMES, page.source.astype(np.int8)),
            "source_topic": pa.array(tree.topic_id(pins.leaf[page.pin]), mask=~by_topic),
            "propensity": page.propensity.astype(np.float32),
        },
        schema=IMPRESSION_SCHEMA,
    )


def _actions(
    page: Page,
    visits: _Visits,
    answers: Answers,
    affinity: np.ndarray,
    users: Users,
    slot: np.ndarray,
    counters: _Counters,
    tree: TopicTree,
    pins: Pins,
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
    query = [
        query_text(
            tree,
            int(users.leaf[w, visits.intent[r]]),
            int(users.style[w, visits.intent[r]]),
            int(visits.word[r]),
        )
        if visits.search[r]
        else None
        for w, r in zip(who, row, strict=True)
    ]
    return pa.table(
        {
            "event_id": np.arange(counters.next_event, counters.next_event + len(index)),
            "user_id": who + 1,
            "pin_id": page.pin[index] + 1,
            "action": _words(tuple(kinds), kind),
            "timestamp": _times(when),
            "surface": _words((HOMEFEED, SEARCH), visits.search[row].astype(np.int8)),
            "duration_s": pa.array(duration.astype(np.float32), mask=np.isnan(duration)),
            "board_id": pa.array(users.board[who, slot[index]].astype(np.int64), mask=~saved),
            "query": pa.array(query, pa.string()),
            "request_id": row + counters.next_request,
        },
        schema=ACTION_SCHEMA,
    )


def _words(names: tuple[str, ...], code: np.ndarray) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(code, pa.int8()), pa.array(names)).cast(pa.string())


def _times(ms: np.ndarray) -> pa.Array:
    return pa.array(np.asarray(ms, dtype=np.int64) * 1000).cast(TIME)


_INTEREST_SCHEMA = pa.schema(
    [
        ("user_id", pa.int64()),
        ("topic_id", pa.int64()),
        ("style", pa.int8()),
        ("weight", pa.float32()),
        ("start", TIME),
        ("end", TIME),
    ]
)
_TRUE_USER_SCHEMA = pa.schema([("user_id", pa.int64()), ("bias", pa.float32()), ("rate", pa.float32())])


class _Writers:
    """Open Parquet files of the tables that grow while the days run."""

    def __init__(self, paths: WorldPaths) -> None:
        places = {
            "boards": (paths.tables / "boards.parquet", BOARDS.schema),
            "follows": (paths.tables / "follows.parquet", FOLLOWS.schema),
            "interests": (paths.truth / "interests.parquet", _INTEREST_SCHEMA),
            "users": (paths.truth / "users.parquet", _TRUE_USER_SCHEMA),
        }
        self._files = {
            name: pq.ParquetWriter(path, schema, compression="zstd") for name, (path, schema) in places.items()
        }

    def __enter__(self) -> _Writers:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def write(self, name: str, table: pa.Table) -> None:
        if len(table):
            self._files[name].write_table(table)
