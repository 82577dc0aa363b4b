"""What goes wrong at every look is said when it comes, changes and ends."""

from __future__ import annotations

import logging

import pytest

from bentos.trouble import Trouble


def test_it_is_said_once_with_where_it_came_from(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "corkboard.planted")
    trouble = Trouble(logging.getLogger("corkboard.planted"), "the alias cannot be read")
    trouble.over()
    for _ in range(3):
        trouble.met(ConnectionError("down"))
    trouble.met(TimeoutError("slow"))
    trouble.met(TimeoutError("slow"))
    trouble.over()
    trouble.over()
    trouble.met(TimeoutError("slow"))
    assert [(r.levelname, r.message, r.exc_info is not None) for r in caplog.records] == [
        ("ERROR", "the alias cannot be read: ConnectionError('down')", True),
        ("ERROR", "the alias cannot be read: TimeoutError('slow')", False),
        ("WARNING", "the alias cannot be read: no longer", False),
        ("ERROR", "the alias cannot be read: TimeoutError('slow')", True),
    ]
