"""What `corkboard forget` does: a user taken out of every store of a home, and every store searched again."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from infra import local
from infra.console import console, say
from infra.home import Home
from validation.forgetting import (
    Wanted,
    blank_lines,
    by_lake_id,
    by_own_id,
    lines_of,
    remove_lines,
    remove_rows,
    rows_of,
    user_pattern,
)
from validation.forgotten import Forgotten, Person
from validation.ids import IdForm, IdMap
from validation.ingest import alone
from validation.ingest_events import LOCK
from validation.lake import Lake
from validation.lease import leased, leases_of
from validation.tables import BOARD_ID, BOARDS, DAY, USER_ID, EntityKind

SERVICES = ("homefeed", "events", "retrieval", "ranking")


class UnusableId(ValueError):
    """No user of this data set can have such an id."""


class StillServing(RuntimeError):
    """Services hold the user in memory, or may write them down again."""


@dataclass(frozen=True)
class Store:
    """One place where a user may be."""

    name: str
    find: Callable[[], int]
    """How many rows, lines or files are the user's."""
    remove: Callable[[], None]


def run(home: Home, own_id: str, *, allow_again: bool = False) -> bool:
    """Forget a user, by the data set's own id; True where nothing of them is left.

    A forgetting that was cut short is taken up by the next. Afterwards the door keeps the user's rows out,
    unless `allow_again`. Raises StillServing, UnusableId, LakeError before the first ingest, IngestBusy.
    """
    lake = Lake(home.lake)
    lake.contract()
    own_id = _written(lake.id_map(), own_id)
    with _quiet(home), alone(lake), alone(lake, LOCK):
        for leftover in (".staging", ".events"):
            shutil.rmtree(lake.path / leftover, ignore_errors=True)
        forgotten = Forgotten.of(lake.path)
        person = forgotten.unfinished(own_id) or _person(lake, own_id)
        stores = _stores(home, lake, person, forgotten.under_way())
        found = {store.name: store.find() for store in stores}
        if not any(found.values()) and forgotten.unfinished(own_id) is None:
            known = forgotten.knows(own_id)
            say(
                f"user {own_id} {'was forgotten before' if known else 'is unknown'}: nothing is theirs anywhere"
            )
            if known and allow_again:
                forgotten.allowed(own_id).save(lake.path)
                say("their rows may come in again")
            return True
        forgotten = forgotten.begun(person)
        forgotten.save(lake.path)
        for store in stores:
            store.remove()
        left = {store.name: store.find() for store in stores}
        _show(found, left)
        if any(left.values()):
            return False
        (forgotten.allowed(own_id) if allow_again else forgotten.done(person)).save(lake.path)
    say(
        f"nothing of user {own_id} is left; models keep what they learned, and counters what they counted,"
        " until the next `corkboard train`"
    )
    return True


def _written(ids: IdMap, own_id: str) -> str:
    """The id as every store writes it: `007` is user 7 where ids are numbers. Raises UnusableId."""
    if not own_id.strip():
        raise UnusableId(f"the user's id {own_id!r} is blank; give it as the data set writes it")
    if ids.form(EntityKind.USER) is not IdForm.INTEGER:
        return own_id
    number = ids.lookup(EntityKind.USER, own_id)
    if number is None:
        raise UnusableId(f"user id {own_id!r}: user ids of this data set are whole numbers from 1 to 2^63-1")
    return str(number)


def _person(lake: Lake, own_id: str) -> Person:
    lake_id = lake.id_map().lookup(EntityKind.USER, own_id) or 0
    if not (lake_id and lake.has(BOARDS.name)):
        return Person(own_id=own_id, lake_id=lake_id)
    boards = lake.read(BOARDS.name, [BOARD_ID, USER_ID])
    own = boards.loc[boards[USER_ID] == lake_id, BOARD_ID]
    return Person(own_id=own_id, lake_id=lake_id, boards=tuple(own.tolist()))


def _stores(home: Home, lake: Lake, person: Person, under_way: Sequence[Person]) -> list[Store]:
    """Every store, those last that others are found by: the id map names the user to the rest. `under_way` are
    those whose forgetting was cut short."""
    own, ids = by_own_id(person), lake.id_map()
    string_ids = ids.form(EntityKind.USER) is IdForm.STRING
    named = _word(person.own_id) if string_ids else user_pattern(person.own_id)
    stores = [
        _reports(home, own, named),
        _rows("quarantine", home.quarantine, own),
        _rows("data sets made here", home.datasets, own),
        _lines("service logs", home.run, "**/*.log", named, remove_lines),
    ]
    if person.lake_id:
        here = by_lake_id(person)
        logged = re.compile(rb'"user_id":%d(?!\d)' % person.lake_id)
        stores += [
            _rows("lake", home.lake, here),
            _lines("event log", home.events, "*.jsonl", logged, blank_lines),
            _lines("event log, torn ends", home.events, "*.torn", logged, remove_lines),
            _lines("event log, unreadable lines", home.quarantine, "**/*.jsonl", logged, remove_lines),
            *_online(home, person),
            _rows("offline features", home.features, here),
            _rows("training sets and nightly vectors", home.training_sets, here),
            _graphs(home.mlflow_artifacts, home.ledger, person, under_way),
        ]
    return [*stores, _names(ids, person)] if string_ids else stores


