"""MLflow loads a Pinnability ranker by running this file: feature rows in, scores out."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.models.pinnability import load_pinnability


class Pinnability(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        self.ranker = load_pinnability(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> NDArray[np.float32]:
        columns = list(self.ranker.spec.names)
        return self.ranker.score(model_input[columns].to_numpy(np.float32))


mlflow.models.set_model(Pinnability())
