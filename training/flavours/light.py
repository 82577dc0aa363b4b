"""MLflow loads the light ranker by running this file: rows of `LightSpec.names` in, scores out."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.models.light_ranking import LightRanker


class Light(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        self.ranker = LightRanker.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> NDArray[np.float32]:
        return self.ranker.score(model_input[list(self.ranker.spec.names)].to_numpy(np.float32))


mlflow.models.set_model(Light())
