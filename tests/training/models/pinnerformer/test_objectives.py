"""Targets of each objective against naive loops."""

from __future__ import annotations

import numpy as np
import pytest

from training.models.pinnerformer.objectives import Labels, Objective, Targets, last_with_label, targets

DAY = 86_400_000


class World:
    """A few users with random actions; some of them are labels, and pins come again."""

    def __init__(self, lengths: list[int], seed: int, new_pins: bool = True, step: int = DAY // 2) -> None:
        rng = np.random.default_rng(seed)
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        count = int(self.offsets[-1])
        gaps = rng.integers(0, 3, count) * step  # equal timestamps among them
        self.times = np.concatenate(
            [np.cumsum(gaps[a:b]) for a, b in zip(self.offsets[:-1], self.offsets[1:], strict=True)]
        ).astype(np.int64)
        self.pins = rng.integers(0, 15, count).astype(np.int32)
        label = rng.random(count) < 0.6
        owner = np.repeat(np.arange(len(lengths)), lengths)
        first = self.times.copy()
        for row in range(count) if new_pins else ():
            same = (owner == owner[row]) & (self.pins == self.pins[row])
            first[row] = self.times[same].min()
        rows = np.flatnonzero(label)
        self.labels = Labels(
            np.searchsorted(rows, self.offsets), self.pins[rows], self.times[rows], first[rows]
        )

    def draw(self, objective: Objective, seed: int = 0, positions: int = 4, days: float = 2) -> Targets:
        users = np.arange(len(self.offsets) - 1)
        return targets(
            objective,
            self.times,
            users,
            self.offsets[:-1],
            self.offsets[1:],
            self.labels,
            horizon_ms=int(days * DAY),
            positions=positions,
            rng=np.random.default_rng(seed),
        )

    def allowed(self, user: int, position: int, days: float | None) -> list[int]:
        """Labels that a token may be asked for, by the definition."""
        now = self.times[self.offsets[user] + position]
        out = []
        for label in range(self.labels.offsets[user], self.labels.offsets[user + 1]):
            later = self.labels.times_ms[label] > now
            near = days is None or self.labels.times_ms[label] <= now + days * DAY
            if later and near and self.labels.first_ms[label] > now:
                out.append(label)
        return out


LENGTHS = [0, 1, 2, 9, 30, 5]


@pytest.mark.parametrize("new_pins", [True, False])
def test_dense_targets_are_a_random_label_of_the_window(new_pins: bool) -> None:
    world = World(LENGTHS, 1, new_pins)
    seen: dict[tuple[int, int], list[int]] = {}
    for seed in range(600):
        drawn = world.draw(Objective.DENSE_ALL_ACTION, seed)
        keys = list(zip(drawn.owners.tolist(), drawn.positions.tolist(), strict=True))
        assert len(set(keys)) == len(keys), "a position is asked once"
        assert (np.diff(drawn.owners) >= 0).all() and np.bincount(drawn.owners).max() <= 4
        for key, label in zip(keys, drawn.labels.tolist(), strict=True):
            seen.setdefault(key, []).append(label)
    for user in range(len(LENGTHS)):
        for position in range(LENGTHS[user]):
            allowed = world.allowed(user, position, 2)
            found = seen.get((user, position), [])
            assert set(found) <= set(allowed)
            if allowed and len(found) > 60:  # uniform: no label twice as rare or frequent as even
                counts = np.array([found.count(label) for label in allowed])
                even = len(found) / len(allowed)
                assert (np.abs(counts - even) < 5 * np.sqrt(even)).all()
    every = {(u, p) for u in range(len(LENGTHS)) for p in range(LENGTHS[u]) if world.allowed(u, p, 2)}
    assert set(seen) == every


def test_sasrec_asks_every_token_for_its_next_label() -> None:
    world = World(LENGTHS, 2)
    drawn = world.draw(Objective.SASREC, positions=1)
    naive = [
        (user, position, world.allowed(user, position, None)[0])
        for user in range(len(LENGTHS))
        for position in range(LENGTHS[user])
        if world.allowed(user, position, None)
    ]
    got = zip(drawn.owners.tolist(), drawn.positions.tolist(), drawn.labels.tolist(), strict=True)
    assert list(got) == naive


def test_next_and_all_action_ask_the_newest_token_only() -> None:
    world = World([20, 20, 20], 3)
    ends = world.offsets[:-1] + 8  # the sequences break off where labels still come

    def drawn(objective: Objective, positions: int, seed: int = 0) -> Targets:
        return targets(
            objective,
            world.times,
            np.arange(3),
            world.offsets[:-1],
            ends,
            world.labels,
            horizon_ms=3 * DAY,
            positions=positions,
            rng=np.random.default_rng(seed),
        )

    following = drawn(Objective.NEXT_ACTION, 5)
    assert (following.positions == 7).all()
    assert following.labels.tolist() == [world.allowed(u, 7, None)[0] for u in following.owners]
    every = drawn(Objective.ALL_ACTION, 100)
    assert every.labels.tolist() == [label for u in range(3) for label in world.allowed(u, 7, 3)]
    some = np.concatenate([drawn(Objective.ALL_ACTION, 2, seed).labels for seed in range(400)])
    assert set(some.tolist()) == set(every.labels.tolist())
    for user in range(3):
        allowed = world.allowed(user, 7, 3)
        counts = np.array([(some == label).sum() for label in allowed])
        even = 400 * min(2, len(allowed)) / max(len(allowed), 1)
        assert (np.abs(counts - even) < 5 * np.sqrt(even)).all()


def test_last_with_label_is_where_labels_end() -> None:
    world = World(LENGTHS, 4)
    ends = last_with_label(world.times, world.offsets, world.labels)
    for user in range(len(LENGTHS)):
        some = [p for p in range(LENGTHS[user]) if world.allowed(user, p, None)]
        assert ends[user] - world.offsets[user] == (max(some) + 1 if some else 0)


def test_equal_timestamps_leave_nothing_to_predict() -> None:
    world = World([12], 5, step=0)
    for objective in Objective:
        assert len(world.draw(objective).labels) == 0
    assert last_with_label(world.times, world.offsets, world.labels)[0] == 0
