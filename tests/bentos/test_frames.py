"""Frames as a service hears them: whole and in order, however they come."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

from bentos import frames
from bentos.frames import Frame, Hearing, Kind, packed

SAID = [Frame(Kind.HELD, 0, b"{}"), Frame(Kind.ANSWER, 7, b"a" * 10_000), Frame(Kind.SHOWN, 0, b"")]
WIRE = b"".join(packed(frame.kind, frame.body, frame.number) for frame in SAID)


@pytest.mark.parametrize("piece", [1, 5, 4096, len(WIRE)])
def test_frames_are_heard_whole_and_in_order(piece: int) -> None:
    async def scenario() -> None:
        heard: list[Frame] = []
        hearing = Hearing(heard.append)
        for at in range(0, len(WIRE), piece):
            hearing.data_received(WIRE[at : at + piece])
            assert heard == SAID[: len(heard)]
        assert heard == SAID and not hearing.ended.done()
        hearing.eof_received()
        await hearing.ended

    asyncio.run(scenario())


def test_a_large_frame_is_joined_once_and_not_for_every_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    head = frames._HEAD

    class Counting:
        size, pack, read = head.size, staticmethod(head.pack), 0

        def unpack_from(self, come: bytes, at: int) -> tuple[int, int, int]:
            self.read += 1
            return head.unpack_from(come, at)

    async def scenario() -> None:
        heard: list[Frame] = []
        hearing = Hearing(heard.append)
        large = Frame(Kind.ANSWER, 7, b"a" * 10_000_000)
        wire = packed(large.kind, large.body, large.number)
        for at in range(0, len(wire), 65_536):
            hearing.data_received(wire[at : at + 65_536])
        assert heard == [large]

    counting = Counting()
    monkeypatch.setattr(frames, "_HEAD", counting)
    asyncio.run(scenario())
    assert counting.read == 2, "once to learn its length, once when it is whole"


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_nothing_is_heard_after_a_frame_that_is_none(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scenario() -> None:
        heard: list[Frame] = []
        hearing = Hearing(heard.append)
        ours, theirs = socket.socketpair()
        with theirs:
            await hearing.connect(ours)
            none = b"\0\0\0\0" + b"\xff" * 9
            theirs.sendall(packed(Kind.LOAD, b"4") + none + packed(Kind.LOAD, b"5"))
            with pytest.raises(ValueError, match="255"):
                await hearing.ended
            theirs.settimeout(5)
            hearing.say(packed(Kind.ASK))
            assert await asyncio.to_thread(theirs.recv, 1) == b"", "the line is shut"
            hearing.say(packed(Kind.ASK))
        assert [frame.told for frame in heard] == [4]

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(scenario(), 10))
