"""Frames as a service hears them: whole and in order, however they come."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

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
