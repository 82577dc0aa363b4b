"""PinnerSage's alpha, which the paper does not give: chosen by walking forward, day by day, before a cut.

Each of the last days before the cut is predicted from what happened before its midnight, as a release serves
it: the user is clustered under every alpha, the same seeds draw medoids by importance, and the medoids bring
their nearest pins in turns until a budget that all alphas share is full. Pins made after that midnight, and
those the user had acted on, are neither brought nor to be found. Recall is the share of the days' new pins
brought.

The alpha of the best recall is taken, the smallest where several are equal. The standard errors of the others'
distances from it, paired user by user, are kept beside it: they say how much the days decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.models.interactions import Pins
from training.models.pinnersage import (
    MS_PER_DAY,
    Histories,
    Interests,
    PinnerSageConfig,
    sample_medoids,
    users_interests,
)
from training.pipelines.user_actions import UserActions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]

Cluster = Callable[[Histories, int, PinnerSageConfig], Sequence[Interests]]
"""Interests of every user as of a time, from what is before it; `alpha` is where it cuts."""

ALPHAS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
"""Past the last one, users of unit vectors are one cluster each, or have hundreds of pins."""


class NothingToChooseBy(ValueError):
    """No user who had acted before took a new pin in the days to predict."""


class AlphaConfig(BaseModel):
    """How much is looked at to choose: time and memory grow with users a day, days, draws and pins compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alphas: tuple[float, ...] = Field(ALPHAS, min_length=1)
    days: int = Field(7, ge=1)
    """Last days before the cut, each predicted from those before it."""
    users: int = Field(300, ge=1)
    """Users drawn for each day, of those who find something new in it."""
    draws: int = Field(6, ge=1)
    """Times that medoids are drawn; the mean counts."""
    recommended: int = Field(400, ge=1)
    """Pins brought to a user, whatever the number of medoids: the paper's 400, about what the funnel takes. Far
    fewer reward the one interest a user has most of, and alpha would end where nobody has a second. Of a small
    catalogue `most_of_catalogue` is the bound."""
    most_of_catalogue: float = Field(0.1, gt=0, le=1)
    compared: int = Field(100_000, ge=1)
    """Pins of a larger catalogue that are searched, drawn evenly, beside those to be found."""


@dataclass(frozen=True)
class AlphaChoice:
    """The alpha taken and why: parallel arrays over the alphas tried, ascending."""

    alpha: float
    alphas: Doubles
    recall: Doubles
    below_best: Doubles
    """Standard error of the recall's difference from the best alpha's."""
    interests: Doubles
    """Mean number of interests a user."""
    user_days: int
    pins: int
    """Held-out pins."""

    @property
    def place(self) -> int:
        """Of `alpha` in the arrays."""
        return int(np.flatnonzero(self.alphas == self.alpha)[0])

    def summary(self) -> str:
        """The choice in a line."""
        runner = int(np.argsort(-self.recall, kind="stable")[min(1, len(self.recall) - 1)])
        return (
            f"alpha {self.alpha:g}, {self.interests[self.place]:.1f} interests a user, "
            f"recall {self.recall[self.place]:.4f} (next {self.recall[runner]:.4f} at {self.alphas[runner]:g}, "
            f"standard error {self.below_best[runner]:.4f}, {self.user_days} user days)"
        )

    def metrics(self) -> dict[str, float]:
        """For the registry: the choice's recall, and what it was measured on."""
        return {
            "tuned_user_days": float(self.user_days),
            "tuned_pins": float(self.pins),
            "tuned_recall": float(self.recall[self.place]),
            "tuned_interests": float(self.interests[self.place]),
        }


def procedure(config: AlphaConfig) -> str:
    """The rule in one paragraph, for the model card."""
    return (
        f"The paper names no alpha. Each of the {config.days} days before the evaluated ones was predicted "
        "from what happened before it: medoids sampled by importance brought "
        f"{config.recommended} pins in turns, at most {config.most_of_catalogue:.0%} of the catalogue, of "
        "those made before that day. The alpha whose recall of the days' new pins is highest was taken."
    )


def choose_alpha(
    actions: UserActions,
    before_ms: int,
    config: PinnerSageConfig,
    *,
    search: AlphaConfig | None = None,
    seed: int = 7,
    cluster: Cluster = users_interests,
) -> AlphaChoice:
    """Alpha by the rule above, on the `search.days` days before `before_ms`, a UTC midnight in Unix ms.

    Vectors of `actions.pins` must know nothing of these days. `cluster` may cluster otherwise. Raises
    NothingToChooseBy.
    """
    search = search or AlphaConfig()
    alphas = np.array(sorted(search.alphas))
    questions = [q for back in range(search.days, 0, -1) for q in _day(actions, before_ms, back, search, seed)]
    if not questions:
        raise NothingToChooseBy(
            f"nobody who had acted before took a new pin in the {search.days} days before the cut; set alpha"
        )
    searched = _searched(actions.pins, questions, search.compared, seed)
    found = np.zeros((len(alphas), len(questions)))
    sizes = np.zeros((len(alphas), len(questions)))
    for midnight in dict.fromkeys(q.midnight_ms for q in questions):
        rows = [row for row, q in enumerate(questions) if q.midnight_ms == midnight]
        histories = actions.histories_of(np.array([questions[row].user for row in rows]))
        made = searched[actions.pins.created_at_ms[searched] < midnight]
        budget = min(search.recommended, max(int(search.most_of_catalogue * len(made)), 1))
        tried = [cluster(histories, midnight, config.model_copy(update={"alpha": a})) for a in alphas.tolist()]
        for at, row in enumerate(rows):
            interests = [of_users[at] for of_users in tried]
            sizes[:, row] = [len(i) for i in interests]
            found[:, row] = _found(
                actions.pins, made, questions[row], interests, config.sampled, budget, search.draws, seed
            )
    return _choice(alphas, found, sizes, questions)


