"""Leave-one-out models that read order: what they see, and that they learn it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from training.evaluation import leave_one_out_sequences, sasrec
from training.evaluation.leave_one_out import TrainSet, evaluate, split
from training.evaluation.leave_one_out_models import default_models, left_out
from training.evaluation.leave_one_out_sequences import TRAINING, pinnerformer, timelines
from training.evaluation.leave_one_out_sequences import sasrec as sasrec_scorer
from training.evaluation.seeded import Seeded
from training.models.pinnerformer.tokens import MS_PER_DAY
from training.pinnerformer.trainer import PinnerFormerTraining

RING, USERS, TAKEN = 30, 120, 12


def walks() -> pd.DataFrame:
    """Each user walks a ring of pins from a pin of her own, one step a time: order alone says what is next."""
    rng = np.random.default_rng(0)
    start = rng.integers(0, RING, USERS)
    rows = [(u, (start[u] + step) % RING, step) for u in range(USERS) for step in range(TAKEN)]
    frame = pd.DataFrame(rows, columns=["user_id", "pin_id", "timestamp"])
    return frame.sample(frac=1.0, random_state=1)


def test_pairs_are_oldest_first_and_lose_what_tuning_holds_out() -> None:
    train = split(walks()).train
    assert len(train.users) == train.matrix.nnz == USERS * (TAKEN - 1)
    for user in (0, 7):
        own = train.pins[train.users == user]
        assert (np.diff(own) % RING == 1).all()
        assert sorted(own.tolist()) == train.matrix[user].indices.tolist()


def test_every_pair_counts_as_a_day() -> None:
    users, pins = np.array([1, 0, 1, 2]), np.array([3, 4, 0, 1])
    lines = timelines(TrainSet.of(users, pins, users, (4, 5)))
    assert lines.offsets.tolist() == [0, 1, 3, 4, 4]
    assert lines.arrays.pin_rows.tolist() == [4, 3, 0, 1]
    assert (lines.arrays.times_ms // MS_PER_DAY).tolist() == [1, 1, 2, 1]
    assert lines.label.all()


def test_pinnerformer_without_content_knows_what_comes_next() -> None:
    def model(seed: int):
        training = TRAINING.model_copy(update={"seed": seed, "learning_rate": 1e-2})
        sampling = training.sampling.model_copy(update={"users": 16, "window_days": 1.0})
        return [lambda train: pinnerformer(train, training=training.model_copy(update={"sampling": sampling}))]

    report = evaluate(walks(), {"pinnerformer": Seeded(model), **_popular()}, k=2, seeds=(0,))
    assert report.row("pinnerformer").mean("HR@2") > 0.8
    assert report.row("popularity").mean("HR@2") < 0.4


def _popular() -> dict:
    return {"popularity": default_models(RING)["popularity"]}


@pytest.mark.slow
@pytest.mark.skipif(not sasrec.installed(), reason="RecTools is not installed: `make rectools`")
def test_sasrec_of_rectools_knows_what_comes_next() -> None:
    config = sasrec.SasRecConfig(epochs=40, batch=16, learning_rate=5e-3, factors=32, dropout=0.0)
    models = {"sasrec": Seeded(lambda seed: [lambda train: sasrec_scorer(train, config=config)])}
    report = evaluate(walks(), models, k=2, seeds=(0,))
    assert report.row("sasrec").mean("HR@2") > 0.8


def test_few_users_make_small_batches_and_few_pins_are_all_negatives() -> None:
    few = sasrec.SasRecConfig().fitted_to(users=600, pins=sasrec.EVERY_PIN)
    assert (few.batch, few.loss) == (30, "softmax")
    many = sasrec.SasRecConfig().fitted_to(users=100_000, pins=sasrec.EVERY_PIN + 1)
    assert (many.batch, many.loss) == (128, "sampled_softmax")
    assert sasrec.SasRecConfig(batch=8, loss="BCE").fitted_to(users=10, pins=10).batch == 8


def test_few_users_make_small_batches_of_pinnerformer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):
        """Carries the users a step."""

    def asked(config: object, lines: object, content: object, training: PinnerFormerTraining) -> None:
        raise Asked(training.sampling.users)

    monkeypatch.setattr(leave_one_out_sequences, "train_network", asked)
    train = split(walks()).train
    with pytest.raises(Asked, match=r"^16$"):
        pinnerformer(train)


def test_without_rectools_sasrec_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sasrec, "VENV", tmp_path)
    assert "make rectools" in left_out(100)["sasrec"]
    assert "sasrec" not in default_models(100)
    nothing = np.empty(0, np.int64)
    with pytest.raises(sasrec.SasRecError, match="make rectools"):
        sasrec.recommend(nothing, nothing, nothing, 10, sasrec.SasRecConfig())


def test_what_rectools_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "bin" / "python"
    broken.parent.mkdir()
    (tmp_path / ".installed").touch()
    broken.write_text("#!/bin/sh\necho 'no room for the model' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sasrec, "VENV", tmp_path)
    one = np.ones(1, np.int64)
    with pytest.raises(sasrec.SasRecError, match="no room for the model"):
        sasrec.recommend(one, one, one, 10, sasrec.SasRecConfig())
