"""The log's contract: acknowledged records survive anything, once; nothing else is claimed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.event_log import EventLog, LogClosed, LogFull, LogInUse, SyncFailed
from bentos.log_segments import LogDamaged, read, recover
from validation.events import ActionRecord, segments_of, to_line


def record(event_id: int, timestamp_ms: int = 1_000) -> ActionRecord:
    return ActionRecord(event_id=event_id, user_id=1, pin_id=2, action="save", timestamp_ms=timestamp_ms)


def ids_in(folder: Path, stream: str = "actions") -> list[int]:
    return [r.event_id for r in read(folder, stream)]


def test_append_then_read_gives_the_records_in_order(tmp_path: Path) -> None:
    log = EventLog.open(tmp_path, "actions")
    assert log.append([record(3), record(1)]).result(5).fresh == (True, True)
    assert log.append([record(2)]).result(5).fresh == (True,)
    log.close()
    assert [r for r in read(tmp_path, "actions")] == [record(3), record(1), record(2)]


def test_the_future_is_done_only_after_the_sync(tmp_path: Path) -> None:
    let_go, syncing = threading.Event(), threading.Event()

    def slow_sync(handle: int) -> None:
        syncing.set()
        assert let_go.wait(10)
        os.fsync(handle)

    log = EventLog.open(tmp_path, "actions", sync=slow_sync)
    done = log.append([record(1)])
    assert syncing.wait(5)
    assert not done.done()
    let_go.set()
    assert done.result(5).fresh == (True,)
    log.close()


def test_callers_that_come_during_a_sync_share_the_next_one(tmp_path: Path) -> None:
    let_go, syncs = threading.Event(), []

    def counted(handle: int) -> None:
        syncs.append(handle)
        assert let_go.wait(10)

    log = EventLog.open(tmp_path, "actions", sync=counted)
    first = log.append([record(1)])
    while not syncs:
        pass
    rest = [log.append([record(i)]) for i in range(2, 60)]
    let_go.set()
    for done in [first, *rest]:
        assert done.result(5).fresh == (True,)
    assert len(syncs) == 2
    log.close()


def test_a_stream_that_nobody_waits_for_gathers_before_it_syncs(tmp_path: Path) -> None:
    syncs: list[int] = []
    log = EventLog.open(tmp_path, "actions", gather_s=600, sync=syncs.append)
    gathered = [log.append([record(i)]) for i in range(1, 4)]
    assert not syncs and not any(done.done() for done in gathered)
    log.close()  # at once, whatever is left of the time
    assert [done.result(0).fresh for done in gathered] == [(True,)] * 3 and len(syncs) == 1
    assert ids_in(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("reopened", [False, True])
def test_a_known_id_is_acknowledged_and_not_written_again(tmp_path: Path, reopened: bool) -> None:
    log = EventLog.open(tmp_path, "actions")
    log.append([record(1), record(2)]).result(5)
    if reopened:
        log.close()
        log = EventLog.open(tmp_path, "actions")
    assert log.append([record(2), record(3), record(3)]).result(5).fresh == (False, True, False)
    log.close()
    assert ids_in(tmp_path) == [1, 2, 3]


def test_ids_are_remembered_up_to_the_stated_number(tmp_path: Path) -> None:
    log = EventLog.open(tmp_path, "actions", remembered=3)
    log.append([record(i) for i in range(1, 6)]).result(5)
    assert log.append([record(5), record(3), record(2)]).result(5).fresh == (False, False, True)
    log.close()
    log = EventLog.open(tmp_path, "actions", remembered=3)
    assert log.append([record(2), record(1)]).result(5).fresh == (False, True)
    log.close()


def test_segments_turn_over_and_all_are_read(tmp_path: Path) -> None:
    size = len(to_line(record(1)))
    log = EventLog.open(tmp_path, "actions", segment_bytes=3 * size)
    for i in range(1, 9):
        log.append([record(i)]).result(5)
    log.close()
    assert [p.name for p in segments_of(tmp_path, "actions")] == [
        "actions-00000001.jsonl",
        "actions-00000002.jsonl",
        "actions-00000003.jsonl",
    ]
    assert ids_in(tmp_path) == list(range(1, 9))
    log = EventLog.open(tmp_path, "actions", segment_bytes=3 * size)
    assert log.append([record(1), record(9)]).result(5).fresh == (False, True)
    log.close()


def test_streams_of_one_folder_do_not_meet(tmp_path: Path) -> None:
    a, b = EventLog.open(tmp_path, "actions"), EventLog.open(tmp_path, "impressions")
    a.append([record(1)]).result(5)
    b.append([record(1)]).result(5)
    a.close()
    b.close()
    assert ids_in(tmp_path, "actions") == ids_in(tmp_path, "impressions") == [1]


def test_cut_at_every_byte_the_whole_lines_before_it_survive(tmp_path: Path) -> None:
    """The recovery contract, at each place a crash could have cut the file."""
    content = b"".join(to_line(record(i)) for i in (1, 2, 3))
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(len(content) + 1):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / "actions-00000001.jsonl").write_bytes(content[:cut])
        survived = sum(end <= cut for end in ends)
        log = EventLog.open(folder, "actions", sync=lambda _: None)
        fresh = log.append([record(1), record(3), record(9)]).result(5).fresh
        log.close()
        assert fresh == (survived < 1, survived < 3, True)
        kept = list(range(1, survived + 1))
        again = [i for i, new in zip((1, 3, 9), fresh, strict=True) if new]
        assert ids_in(folder) == kept + again


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=80))
def test_rubbish_after_the_last_sync_costs_only_itself(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes
) -> None:
    folder = tmp_path_factory.mktemp("rubbish")
    segment = folder / "actions-00000001.jsonl"
    good = to_line(record(1)) + to_line(record(2))
    segment.write_bytes(good + b"\x00" + tail)
    recover(segment)
    assert segment.read_bytes() == good
    assert segment.with_suffix(".torn").read_bytes() == b"\x00" + tail


def test_a_damaged_line_in_an_earlier_segment_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "actions-00000001.jsonl").write_bytes(to_line(record(1)) + b"{half\n" + to_line(record(2)))
    (tmp_path / "actions-00000002.jsonl").write_bytes(to_line(record(3)))
    with pytest.raises(LogDamaged, match=r"actions-00000001\.jsonl"):
        list(read(tmp_path, "actions"))


def test_a_whole_line_of_another_version_is_never_cut_off(tmp_path: Path) -> None:
    segment = tmp_path / "actions-00000001.jsonl"
    content = to_line(record(1)) + b'{"kind":"gaze","event_id":7}\n'
    segment.write_bytes(content)
    with pytest.raises(LogDamaged, match="no record of this version"):
        EventLog.open(tmp_path, "actions")
    assert segment.read_bytes() == content


def test_one_writer_a_stream(tmp_path: Path) -> None:
    log = EventLog.open(tmp_path, "actions")
    with pytest.raises(LogInUse, match=r"actions\.lock"):
        EventLog.open(tmp_path, "actions")
    log.close()
    EventLog.open(tmp_path, "actions").close()


def test_a_failed_write_is_undone_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog.open(tmp_path, "actions")
    log.append([record(1)]).result(5)
    real = os.write

    def full_disk(handle: int, data: bytes) -> int:
        real(handle, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bentos.event_log.os.write", full_disk)
    with pytest.raises(OSError, match="No space"):
        log.append([record(2)]).result(5)
    monkeypatch.setattr("bentos.event_log.os.write", real)
    assert log.append([record(2)]).result(5).fresh == (True,)
    log.close()
    assert ids_in(tmp_path) == [1, 2]


def test_half_a_line_that_cannot_be_cut_off_ends_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog.open(tmp_path, "actions")
    log.append([record(1)]).result(5)
    real = os.write

    def broken(handle: int, data: int | bytes) -> int:
        if isinstance(data, bytes):
            real(handle, data[: len(data) // 2])
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr("bentos.event_log.os.write", broken)
        disk.setattr("bentos.event_log.os.ftruncate", broken)
        with pytest.raises(OSError, match="Input/output"):
            log.append([record(2)]).result(5)
    with pytest.raises(LogClosed, match="restart"):
        log.append([record(3)])
    log.close()
    log = EventLog.open(tmp_path, "actions")
    assert log.append([record(3)]).result(5).fresh == (True,)
    log.close()
    assert ids_in(tmp_path) == [1, 3]


def test_lines_before_half_a_line_that_cannot_be_cut_off_are_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, real, left = EventLog.open(tmp_path, "actions"), os.write, [1.5]

    def broken(handle: int, data: int | bytes) -> int:
        if not (left and isinstance(data, bytes)):
            raise OSError(5, "Input/output error")
        return real(handle, data[: int(left.pop() * len(data) / 2)])

    with monkeypatch.context() as disk:
        disk.setattr("bentos.event_log.os.write", broken)
        disk.setattr("bentos.event_log.os.ftruncate", broken)
        with pytest.raises(SyncFailed):
            log.append([record(1), record(2)]).result(5)
    log.close()
    EventLog.open(tmp_path, "actions").close()
    assert ids_in(tmp_path) == [1]


def test_a_segment_that_cannot_be_begun_closes_nobody_elses_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog.open(tmp_path, "actions", segment_bytes=1)
    log.append([record(1)]).result(5)
    real, opened = os.open, []

    def refusing(path: Path, *how: int) -> int:
        if str(path).endswith("2.jsonl"):
            raise OSError(28, "No space left on device")
        return real(path, *how)

    with monkeypatch.context() as disk:
        disk.setattr("bentos.event_log.os.open", refusing)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                log.append([record(2)]).result(5)
            opened.append(real(tmp_path, os.O_RDONLY))
    assert log.append([record(2)]).result(5).fresh == (True,)
    for handle in opened:
        os.close(handle)  # still open
    log.close()
    assert ids_in(tmp_path) == [1, 2]


def test_a_failed_sync_ends_the_log_until_it_is_reopened(tmp_path: Path) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    log = EventLog.open(tmp_path, "actions", sync=broken)
    with pytest.raises(OSError, match="Input/output"):
        log.append([record(1)]).result(5)
    with pytest.raises(LogClosed, match="restart"):
        log.append([record(2)])
    log.close()
    log = EventLog.open(tmp_path, "actions")
    assert log.append([record(2)]).result(5).fresh == (True,)
    log.close()


def test_a_full_line_refuses_before_it_promises_and_loses_nothing(tmp_path: Path) -> None:
    let_go, syncing = threading.Event(), threading.Event()

    def stuck(handle: int) -> None:
        syncing.set()
        assert let_go.wait(10)

    log = EventLog.open(tmp_path, "actions", waiting=10, sync=stuck)
    taken = [log.append([record(1)])]
    assert syncing.wait(5)
    taken += [log.append([record(i)]) for i in range(2, 12)]
    with pytest.raises(LogFull, match="10 records"):
        log.append([record(99)])
    let_go.set()
    assert all(done.result(5).fresh == (True,) for done in taken) and log.waiting == 0
    assert log.append([record(99)]).result(5).fresh == (True,)
    log.close()
    assert sorted(ids_in(tmp_path)) == [*range(1, 12), 99]


def test_a_closed_log_refuses(tmp_path: Path) -> None:
    log = EventLog.open(tmp_path, "actions")
    pending = log.append([record(1)])
    log.close()
    log.close()
    assert pending.result(0).fresh == (True,)
    with pytest.raises(LogClosed):
        log.append([record(2)])


def test_reading_from_a_time_on(tmp_path: Path) -> None:
    log = EventLog.open(tmp_path, "actions")
    log.append([record(1, 1_000), record(2, 5_000), record(3, 3_000)]).result(5)
    log.close()
    assert [r.event_id for r in read(tmp_path, "actions", since_ms=3_000)] == [2, 3]
    old = segments_of(tmp_path, "actions")[0]
    os.utime(old, (0, 1_000_000))
    assert list(read(tmp_path, "actions", since_ms=2_000_000_000)) == []


def _write_until_killed(folder: str, told) -> None:  # type: ignore[no-untyped-def]
    log = EventLog.open(Path(folder), "actions", segment_bytes=4_000)
    number = 0
    while True:
        batch = [log.append([record(number * 5 + i) for i in range(1, 6)])]
        batch[0].result(5)
        told.send(number)
        number += 1


@pytest.mark.slow
@pytest.mark.parametrize("acknowledged", [1, 17, 60])
def test_killed_at_any_instant_nothing_acknowledged_is_lost_or_doubled(
    tmp_path: Path, acknowledged: int
) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_write_until_killed, args=(str(tmp_path), there))
    child.start()
    last = -1
    while last < acknowledged:
        assert here.poll(60), "the writer said nothing"
        last = here.recv()
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    while here.poll(0):
        last = here.recv()
    promised = {n * 5 + i for n in range(last + 1) for i in range(1, 6)}
    log = EventLog.open(tmp_path, "actions")
    again = log.append([record(i) for i in sorted(promised)]).result(5)
    log.close()
    kept = ids_in(tmp_path)
    assert not any(again.fresh)
    assert promised <= set(kept)
    assert len(kept) == len(set(kept))
