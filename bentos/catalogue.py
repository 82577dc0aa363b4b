"""What the lake, not the feature store, tells a service: topic names, the contract, and users to pick from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from bentos.errors import LimitOutOfRange
from bentos.features import Ints
from bentos.messages import MAX_LIMIT, Topic, UsersAnswer, UserSketch
from bentos.release import ServingRelease, TopicName
from validation.lake import Lake
from validation.tables import ACTIONS, TOPICS, USER_ID, EntityKind

SKETCH_USERS = 400
"""Active users kept to pick from."""

TOPICS_SHOWN = 4


def topic_names(lake: Lake) -> dict[int, TopicName]:
    """Every topic by id; empty where the data set has none."""
    if not lake.has(TOPICS.name):
        return {}
    rows = lake.read(TOPICS.name)
    parents = rows["parent_id"].fillna(0).astype(np.int64)
    return {
        int(topic): TopicName(int(topic), name, int(parent))
        for topic, name, parent in zip(rows["topic_id"], rows["name"], parents, strict=True)
    }


@dataclass(frozen=True)
class ActiveUsers:
    """Users of the last day with actions, spread evenly from the busiest to the quietest."""

    user_ids: Ints  # (n,)
    actions: Ints  # (n,)

    @classmethod
    def of(cls, lake: Lake, keep: int = SKETCH_USERS) -> ActiveUsers:
        """Read one day of the lake's actions, whatever the lake's size."""
        _, end = lake.interval()
        day = lake.read(ACTIONS.name, [USER_ID], start=end - timedelta(days=1))
        users, counts = np.unique(day[USER_ID].to_numpy(np.int64), return_counts=True)
        order = np.lexsort((users, -counts))
        if len(order) > keep:
            order = order[np.linspace(0, len(order) - 1, keep).astype(np.int64)]
        return cls(users[order], counts[order])

    def sketch(self, release: ServingRelease, limit: int) -> UsersAnswer:
        """`limit` of the users with a few of their topics; blocks on the feature store.

        Raises LimitOutOfRange.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise LimitOutOfRange(f"limit is {limit}; ask for 1 to {MAX_LIMIT} users")
        chosen = np.linspace(0, len(self.user_ids) - 1, min(limit, len(self.user_ids))).astype(np.int64)
        users = self.user_ids[chosen]
        outside = release.ids.outside(EntityKind.USER, users)
        return UsersAnswer(
            users=[
                UserSketch(user_id=given, actions=int(count), topics=_topics(release, int(user)))
                for given, user, count in zip(outside, users, self.actions[chosen], strict=True)
            ],
            dataset=release.contract.name,
            actions={a: p.value for a, p in release.contract.vocabulary.actions.items()},
            board_name=release.contract.board_name,
        )


def _topics(release: ServingRelease, user_id: int) -> list[Topic]:
    """A few topics the user follows or, where they follow none, acts on most."""
    user = release.features.user(user_id, None)
    ids = user.followed_topics.tolist()
    if not ids and len(user.sequence):
        topics = release.features.pins(np.unique(user.sequence.pin_ids)).topics[:, 0]
        values, counts = np.unique(topics[topics > 0], return_counts=True)
        ids = values[np.lexsort((values, -counts))].tolist()
    named = [t for t in ids if t in release.topics][:TOPICS_SHOWN]
    outside = release.ids.outside(EntityKind.TOPIC, named)
    return [Topic(topic_id=o, name=release.topics[t].name) for o, t in zip(outside, named, strict=True)]
