"""A maker's end of its line, and answers as they are written."""

from __future__ import annotations

import socket

import orjson
import pytest

from bentos import frames, parts
from bentos.frames import Kind
from bentos.impressions import STREAM, ServedPins
from bentos.maker import Line, LinesTo, Told
from bentos.messages import FeedAnswer, PinsAnswer, SourceReport, StageReport
from validation.events import ActionRecord, to_line

RECORD = ActionRecord(event_id=5, user_id=7, pin_id=3, action="save", timestamp_ms=1, surface="homefeed")


def test_what_an_answer_showed_goes_with_it_and_samples_by_themselves() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line, here = Line(theirs), ServedPins()
        Told(here, line).add(7, [3, 4])
        LinesTo(STREAM, line).append_lines((5,), (to_line(RECORD),))
        with pytest.raises(BlockingIOError):
            ours.recv(1, socket.MSG_DONTWAIT)
        line.say(Kind.ANSWER, b"{}", 9)
        with ours.makefile("rb") as heard:
            shown, lines, answer = (frames.read_blocking(heard) for _ in range(3))
            assert shown and shown.kind is Kind.SHOWN and shown.told == [7, [3, 4]]
            assert lines and lines.kind is Kind.LINES
            assert lines.body == orjson.dumps([STREAM, [5]]) + b"\n" + to_line(RECORD)
            assert answer and (answer.kind, answer.number, answer.body) == (Kind.ANSWER, 9, b"{}")
            LinesTo("rankings", line).append_lines((5,), (to_line(RECORD),))
            sample = frames.read_blocking(heard)
            assert sample and sample.kind is Kind.LINES
            assert here.of(7).tolist() == [3, 4]


def test_a_service_that_ends_is_heard_and_not_minded() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        line = Line(theirs)
        ours.sendall(frames.packed(Kind.LOAD, b"4") + frames.packed(Kind.ASK, b"cut off")[:-3])
        ours.shutdown(socket.SHUT_WR)
        assert [frame.told for frame in line.heard()] == [4]
        ours.close()
        for _ in range(3):
            line.say(Kind.ANSWER, b"{}", 1)


@pytest.mark.parametrize("user_id", ["ann", 7, 2**64])
def test_an_answer_is_written_as_pydantic_does(user_id: int | str) -> None:
    answer = FeedAnswer(
        request_id=1,
        user_id=user_id,
        release=2,
        spaces=["content@1"],
        pins=[],
        stages=[StageReport("merge", 3, 0.25)],
        sources=[SourceReport("pixie", 0, 1.5, "deadline")],
        missing=[],
        ms=float("nan"),
    )
    assert orjson.loads(parts.written(answer)) == orjson.loads(answer.model_dump_json())
    assert b"18446744073709551616" in parts.written(PinsAnswer(pins=[], unknown=[2**64]))
