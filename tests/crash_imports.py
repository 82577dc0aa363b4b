"""What the process that crashing children are forked from imports. It starts no thread and opens nothing."""

import feast  # noqa: F401
import mlflow  # noqa: F401
import pymilvus  # noqa: F401

import feature_repo.jobs
import feature_repo.online.engine
import feature_repo.online.sqlite
import feature_repo.repository  # noqa: F401
import training.index
import training.promotion
import training.retention  # noqa: F401
import validation.ingest  # noqa: F401
