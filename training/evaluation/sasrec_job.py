"""SASRec of RecTools, run by the Python of the environment that `make rectools` makes: Parquet in, Parquet out.

    .rectools-venv/bin/python -P training/evaluation/sasrec_job.py FOLDER

FOLDER holds `settings.json` (`SasRecConfig` and `k`), `interactions.parquet` (user_id, pin_id, oldest first)
and `users.parquet` (user_id); `recommended.parquet` (user_id, pin_id, score; best first) is written, and a line
a check is printed where training stops by itself. Nothing else of this repository is imported: the environment
has none of its packages.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import torch

USERS_AT_ONCE = 1024
LEAST_PINS = 3
"""Of a user whose newest pin is held out: two are left to learn from."""


def held_out(rows: pd.DataFrame) -> pd.Series:
    """Which rows (user_id, item_id, oldest first) training is checked by: each user's newest pin, where others
    are left of the user and where the pin is not left without a row."""
    newest = ~rows.duplicated("user_id", keep="last")
    several = rows.groupby("user_id")["item_id"].transform("size") >= LEAST_PINS
    return newest & several & rows["item_id"].isin(rows.loc[~newest, "item_id"])


def whole_checks(epochs: int, between: int) -> tuple[int, int]:
    """Epochs to train, at most `epochs`, and epochs from one check to the next: training ends with a check, so
    that no epoch is trained whose weights could not be kept."""
    between = min(between, epochs)
    return epochs // between * between, between


@dataclass
class Patience:
    """Whether a run of checks, of which more is better, is to end, and the weights of the best one."""

    checks: int
    """Checks in a row that may bring nothing."""
    best: float = float("-inf")
    nothing: int = 0
    """Checks since the best one."""
    kept: dict[str, torch.Tensor] | None = None
    """A copy of the best check's weights; None before a check that gave a number."""

    def take(self, value: float, weights: Mapping[str, torch.Tensor]) -> None:
        """The next check's value, and the weights that it is of."""
        if value > self.best:
            self.best, self.nothing = value, 0
            self.kept = {name: weight.clone() for name, weight in weights.items()}
        else:
            self.nothing += 1

    @property
    def over(self) -> bool:
        return self.nothing >= self.checks

    def weights(self) -> dict[str, torch.Tensor]:
        """The best check's. Raises ValueError where no check gave a number."""
        if self.kept is None:
            raise ValueError("no check of training gave a number; lower learning_rate")
        return self.kept


def stopping(checks: int) -> Any:
    """A callback of lightning that checks training by the whole ranking's NDCG of the pins held out, ends it
    after `checks` without a better one, and gives back the best one's weights."""
    import torch
    from pytorch_lightning import Callback

    class Stopping(Callback):
        patience = Patience(checks)

        def on_validation_epoch_start(self, trainer: Any, module: Any) -> None:
            self.gains: list[torch.Tensor] = []

        def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
            network, items = module.torch_model, module.item_embs
            users = network.encode_sessions(batch, items)[:, -1, :]  # (b, d)
            scores = network.similarity_module(users, items)  # (b, pins)
            scores = scores.scatter(1, batch["x"], float("-inf"))  # a user's own, and the padding
            ahead = (scores > scores.gather(1, batch["y"])).sum(dim=1)
            self.gains.append(1 / torch.log2(ahead + 2.0))

        def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
            found = float(torch.cat(self.gains).mean())
            self.patience.take(found, module.torch_model.state_dict())
            print(f"sasrec: epoch {trainer.current_epoch + 1}, NDCG {found:.4f}", flush=True)
            trainer.should_stop = self.patience.over

        def on_train_end(self, trainer: Any, module: Any) -> None:
            module.torch_model.load_state_dict(self.patience.weights())

    return Stopping()


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
    checked = settings["patience"] is not None and held_out(rows).any()
    epochs, between = settings["epochs"], settings["epochs"]
    if checked:
        epochs, between = whole_checks(epochs, settings["check_epochs"])

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=epochs,
            callbacks=[stopping(settings["patience"])] if checked else [],
            check_val_every_n_epoch=between,
            num_sanity_val_steps=0,
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
        get_val_mask_func=held_out if checked else None,
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