@dataclass(frozen=True)
class _Question:
    """What one user is to find in one day."""

    user: int
    midnight_ms: int
    held: Ints
    """Rows of the new pins of the day."""
    known: Ints
    """Rows acted on before."""


def _day(
    actions: UserActions, before_ms: int, back: int, search: AlphaConfig, seed: int
) -> Iterator[_Question]:
    """Questions of the day that starts `back` days before the cut, of users drawn evenly."""
    midnight = before_ms - back * MS_PER_DAY
    there = actions.pins.vectors.any(axis=1) & (actions.pins.created_at_ms < midnight)
    asked = 0
    for user in np.random.default_rng((seed, back)).permutation(
        actions.active(midnight, midnight + MS_PER_DAY)
    ):
        known = actions.between(user, 0, midnight)
        held = np.setdiff1d(actions.between(user, midnight, midnight + MS_PER_DAY), known)
        held = held[there[held]]
        if len(known) and len(held):
            yield _Question(int(user), midnight, held, known)
            asked += 1
            if asked == search.users:
                return


def _searched(pins: Pins, questions: Sequence[_Question], count: int, seed: int) -> Ints:
    """Rows that are searched, ascending: all with a vector, or as many drawn evenly and all to be found."""
    rows = np.flatnonzero(pins.vectors.any(axis=1))
    if len(rows) <= count:
        return rows
    drawn = np.random.default_rng(seed).choice(rows, count, replace=False)
    return np.union1d(drawn, np.concatenate([q.held for q in questions]))


def _found(
    pins: Pins,
    searched: Ints,
    question: _Question,
    interests: Sequence[Interests],
    sampled: int,
    budget: int,
    draws: int,
    seed: int,
) -> Doubles:
    """Held-out pins among those brought under each alpha, the mean over draws, (alphas,)."""
    drawn = [
        tuple(i.medoid_pin_ids[sample_medoids(i, sampled, seed=seed + 7919 * question.user + draw)].tolist())
        for i in interests
        for draw in range(draws)
    ]
    medoids = sorted({pin for of_draw in drawn for pin in of_draw})
    if not medoids:
        return np.zeros(len(interests))
    known, held = np.zeros((2, len(pins.ids)), bool)
    known[question.known], held[question.held] = True, True
    nearest = _nearest(pins, np.searchsorted(pins.ids, medoids), searched[~known[searched]], budget)
    lists = dict(zip(medoids, nearest, strict=True))
    finds = {
        of_draw: int(held[in_turns([lists[pin] for pin in of_draw], budget)].sum()) for of_draw in set(drawn)
    }
    return np.array([finds[d] for d in drawn]).reshape(len(interests), draws).mean(axis=1)


def _nearest(pins: Pins, medoids: Ints, rows: Ints, count: int) -> Ints:
    """The `count` of `rows` nearest to each of `medoids`, nearest first, (m, count)."""
    likeness = pins.vectors[medoids] @ pins.vectors[rows].T
    count = min(count, len(rows))
    if count == 0:
        return np.empty((len(medoids), 0), np.int64)
    top = np.argpartition(likeness, len(rows) - count, axis=1)[:, -count:]
    order = np.argsort(-np.take_along_axis(likeness, top, axis=1), axis=1, kind="stable")
    return rows[np.take_along_axis(top, order, axis=1)]


def in_turns(lists: Sequence[Ints], count: int) -> Ints:
    """The first `count` distinct rows when the lists, equally long, give their next one in turn."""
    if not lists:
        return np.empty(0, np.int64)
    turns = np.stack(lists).T.ravel()
    _, first = np.unique(turns, return_index=True)
    return turns[np.sort(first)[:count]]


def _choice(alphas: Doubles, found: Doubles, sizes: Doubles, questions: Sequence[_Question]) -> AlphaChoice:
    held = np.array([len(q.held) for q in questions], np.float64)
    recall = found.sum(axis=1) / held.sum()
    best = int(recall.argmax())
    _, owner = np.unique([q.user for q in questions], return_inverse=True)
    gap = found[best] - found - (recall[best] - recall)[:, None] * held  # (alphas, questions), centred
    by_user = np.stack([np.bincount(owner, weights=row) for row in gap])
    n = by_user.shape[1]
    error = np.sqrt((by_user**2).sum(axis=1) * n / max(n - 1, 1)) / held.sum()
    return AlphaChoice(
        float(alphas[best]),
        alphas,
        recall,
        error,
        sizes.mean(axis=1),
        len(questions),
        int(held.sum()),
    )


def figure(choice: AlphaChoice) -> Figure:
    """Recall with its error from the best alpha, and interests a user, against alpha."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6, 3.5), layout="constrained")
    left = drawn.subplots()
    left.errorbar(choice.alphas, choice.recall, yerr=choice.below_best, marker="o", color="#c8102e", capsize=3)
    left.axhline(choice.recall.max(), color="#c8102e", linewidth=0.6)
    left.axvline(choice.alpha, color="#888888", linestyle=":")
    left.set(xscale="log", xlabel="alpha", ylabel="recall of the next day's new pins")
    right = left.twinx()
    right.plot(choice.alphas, choice.interests, marker=".", color="#4a6fa5")
    right.set_ylabel("interests per user", color="#4a6fa5")
    return drawn
