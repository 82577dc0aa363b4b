"""MLflow loads SearchSage by running this file: a table of queries in, vectors of the pin space out."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.models.searchsage import QueryEncoder


class SearchSageModel(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        self.encoder = QueryEncoder.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> NDArray[np.float32]:
        return self.encoder.encode(pd.DataFrame(model_input)["query"].tolist())


mlflow.models.set_model(SearchSageModel())
