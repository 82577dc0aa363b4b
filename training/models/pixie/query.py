"""What to walk from: weighted query pins, and the steps each of them gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.models.light_kernels import rows_among
from training.models.pin_board_graph import TOPICS_PER_LANGUAGE, PinBoardGraph
from training.models.pin_board_overlay import GraphView

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

MS_PER_DAY = 86_400_000


@dataclass(frozen=True)
class Query:
    """Pins to walk from and their weights (> 0); parallel arrays, one entry a pin, by ascending pin id."""

    pin_ids: Ids  # (q,)
    weights: Floats  # (q,)
    exclude: Ids  # (x,) pins that may not be answered, besides the query pins

    def __len__(self) -> int:
        return len(self.pin_ids)

    @classmethod
    def of(cls, pin_ids: Ids, weights: Floats | None = None, exclude: Ids | tuple[int, ...] = ()) -> Query:
        """Any pins in any order. Weights of a repeated pin add up; pins of weight 0 are left out.

        Raises ValueError for a weight that is negative, NaN or infinite.
        """
        ids = np.asarray(pin_ids, np.int64)
        heavy = np.ones(len(ids)) if weights is None else np.asarray(weights, np.float64)
        if len(heavy) != len(ids):
            raise ValueError(f"{len(ids)} query pins and {len(heavy)} weights")
        wrong = ~np.isfinite(heavy) | (heavy < 0)
        if wrong.any():
            pin, weight = ids[wrong][0], heavy[wrong][0]
            raise ValueError(f"query pin {pin} has weight {weight}; weights are finite and not negative")
        distinct, inverse = np.unique(ids, return_inverse=True)
        summed = np.bincount(inverse, weights=heavy, minlength=len(distinct))
        kept = summed > 0
        return cls(distinct[kept], summed[kept], np.unique(np.asarray(exclude, np.int64)))

    def heaviest(self, n: int) -> Query:
        """The `n` heaviest pins (ties: the lower id); the rest become pins that may not be answered."""
        if len(self) <= n:
            return self
        order = np.lexsort((self.pin_ids, -self.weights))
        kept = np.sort(order[:n])
        dropped = self.pin_ids[order[n:]]
        return Query(self.pin_ids[kept], self.weights[kept], np.union1d(self.exclude, dropped))


@dataclass(frozen=True)
class Bias:
    """Labels in [low, high) that a walk prefers; rows are sorted by label, so they are one range of each."""

    low: int
    high: int


def pin_query(pin_id: int) -> Query:
    """One pin: related pins."""
    return Query.of(np.array([pin_id]))


def board_query(
    graph: PinBoardGraph | GraphView, board_id: int, *, max_pins: int = 100, seed: int = 0
) -> Query:
    """The pins of a board, equally weighted; a seeded sample of `max_pins` of a larger board.

    All its pins are excluded from answers. A board that the graph does not know is an empty query.
    """
    board = int(graph.board_index_of([board_id])[0])
    if board < 0:
        return Query.of(np.empty(0, np.int64))
    pins = np.sort(graph.ids_of(graph.pins_of(board)))
    chosen = pins
    if len(pins) > max_pins:
        chosen = np.random.default_rng((seed, board_id)).choice(pins, max_pins, replace=False)
    return Query.of(chosen, exclude=pins)


def history_query(
    pin_ids: Ids,
    actions: NDArray[np.integer],
    times_ms: Ids,
    now_ms: int,
    action_weights: Floats,
    *,
    half_life_days: float = 7.0,
) -> Query:
    """A user's actions as query pins: weight = the action's weight, halved every `half_life_days` of age,
    summed.

    `actions` are codes of the vocabulary, `action_weights` (CODES,) what each weighs (`by_code`). A code
    without a weight counts nothing; a pin with any action of negative weight (hide, report) is no query pin and
    may not be answered. Actions after `now_ms` are ignored, so that a replay sees what was known. An empty
    history is an empty query.
    """
    if half_life_days <= 0:
        raise ValueError(f"half_life_days is {half_life_days}; it must be above 0")
    ids = np.asarray(pin_ids, np.int64)
    known = np.asarray(times_ms, np.int64) <= now_ms
    by_action = action_weights[np.asarray(actions, np.int64)]
    refused = np.unique(ids[known & (by_action < 0)])
    used = known & (by_action > 0)
    if len(refused):
        used[used] = rows_among(ids[used], refused) == len(refused)
    age_days = (now_ms - np.asarray(times_ms, np.int64)[used]) / MS_PER_DAY
    return Query.of(ids[used], by_action[used] * 0.5 ** (age_days / half_life_days), exclude=refused)


CODES = 128
"""Codes of actions: a sequence holds them in a signed byte."""


def by_code(action_weights: Mapping[int, float]) -> Floats:
    """(CODES,) the weight of each code, 0 for one without. Raises ValueError for a weight that is no number."""
    if any(weight != weight for weight in action_weights.values()):
        raise ValueError("an action's weight is NaN")
    weights = np.zeros(CODES)
    for code, weight in action_weights.items():
        if 0 <= code < CODES:
            weights[code] = weight
    return weights


def bias_for(
    graph: PinBoardGraph | GraphView, *, language: str | None = None, topic: int | None = None
) -> Bias | None:
    """The bias towards a language, a topic, or a topic within a language; None where the graph knows neither.

    Rows are sorted by language first: a topic alone is one range only in a graph without languages. Raises
    ValueError where it is asked of one that has them.
    """
    languages, topics = graph.info.languages, graph.info.topics
    spoken = languages.index(language) + 1 if language in languages else 0
    about = topics.index(topic) + 1 if topic in topics else 0
    if about and languages and not spoken:
        raise ValueError("a graph with languages is biased by topic only within one: give a language it knows")
    first = spoken * TOPICS_PER_LANGUAGE + about
    if not graph.labelled or not (spoken or about):
        return None
    return Bias(first, first + (1 if about else TOPICS_PER_LANGUAGE))


def allocate_steps(
    steps: int, weights: Floats, degrees: NDArray[np.int64], max_degree: int, *, by_degree: bool = True
) -> NDArray[np.int64]:
    """Steps of each query pin, (q,) int64, at least 1 each (paper, eq. 1 and 2).

    s = |E(q)| (C - log |E(q)|) and N_q = w_q N s_q / sum s, with weights summing to 1 entering the sum too. C
    is the logarithm of the largest degree of *any* pin: with that degree itself, as the text can be read, s
    is linear in |E(q)|, and a bestseller among the query pins takes nearly every step. Without `by_degree`, s
    = 1.
    """
    if len(weights) == 0:
        return np.empty(0, np.int64)
    share = weights
    if by_degree:
        scale = degrees * (np.log(max(max_degree, 1)) - np.log(np.maximum(degrees, 1)))
        share = weights * np.maximum(scale, 0.0)
        if share.sum() <= 0:  # only pins of the largest degree: nothing to tell them apart but their weights
            share = weights
    return np.maximum(np.rint(steps * share / share.sum()), 1).astype(np.int64)
