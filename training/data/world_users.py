"""The planted users: interests that drift, boards, follows, and how often each comes.

All state of a user is a few fixed-width arrays (about 300 bytes a user), updated in place day by day.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.data.world_config import MS_DAY, WorldConfig
from training.data.world_pins import leaf_shares
from training.data.world_topics import STYLE_NAMES, TopicTree

FOLLOWED_TOPICS = 8
"""Followed topics kept per user."""
REMEMBERED = 32
"""Pins a user acted on last, which the logging policy does not show again."""

COUNTRIES = {
    "US": (0.38, "en"),
    "BR": (0.13, "pt"),
    "MX": (0.10, "es"),
    "GB": (0.10, "en"),
    "DE": (0.10, "de"),
    "FR": (0.08, "fr"),
    "JP": (0.05, "ja"),
    "IN": (0.06, "en"),
}
"""Country -> share of users and language."""

STATES = {"core": (0.35, 1.9), "casual": (0.50, 0.6), "dormant": (0.15, 0.15)}
"""State -> share of users and sessions relative to the mean. Who joined in the last 28 days is `new`."""

_NEW_DAYS = 28
_JOINED_DURING = 0.12
"""Share of users whose account was made while the log ran."""


@dataclass
class Users:
    """State of every user; row i is user id i + 1. Slots that hold nothing are -1."""

    leaf: np.ndarray
    """int16 (U, K): topic of each interest."""
    style: np.ndarray
    """int8 (U, K): style preferred within the interest."""
    weight: np.ndarray
    """float32 (U, K): share of the interest, rows sum to 1, 0 in empty slots."""
    since: np.ndarray
    """int32 (U,): day the present interests began."""
    board: np.ndarray
    """int32 (U, K): board that the interest's saves go to."""
    believed: np.ndarray
    """int16 (U, K): topics the logging policy believes in."""
    followed: np.ndarray
    """int16 (U, FOLLOWED_TOPICS)."""
    disliked: np.ndarray
    """int16 (U, config.disliked): topics the user hides when shown."""
    remembered: np.ndarray
    """int32 (U, REMEMBERED): ring of pin rows acted on."""
    cursor: np.ndarray
    """int32 (U,): next place in the ring."""
    rate: np.ndarray
    """float32 (U,): sessions a day."""
    bias: np.ndarray
    """float32 (U,): the user's own readiness, in logits."""
    created_ms: np.ndarray
    """int64 (U,): Unix ms."""
    country: np.ndarray
    """int8 (U,): index into COUNTRIES."""
    state: np.ndarray
    """int8 (U,): index into STATES; 3 is new."""

    def __len__(self) -> int:
        return len(self.since)


def blocks(config: WorldConfig) -> list[tuple[int, int]]:
    """(start, stop) rows of each block of users."""
    return [(s, min(s + config.block_users, config.users)) for s in range(0, config.users, config.block_users)]


def create(config: WorldConfig, tree: TopicTree) -> Users:
    """Every user on the first day."""
    parts = [_create_block(config, tree, b, stop - start) for b, (start, stop) in enumerate(blocks(config))]
    users = Users(
        **{name: np.concatenate([getattr(p, name) for p in parts]) for name in Users.__dataclass_fields__}
    )
    held = users.leaf >= 0
    users.board[held] = np.arange(1, held.sum() + 1, dtype=np.int32)
    return users


def _create_block(config: WorldConfig, tree: TopicTree, block: int, n: int) -> Users:
    rng = np.random.default_rng([config.seed, 10, block])
    k = config.max_interests
    share = leaf_shares(config, len(tree.leaves))
    # Gumbel top-k: k different leaves a user, drawn by share
    keys = np.log(share) + rng.gumbel(size=(n, len(share)))
    leaf = np.argsort(-keys, axis=1)[:, :k].astype(np.int16)
    if leaf.shape[1] < k:
        leaf = np.pad(leaf, ((0, 0), (0, k - leaf.shape[1])), constant_values=-1)
    count = rng.integers(2, k + 1, n)
    leaf[np.arange(k) >= count[:, None]] = -1
    states = np.array([s for s, _ in STATES.values()])
    state = rng.choice(len(STATES), n, p=states)
    activity = np.array([a for _, a in STATES.values()])
    mean = (states * activity).sum()
    rate = config.sessions_per_day * activity[state] / mean * rng.lognormal(-0.125, 0.5, n)

    start_ms = int(config.start_time.timestamp() * 1000)
    before = rng.random(n) >= _JOINED_DURING
    created = (
        start_ms
        + np.where(before, -rng.exponential(300, n) - _NEW_DAYS / 2, rng.random(n) * config.days) * MS_DAY
    )
    state = np.where(created > start_ms + (config.days - _NEW_DAYS) * MS_DAY, len(STATES), state)

    followed = np.full((n, FOLLOWED_TOPICS), -1, dtype=np.int16)
    follows = rng.integers(0, 6, n)
    truthful = rng.random((n, 5)) < 0.8
    picks = np.where(
        truthful,
        np.take_along_axis(leaf, rng.integers(0, count[:, None], (n, 5)), 1),
        rng.integers(0, len(tree.leaves), (n, 5)),
    )
    followed[:, :5] = np.where(np.arange(5) < follows[:, None], picks, -1)
    _drop_repeats(followed)

    wrong = rng.random((n, k)) < config.policy.belief_error
    believed = np.where(wrong & (leaf >= 0), rng.integers(0, len(tree.leaves), (n, k)), leaf).astype(np.int16)
    _drop_repeats(believed)
    return Users(
        leaf=leaf,
        style=rng.integers(0, len(STYLE_NAMES), (n, k)).astype(np.int8),
        weight=_weights(rng, leaf >= 0),
        since=np.zeros(n, np.int32),
        board=np.full((n, k), -1, np.int32),
        believed=believed,
        followed=followed,
        disliked=_disliked(config, share, leaf, block),
        remembered=np.full((n, REMEMBERED), -1, np.int32),
        cursor=np.zeros(n, np.int32),
        rate=rate.astype(np.float32),
        bias=rng.normal(0, config.behaviour.user_spread, n).astype(np.float32),
        created_ms=created.astype(np.int64),
        country=rng.choice(len(COUNTRIES), n, p=[s for s, _ in COUNTRIES.values()]).astype(np.int8),
        state=state.astype(np.int8),
    )


