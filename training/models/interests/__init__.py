"""Multi-interest retrieval (arXiv 2506.23060): one user, several embeddings in the space of the pins.

config.py      shape of a model; the compared methods
features.py    pins by themselves; users as histories as of a time
towers.py      the item tower, and the user tower that crosses a condition with a user
routing.py     farthest points and single-assignment routing, compiled
conditions.py  histories to conditions: capsules, attention, tokens, sub-sequences
network.py     the model; save and load
loss.py        association, sampled softmax
frequency.py   streaming logQ
serving.py     the user tower on NumPy arrays, for one request
one_user.py    what the tower crosses, likewise
inference.py   vectors of all pins, one user's embeddings
budgets.py     one search an embedding at the price of a single one
"""

from training.models.interests.budgets import (
    equal_budgets,
    retrieve,
    round_robin,
    sample_followed,
    weighted_budgets,
)
from training.models.interests.config import (
    Association,
    Construction,
    InterestsConfig,
    ItemTowerConfig,
    Method,
    RoutingConfig,
    UserTowerConfig,
)
from training.models.interests.features import (
    Acts,
    Histories,
    PinFeatures,
    history,
    profile_codes,
    topic_places,
)
from training.models.interests.inference import (
    UserEmbeddings,
    embed_users,
    pin_vectors,
    topic_embeddings,
    user_embeddings,
)
from training.models.interests.network import InterestNetwork, Interests

__all__ = [
    "Acts",
    "Association",
    "Construction",
    "Histories",
    "InterestNetwork",
    "Interests",
    "InterestsConfig",
    "ItemTowerConfig",
    "Method",
    "PinFeatures",
    "RoutingConfig",
    "UserEmbeddings",
    "UserTowerConfig",
    "embed_users",
    "equal_budgets",
    "history",
    "pin_vectors",
    "profile_codes",
    "retrieve",
    "round_robin",
    "sample_followed",
    "topic_embeddings",
    "topic_places",
    "user_embeddings",
    "weighted_budgets",
]
