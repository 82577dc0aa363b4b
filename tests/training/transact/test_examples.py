"""Batches hold what was known strictly before each row, and nothing of any later time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feature_repo.history import ShownLog
from tests.training.transact.planted import ACTIONS, GROUPS, HOUR, START, pin_table, world
from training.models.pinnability import FeatureSpec
from training.models.transact import Head, Lifelong, NextAction, SequenceConfig, TransActConfig
from training.transact.examples import Examples, PinTable, UserVectors

SPEC = FeatureSpec()
HEADS = (Head(action="save"), Head(action="hide"))
CONFIG = TransActConfig(heads=HEADS, spec=SPEC, sequence=SequenceConfig(length=5, k=2, actions=3))


def examples(rows: int = 40, **more: object) -> Examples:
    block, log = world(rows)
    return Examples.of(block, log, pin_table(), SPEC, **more)


def test_a_batch_is_what_a_loop_reads_from_the_log() -> None:
    made, (block, log), pins = examples(), world(40), pin_table()
    rows = np.array([7, 0, 39, 7])
    batch = made.batch(rows, CONFIG)
    for b, row in enumerate(rows):
        user, at = int(block.keys["user_id"][row]), START + int(row) * 1000
        sequence = log.sequence(user, at)
        assert (sequence.timestamps_ms < at).all() and len(sequence) == 2
        assert batch.actions[b].tolist() == sequence.actions.tolist()
        assert batch.times_ms[b].tolist() == sequence.timestamps_ms.tolist()
        assert int(batch.request_ms[b]) == at
        vectors = batch.content[batch.pins[b]].numpy()
        np.testing.assert_array_equal(vectors, pins.content[sequence.pin_ids - 1])
        own = batch.content[batch.candidates[b]].numpy()
        np.testing.assert_array_equal(own, pins.content[int(block.keys["pin_id"][row]) - 1])
    assert not batch.content[0].any()
    wanted = SPEC.assemble(block.user_scalars, block.pin_scalars, block.interactions, block.position)
    np.testing.assert_array_equal(batch.features.numpy(), wanted[rows])


def test_the_answer_itself_is_never_seen() -> None:
    """Neither at the impression's own time nor where a client's clock dates it a little before."""
    assert examples().batch(np.arange(40), CONFIG).actions.shape == (40, 2)
    block, log = world(40)
    answers = log.timestamps_ms == START + (np.repeat(log.users, np.diff(log.offsets)) - 1) * 1000
    assert answers.sum() == 40
    early = replace(log, timestamps_ms=log.timestamps_ms - np.where(answers, 2000, 0))
    made = Examples.of(block, early, pin_table(), SPEC)
    answered = block.labels.any(axis=1)
    assert 0 < answered.sum() < 40
    lengths = (made.batch(np.arange(40), CONFIG).actions > 0).sum(dim=1).numpy()
    np.testing.assert_array_equal(lengths, np.where(answered, 2, 3))
    np.testing.assert_array_equal(START + np.arange(40) * 1000 - made.request_ms, np.where(answered, 2000, 0))
    # beyond the skew that clocks are allowed, an action is the past
    past = replace(log, timestamps_ms=log.timestamps_ms - np.where(answers, 20 * HOUR, 0))
    assert (Examples.of(block, past, pin_table(), SPEC).batch(np.arange(40), CONFIG).actions > 0).all()


def test_unknown_pins_users_and_an_empty_log() -> None:
    block, log = world(40)
    half = PinTable(pin_table().ids[::2], pin_table().content[::2])
    batch = Examples.of(block, log, half, SPEC).batch(np.arange(40), CONFIG)
    assert (batch.pins == 0).any() and (batch.actions > 0).all()
    strangers = replace(block, keys=block.keys.assign(user_id=10**9))
    assert Examples.of(strangers, log, half, SPEC).batch(np.arange(40), CONFIG).actions.shape == (40, 0)
    nothing = type(log).from_columns([])
    assert Examples.of(block, nothing, half, SPEC).batch(np.arange(3), CONFIG).pins.shape == (3, 0)
    empty = PinTable(np.zeros(0, np.int64), np.zeros((0, 8), np.float32))
    assert not Examples.of(block, log, empty, SPEC).batch(np.arange(40), CONFIG).pins.any()


def test_long_term_vectors_are_joined_by_user() -> None:
    config = CONFIG.model_copy(update={"user_dim": 2})
    vectors = UserVectors(np.array([2, 5]), np.zeros(2, np.int64), np.array([[1, 0], [0, 1]], np.float32))
    batch = examples(users=vectors).batch(np.arange(6), config)
    assert batch.users.tolist() == [[0, 0], [1, 0], [0, 0], [0, 0], [0, 1], [0, 0]]
    with pytest.raises(ValueError, match="width 2"):
        examples().batch(np.arange(2), config)


def test_tables_that_cannot_be_right_are_refused() -> None:
    block, log = world(40)
    pins = pin_table()
    with pytest.raises(ValueError, match="not finite"):
        Examples.of(block, log, PinTable(pins.ids, pins.content * np.nan), SPEC)
    with pytest.raises(ValueError, match="ascend"):
        Examples.of(block, log, PinTable(pins.ids[::-1], pins.content), SPEC)


def test_negatives_are_earlier_unanswered_impressions_of_the_same_user() -> None:
    block, log = world(60)
    shared = replace(block, keys=block.keys.assign(user_id=1 + np.arange(60) % 3))
    made = Examples.of(shared, log, pin_table(), SPEC)
    sequence = CONFIG.sequence.model_copy(update={"causal": True})
    config = CONFIG.model_copy(
        update={"sequence": sequence, "next_action": NextAction(positives=(2,), negatives=4)}
    )
    rows = np.arange(60)
    batch = made.batch(rows, config, np.random.default_rng(0))
    for row in rows:
        allowed = [r for r in range(row) if r % 3 == row % 3 and not block.labels[r].any()]
        vectors = batch.content[batch.negatives[row]].numpy()
        known = {pin_table().content[int(block.keys["pin_id"][r]) - 1].tobytes() for r in allowed}
        assert {v.tobytes() for v in vectors} <= known if allowed else not vectors.any()
    assert made.batch(rows, config).negatives is None


def test_lifelong_rows_hold_the_selection_newest_first() -> None:
    block, log = world(60)
    shared = replace(block, keys=block.keys.assign(user_id=1 + np.arange(60) % 3))
    user_ids, pin_ids = (shared.keys[name].to_numpy(np.int64) for name in ("user_id", "pin_id"))
    shown = ShownLog.of(user_ids, pin_ids, START + np.arange(60) * 1000, log)
    made = Examples.of(shared, log, pin_table(), SPEC, shown=shown, as_of_ms=START + np.arange(60) * 1000)
    lifelong = Lifelong(
        realtime=2, recent=1, nearest_realtime=1, nearest_lifelong=1, nearest_impressions=2, length=50
    )
    config = TransActConfig.v2(HEADS, (2,), lifelong=lifelong, spec=SPEC)
    config = config.model_copy(update={"sequence": config.sequence.model_copy(update={"actions": 3})})
    batch = made.batch(np.arange(60), config, np.random.default_rng(0))
    assert batch.actions.shape == (60, 5)
    times = batch.times_ms.numpy()
    there = batch.actions.numpy() > 0
    assert (np.where(there, times, 0) < made.request_ms[:, None]).all()
    assert (np.diff(np.where(there, times, 0), axis=1) <= 0).all()
    seen = (batch.actions == 4).sum(dim=1).numpy()  # impressions: the code of unknown kinds
    owners = np.repeat(log.users, np.diff(log.offsets))
    for row in range(60):
        at = START + row * 1000
        acted = set(log.pin_ids[(owners == user_ids[row]) & (log.timestamps_ms < at)])
        earlier = [r for r in range(row % 3, row, 3) if pin_ids[r] not in acted]
        assert seen[row] == min(len(earlier), 2)
    assert seen.max() == 2
    kept = made.chosen_by(lifelong).batch(np.arange(60)[::-1], config)
    for name in ("actions", "times_ms", "recent"):
        np.testing.assert_array_equal(getattr(kept, name), np.flip(getattr(batch, name).numpy(), axis=0))


def test_the_planted_world_is_as_described() -> None:
    block, _ = world(400)
    assert block.labels.shape == (400, len(ACTIONS)) and not block.labels[:, 0].any()
    assert abs(block.labels[:, 1].mean() - 1 / GROUPS) < 0.08
