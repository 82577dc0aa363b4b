"""Batches: the same again from (seed, epoch, step), labels never negatives, pools as asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.pinnerformer.planted import HIDE, PINS, planted_content, timelines
from training.models.pinnerformer import Negatives, Objective
from training.pinnerformer.batches import Batch, BatchPlan, Sampling, allowed_pins
from training.pinnerformer.timelines import Timelines

LENGTHS = [0, 1, 2, 300, 12, 60, 40, 5, 33]


def plan(lines: Timelines | None = None, **sampling: object) -> BatchPlan:
    settings = Sampling(users=4, positions=6, in_batch=10, random=20).model_copy(update=sampling)
    lines = timelines(LENGTHS) if lines is None else lines
    return BatchPlan(lines, planted_content(), np.arange(200, dtype=np.int32), settings, 32, 365, 7)


def batches(made: BatchPlan, epoch: int = 0) -> list[Batch]:
    return [made.batch(epoch, step, chosen) for step, chosen in enumerate(made.order(epoch))]


def test_batches_come_again_and_epochs_differ() -> None:
    first, again, later = batches(plan()), batches(plan()), batches(plan(), epoch=1)
    assert len(first) == plan().steps == 3
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.positives, b.positives) and torch.equal(a.pool, b.pool)
        assert torch.equal(a.tokens.times_ms, b.tokens.times_ms)
    assert any(
        len(a.positives) != len(b.positives) or not torch.equal(a.positives, b.positives)
        for a, b in zip(first, later, strict=True)
    )


@pytest.mark.parametrize("objective", list(Objective))
def test_labels_are_positive_later_and_new(objective: Objective) -> None:
    made = plan(objective=objective)
    lines = made.timelines
    seen = 0
    for step, (users, starts, ends) in enumerate(made.order(0)):
        batch = made.batch(0, step, (users, starts, ends))
        assert (ends - starts <= 32).all() and (ends > starts).all()
        for owner, position, pin in zip(batch.owners, batch.positions, batch.positives, strict=True):
            row = int(starts[owner] + position)
            mine = slice(lines.offsets[users[owner]], lines.offsets[users[owner] + 1])
            same = np.flatnonzero(lines.arrays.pin_rows[mine] == int(pin)) + mine.start
            assert lines.arrays.times_ms[same].min() > lines.arrays.times_ms[row]
            assert (lines.arrays.actions[same] != HIDE).any()
            seen += 1
    assert seen > 3


def test_negative_actions_are_tokens_and_nothing_else() -> None:
    lines = timelines([80] * 6, hides=0.5)
    made = plan(lines, negatives=Negatives.IN_BATCH)
    hidden = {int(p) for p in lines.arrays.pin_rows[lines.arrays.actions == HIDE]}
    liked = {int(p) for p in lines.arrays.pin_rows[lines.arrays.actions != HIDE]}
    for batch in batches(made):
        assert (batch.tokens.actions == HIDE).any()
        asked = set(batch.positives.tolist()) | set(batch.pool.tolist())
        assert not asked & (hidden - liked)


@pytest.mark.parametrize(
    ("negatives", "in_batch", "size"),
    [(Negatives.RANDOM, 0, 20), (Negatives.IN_BATCH, 10, 10), (Negatives.MIXED, 10, 30)],
)
def test_pools_hold_what_was_asked(negatives: Negatives, in_batch: int, size: int) -> None:
    batch = batches(plan(negatives=negatives))[0]
    assert batch.in_batch == in_batch and len(batch.pool) == size
    assert set(batch.pool[:in_batch].tolist()) <= set(batch.positives.tolist())
    assert (batch.pool[in_batch:] < 200).all()


def test_own_positives_are_masked_everywhere() -> None:
    users, owners = np.array([3, 5]), np.array([3, 3, 5])
    positives, pool = np.array([7, 8, 9]), np.array([9, 8, 7, 1, 9])
    expected = [[True, False, False, True, True], [False, True, True, True, False]]
    np.testing.assert_array_equal(allowed_pins(users, owners, positives, pool), expected)
    assert allowed_pins(users, owners[:0], positives[:0], pool).all()


def test_users_without_anything_to_predict_are_never_drawn() -> None:
    assert plan(timelines([0, 1, 1])).steps == 0
    only_hides = timelines([20, 20], hides=1.0)
    assert not only_hides.label.any() and plan(only_hides).steps == 0
    at_once = timelines([20], step=0)
    assert plan(at_once).steps == 0


def test_content_of_the_tokens_is_the_catalogues() -> None:
    batch = batches(plan())[0]
    rows = batch.tokens.pins - 1
    assert int(rows.max()) < PINS
    torch.testing.assert_close(batch.tokens.content, torch.from_numpy(planted_content())[rows])
