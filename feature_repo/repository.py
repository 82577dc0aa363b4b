"""The one file that the `feast` command imports (see .feastignore): every object once, by name."""

from feature_repo.definitions.entities import board, pin, space, topic, user
from feature_repo.definitions.on_demand import pin_age, request
from feature_repo.definitions.services import boards, content, pinnability, pinnersage, popular
from feature_repo.definitions.views import (
    board_features,
    pin_content,
    pin_embedding,
    pin_stats,
    topic_features,
    user_embedding,
    user_interests,
    user_profile,
    user_sequence,
    user_sequence_push,
)

__all__ = [
    "board",
    "board_features",
    "boards",
    "content",
    "pin",
    "pin_age",
    "pin_content",
    "pin_embedding",
    "pin_stats",
    "pinnability",
    "pinnersage",
    "popular",
    "request",
    "space",
    "topic",
    "topic_features",
    "user",
    "user_embedding",
    "user_interests",
    "user_profile",
    "user_sequence",
    "user_sequence_push",
]
