"""MLflow loads the content encoder by running this file: pins in, unit vectors out."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.models.content import ContentEncoder


class Content(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        self.encoder = ContentEncoder.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> NDArray[np.float32]:
        return self.encoder.encode(model_input)


mlflow.models.set_model(Content())
