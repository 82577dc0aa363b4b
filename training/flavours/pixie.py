"""MLflow loads Pixie by running this file: query pins and weights in, recommended pins out."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from training.models.pixie import Pixie, Query, ReleasedPixie

ANSWERS = 100


class PixieModel(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        released = ReleasedPixie.load(Path(context.artifacts["model"]))
        self.pixie = Pixie(released.graph, released.settings.walk)

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        weights = model_input["weight"].to_numpy(np.float64) if "weight" in model_input else None
        query = Query.of(model_input["pin_id"].to_numpy(np.int64), weights)
        found = self.pixie.recommend(query, ANSWERS)
        return pd.DataFrame({"pin_id": found.pin_ids, "score": found.scores})


mlflow.models.set_model(PixieModel())
