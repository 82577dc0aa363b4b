"""How it is learned, part one: networks and algorithms, free of any trainer, store or registry import."""

MODEL_FILES = "artifacts/model"
"""Where a registered model version keeps the files that a model's `load` reads, inside the version's folder."""
