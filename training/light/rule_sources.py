"""Sources that are rules, as of a midnight: popular pins of topics, newest pins of boards.

The lists are made by the job that makes them every night, for the midnight asked about; budgets and draws are
the services', which a test holds them to.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_repo.sequence import Sequence as ActionSequence
from training.evaluation.histories import Histories
from training.interests.engagements import followed
from training.models.interactions import Pins
from validation.lake import Lake
from validation.tables import Polarity, Vocabulary

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Listed = tuple[Ints, Floats]

FOLLOWED_BOARDS, FOLLOWED_TOPICS, POPULAR = "followed_boards", "followed_topics", "popular_by_topic"
BUDGETS = {FOLLOWED_BOARDS: 160, FOLLOWED_TOPICS: 240, POPULAR: 240}
BOARDS, PER_BOARD = 20, 20
TOPICS, PER_TOPIC = 5, 60
OWN_TOPICS, RECENT = 5, 30
WHOLE_CATALOGUE = 0


@dataclass(frozen=True)
class Popular:
    """What the nightly job knew at one midnight, and whom users followed."""

    topics: Mapping[int, Listed]
    boards: Mapping[int, Ints]
    followed_topics: Mapping[int, Ints]
    followed_boards: Mapping[int, Ints]

    @classmethod
    def at(cls, lake: Lake, midnight: datetime) -> Popular:
        """As of a UTC midnight."""
        from feature_repo.jobs.catalogue import pin_base
        from feature_repo.jobs.database import connect
        from feature_repo.jobs.popular import boards, topics

        with tempfile.TemporaryDirectory() as folder, connect(lake) as db:
            pin_base(db)
            topics(db, lake, Path(folder), midnight)
            boards(db, lake, Path(folder), midnight)
            popular, newest = (
                pq.read_table(Path(folder) / view, columns=columns).to_pydict()
                for view, columns in (
                    ("topic_features", ["topic_id", "popular_pin_ids", "popular_scores"]),
                    ("board_features", ["board_id", "recent_pin_ids"]),
                )
            )
        return cls(
            {
                topic: (np.array(ids, np.int64), np.array(scores, np.float32))
                for topic, ids, scores in zip(*popular.values(), strict=True)
            },
            {board: np.array(ids, np.int64) for board, ids in zip(*newest.values(), strict=True)},
            *(followed(lake, midnight, column) for column in ("topic_id", "board_id")),
        )

    def sources(self, past: Histories, content: Pins, seed: int) -> dict[str, list[Listed]]:
        """Every rule's list for each of the held-out users; a rule that nobody follows anything for is left
        out."""
        users = past.held.users.tolist()
        out: dict[str, list[Listed]] = {}
        if self.followed_boards:
            out[FOLLOWED_BOARDS] = [self._of_boards(user, seed) for user in users]
        if self.followed_topics:
            out[FOLLOWED_TOPICS] = [self._of_topics(user, seed) for user in users]
        out[POPULAR] = [self.by_topic(past.sequence(user), past.vocabulary, content) for user in users]
        return out

    def by_topic(self, acted: ActionSequence, vocabulary: Vocabulary, content: Pins) -> Listed:
        """Popular pins of the whole catalogue and of the `own_topics` in turns."""
        return self._popular([WHOLE_CATALOGUE, *own_topics(acted, vocabulary, content)], BUDGETS[POPULAR])

    def _of_boards(self, user: int, seed: int) -> Listed:
        drawn = np.random.default_rng((seed, user, 2)).permutation(self.followed_boards.get(user, _NONE))
        lists = [self.boards.get(board, _NONE)[:PER_BOARD] for board in drawn[:BOARDS].tolist()]
        return in_turns([(ids, 1 / (1 + np.arange(len(ids)))) for ids in lists], BUDGETS[FOLLOWED_BOARDS])

    def _of_topics(self, user: int, seed: int) -> Listed:
        drawn = np.random.default_rng((seed, user, 3)).permutation(self.followed_topics.get(user, _NONE))
        return self._popular(drawn[:TOPICS].tolist(), BUDGETS[FOLLOWED_TOPICS])

    def _popular(self, topics: Sequence[int], budget: int) -> Listed:
        nothing = (_NONE, np.empty(0, np.float32))
        lists = [self.topics.get(topic, nothing) for topic in topics]
        return in_turns([(ids[:PER_TOPIC], scores[:PER_TOPIC]) for ids, scores in lists], budget)


def own_topics(acted: ActionSequence, vocabulary: Vocabulary, content: Pins) -> list[int]:
    """Topics of the pins of a user's newest positive actions, most frequent first."""
    positive = np.isin(acted.actions, vocabulary.codes(Polarity.POSITIVE))
    ids = np.unique(acted.pin_ids[positive][:RECENT])
    topics = content.topics[np.isin(content.ids, ids)]
    values, counts = np.unique(topics[topics > 0], return_counts=True)
    return values[np.lexsort((values, -counts))][:OWN_TOPICS].tolist()


def in_turns(lists: Sequence[tuple[Ints, NDArray[np.floating]]], most: int) -> Listed:
    """Every list's first, then every list's second, each pin once, at most `most`."""
    if not lists:
        return _NONE, np.empty(0, np.float32)
    ids = np.concatenate([ids for ids, _ in lists])
    scores = np.concatenate([scores for _, scores in lists]).astype(np.float32)
    rank = np.concatenate([np.arange(len(ids)) for ids, _ in lists])
    group = np.repeat(np.arange(len(lists)), [len(ids) for ids, _ in lists])
    turn = np.lexsort((group, rank))
    _, first = np.unique(ids[turn], return_index=True)
    kept = turn[np.sort(first)[:most]]
    return ids[kept], scores[kept]


_NONE: Ints = np.empty(0, np.int64)
