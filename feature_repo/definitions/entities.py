"""The things that features are about. A space is one trained embedding model version, `content@7`."""

from __future__ import annotations

from feast import Entity
from feast.value_type import ValueType

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64, description="A person")
pin = Entity(name="pin", join_keys=["pin_id"], value_type=ValueType.INT64, description="A pinned idea")
topic = Entity(
    name="topic",
    join_keys=["topic_id"],
    value_type=ValueType.INT64,
    description="A topic; 0 is the whole catalogue",
)
board = Entity(
    name="board", join_keys=["board_id"], value_type=ValueType.INT64, description="A user's collection of pins"
)
space = Entity(
    name="space",
    join_keys=["space"],
    value_type=ValueType.STRING,
    description="One embedding model version, model@version; vectors of two spaces never meet",
)

BY_KEY: dict[str, Entity] = {entity.join_key: entity for entity in (user, pin, topic, board, space)}
"""Entities by their join key."""
