"""MLflow loads the two-tower by running this file: a table of pins in, vectors out."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.models.interests import PinFeatures, topic_places
from training.models.two_tower import TwoTower, pin_vectors


class TwoTowerModel(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        self.network = TwoTower.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> NDArray[np.float32]:
        """`performance` is what `models.two_tower.performance` gives of a pin."""
        pins = pd.DataFrame(model_input)
        topics = np.zeros((len(pins), max(1, max((len(t) for t in pins["topics"]), default=1))), np.int64)
        for row, listed in enumerate(pins["topics"]):
            topics[row, : len(listed)] = listed
        content = np.stack(pins["content"].to_list()).astype(np.float32)
        performance = np.stack(pins["performance"].to_list()).astype(np.float32)
        features = PinFeatures(content, topic_places(topics, self.network.topics))
        return pin_vectors(self.network, features, performance)


mlflow.models.set_model(TwoTowerModel())
