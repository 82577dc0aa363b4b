"""Newest pins of the boards a user follows (a rule, no model)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bentos.candidates import Candidates, concatenate, interleave

if TYPE_CHECKING:
    from bentos.feed import Feed

NAME = "followed_boards"
BOARDS = 20
"""Boards drawn a request, so that a user of a thousand boards costs one small read."""
PER_BOARD = 20


def candidates(feed: Feed) -> Candidates:
    """Each drawn board's newest pins, in turns. Scores fall with the place on the board; anchors are boards."""
    followed = feed.user.followed_boards
    if len(followed) == 0:
        return Candidates.none()
    drawn = feed.rng(2).permutation(followed)[:BOARDS]
    newest = feed.release.features.boards(drawn.tolist())
    parts, ranks, groups = [], [], []
    for place, board in enumerate(drawn.tolist()):
        ids = newest.get(board, np.empty(0, np.int64))[:PER_BOARD]
        rank = np.arange(len(ids))
        parts.append(Candidates.of(NAME, ids, 1.0 / (1.0 + rank), board, "board"))
        ranks.append(rank[: len(parts[-1])])
        groups.append(np.full(len(parts[-1]), place))
    return concatenate(parts).take(interleave(np.concatenate(ranks), np.concatenate(groups)))
