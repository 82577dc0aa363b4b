"""SASRec of RecTools, run by the Python of the environment that `make rectools` makes: Parquet in, Parquet out.

    .rectools-venv/bin/python -P training/evaluation/sasrec_job.py FOLDER

FOLDER holds `settings.json` (`SasRecConfig` and `k`), `interactions.parquet` (user_id, pin_id, oldest first)
and `users.parquet` (user_id); `recommended.parquet` (user_id, pin_id, score; best first) is written. Nothing
else of this repository is imported: the environment has none of its packages.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path

USERS_AT_ONCE = 1024


def main(folder: Path) -> None:
    """Train on the interactions, name `k` pins for every user that has some, none of them the user's own."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pytorch_lightning import Trainer, seed_everything
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    settings = json.loads((folder / "settings.json").read_text())
    seed_everything(settings["seed"], workers=True)
    rows = pd.read_parquet(folder / "interactions.parquet")
    # their order is all that SASRec reads of time
    when = pd.Timestamp("2000-01-01") + pd.to_timedelta(range(len(rows)), unit="s")
    rows = rows.rename(columns={"pin_id": "item_id"}).assign(weight=1.0, datetime=when)
    dataset = Dataset.construct(rows)

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=settings["epochs"],
            deterministic=True,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    model = SASRecModel(
        n_factors=settings["factors"],
        n_blocks=settings["blocks"],
        n_heads=settings["heads"],
        session_max_len=settings["length"],
        dropout_rate=settings["dropout"],
        lr=settings["learning_rate"],
        batch_size=settings["batch"],
        loss=settings["loss"],
        n_negatives=settings["negatives"],
        get_trainer_func=trainer,
        recommend_torch_device="cpu",
        deterministic=True,
    )
    model.fit(dataset)
    users = pd.read_parquet(folder / "users.parquet")["user_id"]
    users = users[users.isin(rows["user_id"])]
    schema = pa.schema([("user_id", pa.int64()), ("pin_id", pa.int64()), ("score", pa.float32())])
    with pq.ParquetWriter(folder / "recommended.parquet", schema) as out:
        for start in range(0, len(users), USERS_AT_ONCE):
            some = users.iloc[start : start + USERS_AT_ONCE]
            found = model.recommend(
                some, dataset, settings["k"], filter_viewed=True, on_unsupported_targets="ignore"
            )
            found = found.rename(columns={"item_id": "pin_id"})[["user_id", "pin_id", "score"]]
            out.write_table(pa.Table.from_pandas(found, schema=schema, preserve_index=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
