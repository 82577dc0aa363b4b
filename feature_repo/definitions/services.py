"""What each model version reads: its feature service, whose name is stored on the MLflow model version.

A change of a model's inputs is a new service (`_v2`), so that the old version keeps reading what it learned on.
"""

from __future__ import annotations

from feast import FeatureService

from feature_repo import schema
from feature_repo.definitions.on_demand import pin_age
from feature_repo.definitions.views import (
    board_features,
    pin_content,
    pin_embedding,
    pin_stats,
    topic_features,
    user_embedding,
    user_history,
    user_interests,
    user_profile,
    user_sequence,
)

content = FeatureService(
    name=schema.CONTENT_SERVICE,
    features=[pin_content],
    description="Content vectors: what the pin says and shows",
)
pinsage = FeatureService(
    name=schema.PINSAGE_SERVICE,
    features=[pin_embedding],
    description="PinSage: the pin's vector in a space",
)
pixie = FeatureService(
    name=schema.PIXIE_SERVICE,
    features=[user_sequence, user_profile[["language"]]],
    description="Pixie: the pins a user acted on, and the language of the walk",
)
pinnersage = FeatureService(
    name=schema.PINNERSAGE_SERVICE,
    features=[user_sequence, user_interests],
    description="PinnerSage: long-term interests, and the sequence for the short-term ones",
)
pinnerformer = FeatureService(
    name=schema.PINNERFORMER_SERVICE,
    features=[user_embedding, pin_embedding],
    description="PinnerFormer: the user's vector of last night and the pin's, in a space",
)
dcm = FeatureService(
    name=schema.DCM_SERVICE,
    features=[user_sequence, user_profile[["country", "language"]], pin_embedding],
    description="DCM: the sequence, its pins' vectors in a space, the profile interests are crossed with",
)
conditional = FeatureService(
    name=schema.CONDITIONAL_SERVICE,
    features=[user_sequence, user_profile[["country", "language", "followed_topics"]], pin_embedding],
    description="Conditional retrieval: what DCM reads, and the topics the user follows",
)
two_tower = FeatureService(
    name=schema.TWO_TOWER_SERVICE,
    features=[user_sequence, user_profile[["country", "language"]], pin_embedding],
    description="Two-tower: the sequence, its pins' content vectors, and the profile",
)
searchsage = FeatureService(
    name=schema.SEARCHSAGE_SERVICE,
    features=[pin_embedding],
    description="SearchSage: the pin's vector in the space that queries are mapped into",
)
popular = FeatureService(
    name=schema.POPULAR_SERVICE,
    features=[topic_features, user_profile[["followed_topics"]]],
    description="Popular by topic, and the topics the user follows",
)
boards = FeatureService(
    name=schema.BOARDS_SERVICE,
    features=[board_features, user_profile[["followed_boards"]]],
    description="Newest pins of the boards the user follows",
)
pinnability = FeatureService(
    name=schema.PINNABILITY_SERVICE,
    features=[user_profile, user_sequence, pin_stats, pin_embedding, pin_age],
    description="Pinnability rankers: user and pin counters, and what the interaction features are made of",
)
transact_lifelong = FeatureService(
    name=schema.TRANSACT_LIFELONG_SERVICE,
    features=[user_profile, user_sequence, user_history, pin_stats, pin_embedding, pin_age],
    description="TransAct V2: what Pinnability reads, and the history that tokens are selected from",
)
