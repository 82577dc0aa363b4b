"""MLflow loads the ads model by running this file: features of ads in, calibrated probabilities out."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.models.ads.config import DENSE, IDS, VECTORS
from training.models.ads.model import AdsModel
from training.models.ads.rows import AdRows


class Ads(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        self.model = AdsModel.load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> NDArray[np.float32]:
        """Ids and vectors are read where the table has them; a column `ad_source` names each row's source."""
        rows, n = pd.DataFrame(model_input), len(model_input)
        ids = [rows[name].to_numpy(np.int64) if name in rows else np.zeros(n, np.int64) for name in IDS]
        dim = self.model.network.seen.vector_dim
        vectors = np.zeros((n, len(VECTORS), dim), np.float32)
        for place, name in enumerate(VECTORS):
            if name in rows:
                vectors[:, place] = np.stack(rows[name].to_list())
        dense = rows[[f.name for f in DENSE]].to_numpy(np.float32)
        sources = rows["ad_source"].to_numpy(np.str_) if "ad_source" in rows else np.full(n, "unknown")
        return self.model.score(AdRows(dense, np.stack(ids, axis=1), vectors), sources)


mlflow.models.set_model(Ads())
