"""MLflow loads TransAct by running this file: users with their candidates in, a probability a head out."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.models.calibration import Calibrator
from training.models.ranker import Candidates, Past, Request, load_ranker


class TransActModel(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        folder = Path(context.artifacts["model"])
        self.ranker = load_ranker(folder)
        self.calibrator = Calibrator.load(folder)

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> NDArray[np.float32]:
        """A row a user: parallel lists, newest action first, and a list a candidate. Calibrated, stacked in the
        order of the candidates."""
        width = self.ranker.network.content_dim

        def matrix(row: Any, columns: int) -> NDArray[np.float32]:
            return np.asarray([list(v) for v in row], np.float32).reshape(-1, columns)

        def past(user: Any) -> Past:
            return Past(
                history=matrix(user["past_history"], width),
                actions=np.asarray(user["past_actions"], np.int64),
                surfaces=np.asarray(user["past_surfaces"], np.int64),
                times_ms=np.asarray(user["past_timestamps_ms"], np.int64),
                shown=matrix(user["shown"], width),
                shown_ms=np.asarray(user["shown_timestamps_ms"], np.int64),
            )

        scores = []
        for user in pd.DataFrame(model_input).to_dict("records"):
            asked = Request(
                history=matrix(user["history"], width),
                actions=np.asarray(user["actions"], np.int64),
                surfaces=np.asarray(user["surfaces"], np.int64),
                times_ms=np.asarray(user["timestamps_ms"], np.int64),
                request_ms=int(user["request_ms"]),
                user=np.asarray(user["user"], np.float32),
                past=past(user) if self.ranker.reads_history else None,
            )
            features = matrix(user["features"], len(self.ranker.spec.names))
            given = Candidates(matrix(user["candidates"], width), features)
            beside = features[:, [self.ranker.spec.names.index(name) for name in self.calibrator.features]]
            scores.append(self.calibrator.calibrate(self.ranker.score_heads(asked, given), beside))
        return np.concatenate(scores) if scores else np.empty((0, len(self.ranker.heads)), np.float32)


mlflow.models.set_model(TransActModel())
