"""The demo world: a seeded simulator that writes contract tables whose right answers are known.

    topics, pins      a catalogue with text, content vectors and pictures        world_pins.py
    users             several interests each, which drift; boards, follows       world_users.py
    pages             a logging policy with known propensities                   world_policy.py
    answers           closeup, click, long_click, save, hide, by position        world_behaviour.py
    searches          what people type, in the catalogue's words or others      world_queries.py
    ads               sponsored pins beside related ones, drawn apart            world_ads.py
    truth             interests, traits, laws: apart, for tests and simulations  world_truth.py

Days run one after another and users in blocks within a day, so that memory holds a few hundred bytes a user and
a pin, never the log. Every block draws from a seed of its own: equal configurations write equal tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.context import Progress, silent
from training.data import world_pins, world_users
from training.data.world_ads import Advertiser
from training.data.world_behaviour import answer, match, strength
from training.data.world_config import MS_DAY, WorldConfig
from training.data.world_pins import Catalogue, Pins
from training.data.world_policy import Page, Requests, Shelves, draw_pages
from training.data.world_queries import Searchers
from training.data.world_rows import (
    ACTION_SCHEMA,
    IMPRESSION_SCHEMA,
    INTENT_SCHEMA,
    INTEREST_SCHEMA,
    TRUE_PIN_SCHEMA,
    TRUE_USER_SCHEMA,
    VOCABULARY,
    action_rows,
    board_rows,
    first_boards,
    follow_rows,
    impression_rows,
    intent_rows,
    interest_rows,
    times,
    topic_rows,
    true_pin_rows,
)
from training.data.world_topics import TopicTree
from training.data.world_truth import write_laws
from training.data.world_users import COUNTRIES, STATES, Users
from training.data.world_visits import Visits
from validation.tables import (
    BOARDS,
    FOLLOWS,
    USERS,
    Contract,
)

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
    pq.write_table(topic_rows(tree), paths.tables / "topics.parquet")

    pins = _write_pins(paths, config, tree, progress)
    users = world_users.create(config, tree)
    _write_users(paths.tables, config, users)
    with _Writers(paths) as writers:
        writers.write("boards", first_boards(users, tree))
        for start, stop in world_users.blocks(config):
            rng = np.random.default_rng([config.seed, 11, start])
            writers.write("follows", _first_follows(users, start, stop, config, tree, rng))
        ads = Advertiser.of(paths.tables, config, tree, pins, users) if config.ads else None
        searchers = Searchers(config, tree)
        _run_days(paths, config, tree, pins, users, writers, searchers, ads, progress)
    searchers.write(paths.tables, paths.truth, pins)
    write_laws(paths.truth, config, tree)
    return paths


def _write_contract(folder: Path) -> None:
    import yaml

    contract = Contract(name="demo-world", vocabulary=VOCABULARY, notes=_NOTES)
    text = yaml.safe_dump(
        contract.model_dump(mode="json", include={"name", "vocabulary", "notes"}), sort_keys=False
    )
    (folder / "contract.yaml").write_text(text)


def _write_pins(paths: WorldPaths, config: WorldConfig, tree: TopicTree, progress: Progress) -> Pins:
    catalogue = Catalogue(config, tree)
    parts: list[Pins] = []
    with (
        pq.ParquetWriter(paths.tables / "pins.parquet", world_pins.PIN_SCHEMA, compression="zstd") as rows,
        pq.ParquetWriter(paths.truth / "pins.parquet", TRUE_PIN_SCHEMA, compression="zstd") as truth,
    ):
        for block, (start, stop) in enumerate(world_pins.blocks(config)):
            progress(f"world: pins {start:,} of {config.pins:,}")
            part = world_pins.traits(config, tree, block, stop - start)
            rows.write_table(catalogue.rows(block, start, part))
            truth.write_table(true_pin_rows(part, start, tree))
            parts.append(part)
    pins = world_pins.join(parts)
    if not (pins.created_ms < int(config.start_time.timestamp() * 1000)).any():
        raise ValueError(f"a world of {config.pins} pins has none on its first day; ask for more pins")
    return pins


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
                        "created_at": times(users.created_ms[rows]),
                        "state": pa.array(states[users.state[rows]]),
                    },
                    schema=USERS.schema,
                )
            )


def _first_follows(
    users: Users, start: int, stop: int, config: WorldConfig, tree: TopicTree, rng: np.random.Generator
) -> pa.Table:
    """Topics followed when the account was made, and up to three boards of others that share an interest."""
    rows = np.arange(start, stop)
    who, slot = np.nonzero(users.followed[start:stop] >= 0)
    at = users.created_ms[start:stop][who] + (rng.random(len(who)) * 1_800_000).astype(np.int64)
    at = np.minimum(at, int(config.end_time.timestamp() * 1000) - 1)
    topics = follow_rows(who + start, at, tree.topic_id(users.followed[start:stop][who, slot]), None)

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
    since = np.maximum(users.created_ms[fan], end_ms - (config.days + 30) * MS_DAY)
    at = since + (rng.random(len(fan)) * (end_ms - since)).astype(np.int64)
    boards = follow_rows(fan[kept], at[kept], None, board[kept].astype(np.int64))
    return pa.concat_tables([topics, boards])


def _run_days(
    paths: WorldPaths,
    config: WorldConfig,
    tree: TopicTree,
    pins: Pins,
    users: Users,
    writers: _Writers,
    searchers: Searchers,
    ads: Advertiser | None,
    progress: Progress,
) -> None:
    start_ms = int(config.start_time.timestamp() * 1000)
    shelves = Shelves(pins, len(tree.leaves), start_ms)
    counters = _Counters(next_board=int(users.board.max()) + 1)
    for day in range(config.days):
        progress(f"world: day {day + 1} of {config.days}")
        day_ms = start_ms + day * MS_DAY
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
                visits = Visits.draw(users, start, stop, day_ms, config, tree, rng)
                if len(visits.who):
                    first = counters.next_request
                    writers.write("requests", intent_rows(visits, users, first, tree))
                    ask = partial(searchers.ask, users=users, pins=pins, day=day, block=block)
                    acted = _serve(
                        visits, users, pins, shelves, config, tree, counters, shown, done, positives, ask, rng
                    )
                    if ads:
                        ads.show(acted, visits, first, day, block)
        shelves.close(positives)
        if ads:
            ads.write_day(name)
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
    writers.write("interests", interest_rows(change.changed, leaf, style, weight, since, day, config, tree))
    board, owner, board_leaf = change.boards
    writers.write("boards", board_rows(board, owner, board_leaf, tree))
    who, topic = change.follows
    at = np.maximum(day_ms, users.created_ms[who] + 1) + (rng.random(len(who)) * 3_600_000).astype(np.int64)
    at = np.minimum(at, int(config.end_time.timestamp() * 1000) - 1)
    writers.write("follows", follow_rows(who, at, tree.topic_id(topic), None))
    return len(board)


def _write_open_interests(users: Users, config: WorldConfig, writers: _Writers, tree: TopicTree) -> None:
    for start, stop in world_users.blocks(config):
        rows = slice(start, stop)
        writers.write(
            "interests",
            interest_rows(
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
                {
                    "user_id": np.arange(start + 1, stop + 1),
                    "bias": users.bias[rows],
                    "rate": users.rate[rows],
                    "disliked": [tree.topic_id(own[own >= 0]) for own in users.disliked[rows]],
                },
                schema=TRUE_USER_SCHEMA,
            ),
        )


def _serve(
    visits: Visits,
    users: Users,
    pins: Pins,
    shelves: Shelves,
    config: WorldConfig,
    tree: TopicTree,
    counters: _Counters,
    shown: pq.ParquetWriter,
    done: pq.ParquetWriter,
    positives: np.ndarray,
    ask: Callable[[Visits, Page, np.ndarray], np.ndarray],
    rng: np.random.Generator,
) -> pa.Table:
    """Show pages to a block's visits, draw the answers, and write both; the rows of the answers."""
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
    disliked = (users.disliked[who[row]] == pins.leaf[pin][:, None]).any(axis=1)
    answers = answer(affinity, pins.quality[pin], users.bias[who[row]], page.position, law, rng, disliked)

    slot = matches.argmax(axis=1)
    queries = ask(visits, page, answers.closeup)
    shown.write_table(impression_rows(page, visits, queries, counters.next_request, tree, pins))
    table = action_rows(
        page,
        visits,
        queries,
        answers,
        affinity,
        users,
        slot,
        counters.next_request,
        counters.next_event,
        rng,
    )
    done.write_table(table)
    counters.next_request += len(who)
    counters.next_event += len(table)
    opened = answers.closeup
    positives += np.bincount(pin[opened], minlength=len(pins))
    touched = opened | answers.hide
    world_users.remember(users, who[row[touched]], pin[touched].astype(np.int32))
    return table


class _Writers:
    """Open Parquet files of the tables that grow while the days run."""

    def __init__(self, paths: WorldPaths) -> None:
        places = {
            "boards": (paths.tables / "boards.parquet", BOARDS.schema),
            "follows": (paths.tables / "follows.parquet", FOLLOWS.schema),
            "interests": (paths.truth / "interests.parquet", INTEREST_SCHEMA),
            "users": (paths.truth / "users.parquet", TRUE_USER_SCHEMA),
            "requests": (paths.truth / "requests.parquet", INTENT_SCHEMA),
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
