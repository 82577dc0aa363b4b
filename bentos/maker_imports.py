# ruff: noqa: F401
"""What the process that makers are forked from imports, once for all of them. It opens nothing and starts no
thread."""

import contextlib
import gc

import bentoml
import faiss
import mlflow
import pymilvus
import torch
import xgboost

import bentos.maker
import feature_repo.online.sqlite
import feature_repo.repository
import feature_repo.vectors.milvus
import training.models.ads.model
import training.models.interests.inference
import training.models.pinnerformer.inference
import training.models.searchsage.encoder
import training.models.transact.ranker

with contextlib.suppress(ImportError):  # of the extras that read and encode text
    import onnxruntime
    import transformers.models.auto.modeling_auto
    import transformers.models.bert.modeling_bert

gc.collect()
gc.freeze()  # what all makers share stays shared: the collector would write to every page of it
