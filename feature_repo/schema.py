"""Names, widths and order of every feature: the one place that training and serving both read.

Free of any feast import (ten CPU-seconds), so that pure code may use it.
"""

from __future__ import annotations

USER_SEQUENCE = "user_sequence"
USER_HISTORY = "user_history"
USER_PROFILE = "user_profile"
PIN_CONTENT = "pin_content"
PIN_STATS = "pin_stats"
PIN_EMBEDDING = "pin_embedding"
TOPIC_FEATURES = "topic_features"
BOARD_FEATURES = "board_features"
USER_EMBEDDING = "user_embedding"
USER_INTERESTS = "user_interests"

SEQUENCE_LENGTH = 100
"""Actions kept per user, newest first."""

SEQUENCE_ARRAYS = ("event_ids", "pin_ids", "actions", "surfaces", "timestamps_ms", "durations_s")
"""Parallel arrays of the user's sequence: int64, int64, int32, int32, int64 (Unix ms), float32."""

HISTORY_LENGTH = 2_000
"""Actions kept per user as of the last midnight, newest first: 16 bytes each online."""

SHOWN_LENGTH = 100
"""Impressions without an action kept per user as of the last midnight, newest first: 12 bytes each online."""

SHOWN_DAYS = 30
"""How long an impression may lie back to be kept."""

PIN_TOPICS = 4
"""Topics kept per pin in fixed-width rows, zero-padded."""

WINDOWS = (1, 7, 30)
"""Trailing whole UTC days over which engagement is counted."""

_COUNTED = ("impressions", "actions", "positives", "negatives")

USER_SCALARS: tuple[str, ...] = (
    *(f"{what}_{days}d" for what in _COUNTED for days in WINDOWS),
    "active_days_30d",
    "distinct_topics_30d",
    "followed_topics_count",
    "followed_boards_count",
)
"""Float32 columns of `user_profile`, in order."""

PIN_SCALARS: tuple[str, ...] = (
    *(f"{what}_{days}d" for what in _COUNTED for days in WINDOWS),
    "positive_users_30d",
    "boards_30d",
    "topic_count",
    "title_words",
    "description_words",
    "has_image",
)
"""Float32 columns of `pin_stats`, in order."""

TOPIC_POPULAR = 200
"""Popular pins kept per topic (topic 0 is the whole catalogue)."""

BOARD_RECENT = 50
"""Newest pins kept per board."""

CONTENT_SERVICE = "content_v1"
PINSAGE_SERVICE = "pinsage_v1"
PINNERSAGE_SERVICE = "pinnersage_v1"
PINNERFORMER_SERVICE = "pinnerformer_v1"
DCM_SERVICE = "dcm_v1"
CONDITIONAL_SERVICE = "conditional_v1"
TWO_TOWER_SERVICE = "two_tower_v1"
SEARCHSAGE_SERVICE = "searchsage_v1"
PIXIE_SERVICE = "pixie_v1"
POPULAR_SERVICE = "popular_v1"
BOARDS_SERVICE = "boards_v1"
PINNABILITY_SERVICE = "pinnability_v1"
TRANSACT_LIFELONG_SERVICE = "transact_lifelong_v1"
"""Feature services by model; each name is stored on the model versions that read it."""
