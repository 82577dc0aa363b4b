"""Newest pins of the boards a user follows (a rule, no model)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bentos.candidates import Candidates

if TYPE_CHECKING:
    from bentos.feed import Feed

NAME = "followed_boards"
BOARDS = 20
"""Boards drawn a request, so that a user of a thousand boards costs one small read."""
PER_BOARD = 20
_BY_PLACE = (1.0 / np.arange(1, PER_BOARD + 1)).astype(np.float32)


def candidates(feed: Feed) -> Candidates:
    """Each drawn board's newest pins, in turns. Scores fall with the place on the board; anchors are boards."""
    followed = feed.user.followed_boards
    if len(followed) == 0:
        return Candidates.none()
    drawn = feed.drawn(2, followed, BOARDS)
    newest, none = feed.release.features.boards(drawn), np.empty(0, np.int64)
    found = [newest.get(board, none)[:PER_BOARD] for board in drawn]
    return Candidates.dealt(NAME, [(ids, _BY_PLACE[: len(ids)]) for ids in found], drawn, "board")
