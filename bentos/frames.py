"""What a service and its makers say to each other over a socket pair: frames of a kind, a number and bytes.

Neither end reads what another program could have sent, and no frame is ever pickled.
"""

from __future__ import annotations

import asyncio
import enum
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

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


async def read(reader: asyncio.StreamReader) -> Frame | None:
    """The next frame; None where the other end is gone."""
    try:
        length, kind, number = _HEAD.unpack(await reader.readexactly(_HEAD.size))
        return Frame(Kind(kind), number, await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def read_blocking(stream: BinaryIO) -> Frame | None:
    """`read`, for a thread that has nothing else to do."""
    try:
        head = stream.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        length, kind, number = _HEAD.unpack(head)
        body = stream.read(length)
    except OSError:
        return None
    return Frame(Kind(kind), number, body) if len(body) == length else None
