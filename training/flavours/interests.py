"""MLflow loads DCM and conditional retrieval by running this file: one user's actions in, embeddings out."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from training.models.interests import (
    Construction,
    InterestNetwork,
    history,
    topic_embeddings,
    user_embeddings,
)


class InterestsModel(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        self.network = InterestNetwork.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Actions NEWEST FIRST with the pins' vectors in this space; `params["topics"]` asks for topics."""
        actions = pd.DataFrame(model_input)
        times = actions["timestamp_ms"].to_numpy(np.int64)
        seen = history(
            np.stack(actions["vector"].to_list()).astype(np.float32),
            actions["sign"].to_numpy(np.int64),
            times,
            int(times.max()) + 1,
            length=self.network.config.length,
        )
        if self.network.config.construction is Construction.TOPICS:
            topics = (params or {}).get("topics") or self.network.topics
            found = topic_embeddings(self.network, seen, np.asarray(topics, np.int64))
        else:
            found = user_embeddings(self.network, seen)
        columns = {
            "vector": list(found.vectors),
            "weight": found.weights.astype(float),
            "topic_id": found.topics,
        }
        return pd.DataFrame(columns)


mlflow.models.set_model(InterestsModel())
