"""MLflow loads search by words by running this file: queries in, the best pins of each out."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from training.models.lexical import LexicalIndex

ANSWERS = 100


class Lexical(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        self.index = LexicalIndex.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        found = {query: self.index.search(query, ANSWERS) for query in model_input["query"]}
        rows = [
            (query, pin_id, score)
            for query, (pin_ids, scores) in found.items()
            for pin_id, score in zip(pin_ids.tolist(), scores.tolist(), strict=True)
        ]
        return pd.DataFrame(rows, columns=["query", "pin_id", "score"])


mlflow.models.set_model(Lexical())
