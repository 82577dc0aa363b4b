"""MLflow loads PinnerSage by running this file: one user's actions in, interests out."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from training.models.pinnersage import History, PinnerSageConfig, user_interests


class PinnerSage(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        self.config = PinnerSageConfig.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        history = History(
            model_input["pin_id"].to_numpy(np.int64),
            np.stack(model_input["vector"].to_list()).astype(np.float32),
            model_input["timestamp_ms"].to_numpy(np.int64),
        )
        interests = user_interests(history, int(history.times_ms.max()) + 1, self.config)
        return pd.DataFrame(
            {
                "medoid_pin_id": interests.medoid_pin_ids,
                "importance": interests.importances,
                "pins": interests.sizes,
            }
        )


mlflow.models.set_model(PinnerSage())
