"""What a service and its makers say to each other over a socket pair: frames of a kind, a number and bytes.

Neither end reads what another program could have sent, and no frame is ever pickled.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import orjson

_HEAD = struct.Struct("<IBQ")
"""Bytes that follow, kind, number."""


class Kind(enum.IntEnum):
    """Of a frame. An answer, a refusal and a failure have the number of what was asked."""

    ASK = enum.auto()
    """To a maker: the name of an API, a line's end, the request as JSON."""
    ANSWER = enum.auto()
    """From a maker: the answer as JSON."""
    REFUSAL = enum.auto()
    """From a maker: a RequestError's name, message, status and when to come again."""
    FAILURE = enum.auto()
    """From a maker: an exception that is no refusal; its log has the traceback."""
    LOAD = enum.auto()
    """To a maker: the release version to serve from now on."""
    HELD = enum.auto()
    """From a maker: what came of a LOAD."""
    SHOWN = enum.auto()
    """From the maker that showed a user pins, through the service, to every other."""
    LINES = enum.auto()
    """From a maker: the stream of a log and event ids, a line's end, and one line a record."""


@dataclass(frozen=True)
class Frame:
    kind: Kind
    number: int
    body: bytes

    @property
    def told(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)


def packed(kind: Kind, body: bytes = b"", number: int = 0) -> bytes:
    """A frame on the wire."""
    return _HEAD.pack(len(body), kind, number) + body


class Hearing(asyncio.Protocol):
    """A line's end on an event loop: each frame that comes goes to `hears`, in order.

    `ended` is done once the other end is gone, or has the error of a frame that is none or what `hears` raised;
    nothing that came after it is heard.
    """

    def __init__(self, hears: Callable[[Frame], None]) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hears = hears
        self._line: asyncio.WriteTransport | None = None
        self._begun: list[bytes] = []
        """What came of a frame that is not whole: joined once it can be read on, not for every piece."""
        self._missing = 0
        """Bytes of its head, or then of its body, that have not come."""

    async def connect(self, channel: socket.socket) -> None:
        """Hear from now on what comes over `channel`, which is closed with the line."""
        await asyncio.get_running_loop().create_connection(lambda: self, sock=channel)

    def say(self, packed: bytes) -> None:
        """Send frames. One that is gone hears nothing."""
        if self._line is not None:
            self._line.write(packed)

    def hang_up(self) -> None:
        if self._line is not None:
            self._line.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._line = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        if self._begun:
            self._begun.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._begun)
            self._begun = []
        try:
            self._read(data)
        except Exception as error:
            self._end(error)
            self.hang_up()

    def _read(self, come: bytes) -> None:
        """Hear the whole frames of what came, and keep what is left."""
        end = 0
        while (begin := end + _HEAD.size) <= len(come):
            length, kind, number = _HEAD.unpack_from(come, end)
            if begin + length > len(come):
                self._begun, self._missing = [come[end:]], begin + length - len(come)
                return
            end = begin + length
            self._hears(Frame(Kind(kind), number, come[begin:end]))
        if end < len(come):
            self._begun, self._missing = [come[end:]], begin - len(come)

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._line = None
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)


def read_blocking(stream: BinaryIO) -> Frame | None:
    """The next frame, for a thread that has nothing else to do; None where the other end is gone."""
    try:
        head = stream.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        length, kind, number = _HEAD.unpack(head)
        body = stream.read(length)
    except OSError:
        return None
    return Frame(Kind(kind), number, body) if len(body) == length else None
