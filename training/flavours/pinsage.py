"""MLflow loads PinSage by running this file: a table of pins with their neighbours in, vectors out."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.models.pinsage import Neighbourhoods, PinSage, embed_catalogue, pin_inputs


class PinSageModel(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        self.network = PinSage.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> NDArray[np.float32]:
        """Neighbours are pins of the same table; one that is not in it is left out."""
        pins = pd.DataFrame(model_input)
        ids = pd.Index(pins["pin_id"])
        width = max(1, max((len(n) for n in pins["neighbour_ids"]), default=1))
        rows = np.full((len(pins), width), -1, np.int32)
        weights = np.zeros((len(pins), width), np.float32)
        for row, (near, heavy) in enumerate(zip(pins["neighbour_ids"], pins["neighbour_weights"], strict=True)):
            rows[row, : len(near)] = ids.get_indexer(near)
            weights[row, : len(near)] = heavy
        content = np.stack(pins["content"].to_list()).astype(np.float32)
        inputs = pin_inputs(content, pins["degree"].to_numpy(np.int64), self.network.config)
        return embed_catalogue(self.network, inputs, Neighbourhoods.from_padded(rows, weights))


mlflow.models.set_model(PinSageModel())
