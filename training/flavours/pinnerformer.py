"""MLflow loads PinnerFormer by running this file: users' sequences with content in, user vectors out."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.models.pinnerformer import ActionArrays, PinnerFormer, Precision, embed_users


class PinnerFormerModel(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        self.network = PinnerFormer.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> NDArray[np.float32]:
        """A row a user: parallel lists, newest action first as the store keeps them; a pin without content is
        a vector of zeros. A user without actions has the zero vector. In float32: calls are of a few users."""
        users = pd.DataFrame(model_input)
        lengths = np.array([len(row) for row in users["actions"]], np.int64)
        ends = np.cumsum(lengths)

        def flat(name: str, dtype: type) -> NDArray[Any]:
            return np.concatenate([np.asarray(row, dtype)[::-1] for row in users[name]] or [np.empty(0, dtype)])

        width = self.network.content_dim
        content = [np.asarray(row, np.float32).reshape(-1, width)[::-1] for row in users["content"]]
        arrays = ActionArrays(
            np.arange(ends[-1] if len(ends) else 0, dtype=np.int32),
            flat("actions", np.int8),
            flat("surfaces", np.int8),
            flat("durations_s", np.float32),
            flat("timestamps_ms", np.int64),
        )
        stacked = np.concatenate(content) if content else np.empty((0, width), np.float32)
        return embed_users(self.network, arrays, ends - lengths, ends, stacked, precision=Precision.FLOAT32)


mlflow.models.set_model(PinnerFormerModel())
