"""alpha's choice: its recall against a naive one, what it may not know, and the one-standard-error rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from training.evaluation.pinnersage_alpha import (
    AlphaConfig,
    NothingToChooseBy,
    choose_alpha,
    figure,
    in_turns,
    procedure,
)
from training.models.interactions import Pins
from training.models.pinnersage import MS_PER_DAY, PinnerSageConfig, sample_medoids, user_interests
from training.pipelines.user_actions import UserActions

CUT = 20_000 * MS_PER_DAY
TOPICS, PER_TOPIC = 40, 30
SEARCH = AlphaConfig(alphas=(1e-6, 2.0, 1e6), days=3, users=20, draws=2, recommended=24)


def catalogue(seed: int = 0) -> tuple[Pins, np.ndarray]:
    rng = np.random.default_rng(seed)
    topics = np.repeat(np.arange(TOPICS), PER_TOPIC)
    vectors = rng.standard_normal((TOPICS, 32))[topics] + 0.6 * rng.standard_normal((len(topics), 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = np.arange(1, len(topics) + 1)
    return Pins(ids, vectors.astype(np.float32), np.zeros((len(ids), 4), np.int64), np.ones_like(ids)), topics


def log(pins: Pins, rows: list[tuple[int, int, int]]) -> UserActions:
    frame = pd.DataFrame(rows, columns=["user_id", "pin_id", "at"])
    frame["timestamp"] = pd.to_datetime(frame.pop("at"), unit="ms", utc=True)
    return UserActions.of(frame, pins)


def world(users: int = 30, seed: int = 1) -> UserActions:
    """Each user has three topics of forty and takes three of their pins a day, for 20 days."""
    pins, topics = catalogue()
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(1, users + 1):
        liked = np.flatnonzero(np.isin(topics, rng.choice(TOPICS, 3, replace=False)))
        for at, row in enumerate(rng.choice(liked, 60, replace=False).tolist()):
            rows.append((user, row + 1, CUT - (1 + at % 20) * MS_PER_DAY + int(rng.integers(MS_PER_DAY))))
    return log(pins, rows)


def test_alpha_is_chosen_between_single_pins_and_one_blur():
    search = SEARCH.model_copy(update={"users": 60})
    choice = choose_alpha(world(users=60), CUT, PinnerSageConfig(), search=search)
    assert choice.alpha == 2.0
    single, found, blurred = choice.recall
    assert found > 1.05 * max(single, blurred)
    assert choice.interests[0] > choice.interests[1] > choice.interests[2] == 1.0
    assert (choice.user_days, choice.pins) == (180, 540)


def test_recall_is_that_of_serving_every_day_by_hand():
    actions, config = world(users=8), PinnerSageConfig(sampled=2)
    search = SEARCH.model_copy(update={"users": 100})
    choice = choose_alpha(actions, CUT, config, search=search, seed=3)
    pins = actions.pins
    for place, alpha in enumerate(search.alphas):
        finds = held_out = 0.0
        for midnight in (CUT - back * MS_PER_DAY for back in (3, 2, 1)):
            for user in range(8):
                whole, past = actions.history(user), actions.history(user, midnight)
                today = whole.pin_ids[(whole.times_ms >= midnight) & (whole.times_ms < midnight + MS_PER_DAY)]
                held = set(today.tolist()) - set(past.pin_ids.tolist())
                interests = user_interests(past, midnight, config.model_copy(update={"alpha": alpha}))
                for draw in range(search.draws):
                    drawn = sample_medoids(interests, 2, seed=3 + 7919 * user + draw)
                    lists = []
                    for vector in interests.vectors[drawn]:
                        order = pins.ids[np.argsort(-(pins.vectors @ vector), kind="stable")]
                        lists.append([pin for pin in order.tolist() if pin not in set(past.pin_ids.tolist())])
                    brought: list[int] = []
                    for turn in zip(*lists, strict=True):
                        brought += [pin for pin in turn if pin not in brought]
                    finds += len(held & set(brought[: search.recommended])) / search.draws
                held_out += len(held)
        assert choice.recall[place] == pytest.approx(finds / held_out)
        assert choice.pins == held_out


def test_what_happens_from_the_cut_on_changes_nothing():
    actions = world()
    rows = [
        (int(actions.users[user]), int(pin), int(at))
        for user in range(len(actions))
        for pin, at in zip(actions.history(user).pin_ids, actions.history(user).times_ms, strict=True)
    ]
    later = log(actions.pins, rows + [(user, 7, CUT + user) for user in range(1, 31)])
    before, after = (choose_alpha(a, CUT, PinnerSageConfig(), search=SEARCH) for a in (actions, later))
    np.testing.assert_array_equal(before.recall, after.recall)


def test_pins_made_after_a_midnight_are_neither_brought_nor_to_be_found():
    """Copies of every pin, made on the last day: the day before they bring nothing and crowd nobody out."""
    actions = world()
    pins = actions.pins
    last = CUT - MS_PER_DAY
    doubled = Pins(
        np.concatenate([pins.ids, pins.ids + 10_000]),
        np.concatenate([pins.vectors, pins.vectors]),
        np.concatenate([pins.topics, pins.topics]),
        np.concatenate([pins.created_at_ms, np.full(len(pins.ids), last)]),
    )
    search = SEARCH.model_copy(update={"days": 1})
    alone = choose_alpha(actions, CUT, PinnerSageConfig(), search=search)
    beside = choose_alpha(replace(actions, pins=doubled), CUT, PinnerSageConfig(), search=search)
    np.testing.assert_array_equal(alone.recall, beside.recall)
    made = replace(pins, created_at_ms=np.full(len(pins.ids), last))
    with pytest.raises(NothingToChooseBy, match="1 days before the cut"):
        choose_alpha(replace(actions, pins=made), CUT, PinnerSageConfig(), search=search)


def test_the_best_alpha_is_taken_and_of_equal_ones_the_smallest():
    search = SEARCH.model_copy(update={"alphas": (0.1, 0.5, 1.0, 2.0, 8.0, 1e6, 1e9)})
    choice = choose_alpha(world(), CUT, PinnerSageConfig(), search=search)
    assert choice.place == choice.recall.argmax() and choice.below_best[choice.place] == 0
    one_blur = SEARCH.model_copy(update={"alphas": (1e6, 1e9)})
    assert choose_alpha(world(), CUT, PinnerSageConfig(), search=one_blur).alpha == 1e6


def test_the_standard_error_is_the_bootstraps_over_users():
    """The error of the paired difference: what resampling users, each with all of its days, gives."""
    actions = world(users=120)
    search = AlphaConfig(alphas=(2.0, 1e6), days=3, users=200, draws=1, recommended=24)
    choice = choose_alpha(actions, CUT, PinnerSageConfig(), search=search)
    gaps, held = np.zeros(120), np.zeros(120)
    for user in range(120):
        alone = UserActions(
            actions.users[user : user + 1],
            np.array([0, actions.offsets[user + 1] - actions.offsets[user]]),
            actions.pin_rows[actions.offsets[user] : actions.offsets[user + 1]],
            actions.times_ms[actions.offsets[user] : actions.offsets[user + 1]],
            actions.pins,
        )
        # the seed of a draw counts users, so that of user u alone is shifted to what it is among all
        own = choose_alpha(alone, CUT, PinnerSageConfig(), search=search, seed=7 + 7919 * user)
        held[user] = own.pins
        gaps[user] = (own.recall[0] - own.recall[1]) * own.pins
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 120, (4_000, 120))
    expected = (gaps[drawn].sum(axis=1) / held[drawn].sum(axis=1)).std()
    assert choice.recall[0] - choice.recall[1] == pytest.approx(gaps.sum() / held.sum())
    assert choice.below_best[1] == pytest.approx(expected, rel=0.1)


def test_equal_seeds_give_equal_choices_and_a_large_catalogue_is_sampled():
    actions = world()
    search = SEARCH.model_copy(update={"users": 5, "compared": 300})
    first, again = (choose_alpha(actions, CUT, PinnerSageConfig(), search=search, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.recall, again.recall)
    assert first.user_days == 15
    whole = search.model_copy(update={"compared": 2_000})
    assert first.recall[1] > choose_alpha(actions, CUT, PinnerSageConfig(), search=whole, seed=5).recall[1], (
        "among fewer pins more are found"
    )


def test_a_small_catalogue_is_not_brought_whole():
    actions = world(users=6)
    whole = SEARCH.model_copy(update={"recommended": 5_000})
    tenth = SEARCH.model_copy(update={"recommended": TOPICS * PER_TOPIC // 10})
    bounded, asked = (choose_alpha(actions, CUT, PinnerSageConfig(), search=s) for s in (whole, tenth))
    np.testing.assert_array_equal(bounded.recall, asked.recall)


def test_nobody_to_ask():
    pins, _ = catalogue()
    once = log(pins, [(user, user, CUT - MS_PER_DAY) for user in range(1, 9)])
    with pytest.raises(NothingToChooseBy, match="set alpha"):
        choose_alpha(once, CUT, PinnerSageConfig(), search=SEARCH)


def test_lists_give_in_turns_until_the_budget_is_full():
    assert in_turns([np.array([1, 2, 3]), np.array([2, 5, 1])], 4).tolist() == [1, 2, 5, 3]
    assert in_turns([np.array([4, 5])], 9).tolist() == [4, 5]
    assert in_turns([], 3).tolist() == []


def test_what_is_kept_of_a_choice():
    choice = choose_alpha(world(users=6), CUT, PinnerSageConfig(), search=SEARCH)
    metrics = choice.metrics()
    assert metrics["tuned_recall"] == choice.recall.max()
    assert metrics["tuned_interests"] == choice.interests[choice.place]
    assert f"alpha {choice.alpha:g}" in choice.summary()
    assert "3 days" in procedure(SEARCH) and "24 pins" in procedure(SEARCH)
    assert len(figure(choice).axes) == 2
