"""The funnel's features, read from Feast's online store by its bulk reader."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bentos.features import Card, Flags, Floats, Ints, PinStats, User, UserVector
from bentos.settings import Settings
from feature_repo.schema import USER_EMBEDDING, USER_INTERESTS
from feature_repo.sequence import Sequence
from training.models.pinnersage import Interests

if TYPE_CHECKING:
    from feature_repo.online.reader import OnlineFeatures


@dataclass(frozen=True)
class FeastFeatures:
    """`Features` over one home's online store."""

    reader: OnlineFeatures

    @classmethod
    def open(cls, settings: Settings) -> FeastFeatures:
        """The store of the settings' home. Costs the ten seconds that importing Feast takes."""
        from feature_repo.online.reader import OnlineFeatures

        return cls(OnlineFeatures.open(settings.home, redis=settings.redis))

    def user(
        self, user_id: int, space: str | None, embedded: Items[str] = (), *, history: bool = False
    ) -> User:
        row = self.reader.user(user_id, (space,) if space else (), embedded, history=history)
        found = row.interests.get(space) if space else None
        return User(
            user_id=user_id,
            known=row.known,
            sequence=row.sequence,
            scalars=row.scalars,
            followed_topics=row.followed_topics,
            followed_boards=row.followed_boards,
            interests=Interests.none(0)
            if found is None
            else Interests(found.medoid_pin_ids, found.importances, found.cluster_sizes, found.vectors),
            interests_ms=row.event_times_ms.get(f"{USER_INTERESTS}/{space}", 0),
            stale=row.stale,
            country=row.country,
            language=row.language,
            history=row.history,
            vectors={
                name: UserVector(vector, row.event_times_ms[f"{USER_EMBEDDING}/{name}"])
                for name, vector in row.embeddings.items()
            },
        )

    def pins(self, ids: Ints) -> PinStats:
        row = self.reader.pins(ids)
        return PinStats(row.scalars, row.created_at_ms, row.topics, row.present)

    def vectors(self, ids: Ints, space: str) -> tuple[Floats, Flags]:
        return self.reader.embeddings(ids, space)

    def cards(self, ids: Ints) -> dict[int, Card]:
        return {
            card.pin_id: Card(
                card.pin_id, card.title, card.description, card.link_domain, card.image, card.topics
            )
            for card in self.reader.cards(ids)
            if card.present
        }

    def popular(self, topic_ids: Items[int]) -> dict[int, tuple[Ints, Floats]]:
        return self.reader.popular(topic_ids)

    def boards(self, board_ids: Items[int]) -> dict[int, Ints]:
        return self.reader.boards(board_ids)

    def sequences(self, user_ids: Items[int]) -> dict[int, Sequence]:
        return self.reader.sequences(np.asarray(user_ids, np.int64))

    def push_sequences(self, sequences: Mapping[int, Sequence]) -> None:
        self.reader.push_sequences(sequences)