def _disliked(config: WorldConfig, share: np.ndarray, leaf: np.ndarray, block: int) -> np.ndarray:
    """Topics that are no interest, drawn by share; -1 where there are too few."""
    rng = np.random.default_rng([config.seed, 17, block])
    keys = np.log(share) + rng.gumbel(size=(len(leaf), len(share)))
    who, slot = np.nonzero(leaf >= 0)
    keys[who, leaf[who, slot]] = -np.inf
    chosen = np.argsort(-keys, axis=1)[:, : config.disliked]
    out = np.full((len(leaf), config.disliked), -1, np.int16)
    out[:, : chosen.shape[1]] = np.where(np.isneginf(np.take_along_axis(keys, chosen, axis=1)), -1, chosen)
    return out


def _weights(rng: np.random.Generator, held: np.ndarray) -> np.ndarray:
    """Dirichlet(2) weights over the held slots of each row."""
    gamma = rng.gamma(2.0, size=held.shape) * held
    return (gamma / gamma.sum(axis=1, keepdims=True)).astype(np.float32)


def _drop_repeats(rows: np.ndarray) -> None:
    """Blank (-1) a value that an earlier slot of its row already holds, in place."""
    for j in range(1, rows.shape[1]):
        rows[(rows[:, :j] == rows[:, j : j + 1]).any(axis=1), j] = -1


@dataclass(frozen=True)
class Drift:
    """What changed on one day in one block."""

    changed: np.ndarray
    """int64 (C,): rows of users whose interests changed; their former ones end today."""
    former: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    """leaf, style, weight (C, K) and since (C,), as they were."""
    boards: tuple[np.ndarray, np.ndarray, np.ndarray]
    """New boards: board ids, owners' rows, leaves."""
    follows: tuple[np.ndarray, np.ndarray]
    """New topic follows: users' rows, leaves."""


def drift(
    users: Users,
    rows: slice,
    day: int,
    next_board: int,
    config: WorldConfig,
    tree: TopicTree,
    rng: np.random.Generator,
) -> Drift:
    """Change the interests of some users of a block, in place, before the day begins.

    Half of the changes move weight between interests; the others put a new topic (every other time one of
    the same root) in the place of the weakest, open a board for it, and sometimes follow it.
    """
    n = rows.stop - rows.start
    changed = rows.start + np.flatnonzero(rng.random(n) < config.drift_per_day)
    former = tuple(a[changed].copy() for a in (users.leaf, users.style, users.weight, users.since))
    held = users.leaf[changed] >= 0
    fresh = _weights(rng, held)
    users.weight[changed] = 0.4 * users.weight[changed] + 0.6 * fresh
    users.since[changed] = day

    swaps = rng.random(len(changed)) < 0.5
    weakest = np.where(held, former[2], np.inf).argmin(axis=1)
    leaves = len(tree.leaves)
    near = tree.leaf_root[former[0][np.arange(len(changed)), weakest]] * config.leaves_per_root
    near = near + rng.integers(0, config.leaves_per_root, len(changed))
    new = np.where(rng.random(len(changed)) < 0.5, near, rng.integers(0, leaves, len(changed))).astype(np.int16)
    swaps &= ~(former[0] == new[:, None]).any(axis=1)

    who, slot, new = changed[swaps], weakest[swaps], new[swaps]
    board = np.arange(next_board, next_board + len(who), dtype=np.int32)
    users.leaf[who, slot] = new
    users.disliked[who] = np.where(users.disliked[who] == new[:, None], -1, users.disliked[who])
    users.style[who, slot] = rng.integers(0, len(STYLE_NAMES), len(who))
    users.board[who, slot] = board
    noticed = rng.random(len(who)) < 1 - config.policy.belief_error
    noticed &= ~(users.believed[who] == new[:, None]).any(axis=1)
    users.believed[who[noticed], slot[noticed]] = new[noticed]

    free = (users.followed[who] < 0).argmax(axis=1)
    follows = (rng.random(len(who)) < 0.3) & (users.followed[who, free] < 0)
    follows &= ~(users.followed[who] == new[:, None]).any(axis=1)
    users.followed[who[follows], free[follows]] = new[follows]
    return Drift(changed=changed, former=former, boards=(board, who, new), follows=(who[follows], new[follows]))


def remember(users: Users, who: np.ndarray, pins: np.ndarray) -> None:
    """Put pins (int32 rows) acted on by users (rows, any order) into the rings, oldest first out."""
    order = np.argsort(who, kind="stable")
    who, pins = who[order], pins[order]
    first = np.concatenate([[0], np.flatnonzero(np.diff(who)) + 1]) if len(who) else np.zeros(0, int)
    counts = np.diff(np.concatenate([first, [len(who)]]))
    rank = np.arange(len(who)) - np.repeat(first, counts)
    users.remembered[who, (users.cursor[who] + rank) % REMEMBERED] = pins
    users.cursor[who[first]] = (users.cursor[who[first]] + counts) % REMEMBERED