def _rows(name: str, folder: Path, wanted: Wanted) -> Store:
    """Parquet files below a folder; a day of the lake that is left empty goes."""

    def find() -> int:
        return sum(rows_of(file, wanted) for file in folder.rglob("*.parquet"))

    def remove() -> None:
        for file in folder.rglob("*.parquet"):
            remove_rows(file, wanted, empty=not file.parent.name.startswith(f"{DAY}="))

    return Store(name, find, remove)


def _lines(
    name: str,
    folder: Path,
    glob: str,
    pattern: re.Pattern[bytes],
    take_out: Callable[[Path, re.Pattern[bytes]], None],
) -> Store:
    def files() -> list[Path]:
        return [file for file in folder.glob(glob) if lines_of(file, pattern)]

    def remove() -> None:
        for file in files():
            take_out(file, pattern)

    return Store(name, lambda: sum(lines_of(file, pattern) for file in files()), remove)


def _online(home: Home, person: Person) -> list[Store]:
    """The embedded online store and, where one is set, Redis."""
    from feature_repo.jobs.forget import online_rows, remove_online
    from feature_repo.store import open_store

    redis = os.environ.pop("CORKBOARD_REDIS", None)
    try:
        opened = {"online store": open_store(home.root)}
    finally:
        if redis is not None:
            os.environ["CORKBOARD_REDIS"] = redis
    if redis is not None:
        opened["online store, Redis"] = open_store(home.root, redis=redis)
    return [
        Store(
            name,
            lambda store=store: online_rows(store, person.lake_id, person.boards),
            lambda store=store: remove_online(store, person.lake_id, person.boards),
        )
        for name, store in opened.items()
    ]


def _reports(home: Home, own: Wanted, named: re.Pattern[bytes]) -> Store:
    """Reports that name the user, and those of ingests that refused rows of theirs, which they may show."""

    def files() -> list[Path]:
        refused = {file.stem for file in home.quarantine.rglob("*.parquet") if rows_of(file, own)}
        pages = [file for file in home.reports.rglob("*") if file.suffix in (".html", ".json")]
        theirs = [p for p in pages if p.stem.removeprefix("ingest-") in refused or lines_of(p, named)]
        copies = {page.read_bytes() for page in theirs}
        return [page for page in pages if page in theirs or (copies and page.read_bytes() in copies)]

    def remove() -> None:
        for file in files():
            file.unlink()

    return Store("reports", lambda: len(files()), remove)


def _graphs(artifacts: Path, ledger: Path, person: Person, under_way: Sequence[Person]) -> Store:
    """Their boards in the graphs of released versions, where they would still be answered for. Those
    `under_way` go first, in the order begun: manifests may hold the digests of graphs without them already. The
    lock of `ledger` keeps a release from being registered with the digest of a graph that is being replaced."""
    from infra.forget_graphs import named, unname
    from training.ledger import Ledger
    from training.models.pixie.released import SETTINGS
    from validation.manifest import MANIFEST_FILE, RELEASE_MODEL

    def versions() -> list[Path]:
        return [file.parent for file in artifacts.rglob(SETTINGS)]

    def remove() -> None:
        with Ledger(ledger).lock():
            manifests = list(artifacts.rglob(f"{RELEASE_MODEL}/{MANIFEST_FILE}"))
            for each in (*under_way, person):
                for folder in versions():
                    if named(folder, each):
                        unname(folder, each, manifests)

    return Store("released graphs", lambda: sum(named(folder, person) for folder in versions()), remove)


def _names(ids: IdMap, person: Person) -> Store:
    """The user's own id in the id map, and the own ids of their boards."""

    def remove() -> None:
        ids.forget(EntityKind.USER, [person.lake_id] if person.lake_id else [])
        ids.forget(EntityKind.BOARD, person.boards)

    return Store("id map", lambda: int(ids.lookup(EntityKind.USER, person.own_id) is not None), remove)


def _word(own_id: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?<![\w-])" + re.escape(own_id.encode()) + rb"(?![\w-])")


@contextlib.contextmanager
def _quiet(home: Home) -> Iterator[None]:
    """Holds every stream of the event log, as services do, so that none runs or starts meanwhile."""
    serving = {row.name for row in local.status(home) if row.name in SERVICES and row.pid}
    # A lease is a worker's and names its process too; the supervisor above has the same service's name.
    serving |= {name.rpartition("-")[0] for name in leased(leases_of(home.root)).values()}
    if serving:
        raise StillServing(f"{', '.join(sorted(serving))} of {home.root} still run; `corkboard down` first")
    with contextlib.ExitStack() as held:
        for file in sorted(home.events.glob("*.lock")):
            lock = held.enter_context(file.open("r+"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StillServing(f"a service writes {file.stem} of {home.events}; stop it first") from error
        yield


def _show(found: dict[str, int], left: dict[str, int]) -> None:
    rows = Table("store", "found", "left", box=None, pad_edge=False)
    for name, count in found.items():
        rows.add_row(name, f"{count:,}", f"{left[name]:,}")
    console.print(rows)
