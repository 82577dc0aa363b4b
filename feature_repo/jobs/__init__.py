"""Feature jobs: pure functions from the lake to the Parquet files that Feast reads."""

from feature_repo.jobs.build import build_features
from feature_repo.jobs.embeddings import (
    UserInterests,
    write_pin_embeddings,
    write_user_embeddings,
    write_user_interests,
)

__all__ = [
    "UserInterests",
    "build_features",
    "write_pin_embeddings",
    "write_user_embeddings",
    "write_user_interests",
]
