"""The temporal protocol: everything before a cut is known, what users do in the days after it is held out.

A model is fitted on the lake as of the cut and names k pins a user among those made before the cut that the
user had not taken; `training.evaluation.retrieval` holds out and measures. HR is the share of users with a
held-out pin among their k, recall the mean share of a user's held-out pins, NDCG weighs them by rank.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from training.context import Progress, silent
from training.evaluation.as_of import AsOf, Blend, Fit, Model, NotApplicable, TemporalError, checked
from training.evaluation.blending import LISTED, chosen_weights, fused
from training.evaluation.report import Report, Row
from training.evaluation.retrieval import (
    PINS,
    HeldOut,
    NothingHeldOut,
    hold_out,
    hold_out_last,
    user_metrics,
)
from training.evaluation.seeded import Seeded, runs_of, variants_of
from validation.lake import Lake

Ints = NDArray[np.int64]

NEXT_DAYS = "next days"
NAMES = {"recall": "Recall", "hit_rate": "HR", "ndcg": "NDCG"}
"""Titles of what `user_metrics` measures, in the table's order."""


def evaluate(
    lake: Lake,
    models: Mapping[str, Model],
    *,
    days: int | None = None,
    at: Sequence[int] = (100,),
    budgets: Sequence[int] = (),
    seeds: Sequence[int] = (7,),
    max_users: int | None = None,
    tuning_users: int = 1_000,
    sample_seed: int = 7,
    against: str | None = None,
    strict: bool = False,
    progress: Progress = silent,
) -> Report:
    """HR, recall and NDCG at each of `at` for every model, on the last `days` of the lake (`hold_out_last`).

    A model of several fits is tuned first, on as many days before the cut as are held out after it: the variant
    with the best recall at the first of `at` over `tuning_users` users is fitted as of the cut. A blend's
    weights are chosen on the same days, from sources fitted on what lies before those. A model that the data
    does not allow is left out, and the report says why; with `strict` it is an error. Rows also hold the slices
    of `retrieval.evaluate`, and every metric at `budgets`, where there are so many pins. Raises NothingHeldOut,
    and TemporalError for a lake without a past or a model that recommends what it may not.
    """
    if not at or min(at) < 1:
        raise TemporalError(f"lists of {list(at)} pins cannot be measured; give numbers from 1")
    held = hold_out_last(lake, lake.interval()[1], days)
    found = len(held)
    held = held if max_users is None else held.sample(max_users, sample_seed)
    known = AsOf.of(lake, held.cut)
    lengths = tuple(sorted({*at, *(k for k in budgets if k <= len(known.pins))}))
    tuning = _Tuning(lake, held, tuning_users, sample_seed, at[0], progress)
    table = _Table(models, known, held, lengths, tuple(seeds), tuning, progress)
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    for name in models:
        try:
            rows.append(table.row(name))
        except NotApplicable as reason:
            if strict:
                raise TemporalError(f"{name}: {reason}") from reason
            skipped[name] = str(reason)
            progress(f"{name}: left out: {reason}")
    facts = {
        "cut": f"{held.cut:%Y-%m-%d}",
        "days": (held.end - held.cut).days,
        "users": len(held),
        **({"drawn_of": found} if found > len(held) else {}),
        "held_out_pins": len(held.pins),
        "pins": len(known.pins),
        "interactions": int(known.matrix.nnz),
        **{name: _in_words(weights) for name, weights in table.weights.items()},
    }
    columns = tuple(f"{name}@{k}" for k in at for name in NAMES.values())
    words = f"pins taken from {held.cut:%Y-%m-%d} on, among all made before it and new to the user"
    return Report("temporal", {NEXT_DAYS: words}, columns, facts, tuple(rows), skipped, against)


class _Tuning:
    """The days before the cut, held out from what lies before them; made when first asked for."""

    def __init__(self, lake: Lake, held: HeldOut, users: int, seed: int, k: int, progress: Progress) -> None:
        self._lake, self._outer, self._users, self._seed = lake, held, users, seed
        self.k, self._progress = k, progress
        self.nothing = ""
        """Why there is no split."""

    @cached_property
    def split(self) -> tuple[AsOf, HeldOut] | None:
        """What was known then and what was held out; None where those days hold nothing to choose by."""
        cut = self._outer.cut - (self._outer.end - self._outer.cut)
        try:
            held = hold_out(self._lake, cut, self._outer.cut).sample(self._users, self._seed)
            return AsOf.of(self._lake, cut), held
        except (NothingHeldOut, TemporalError) as reason:  # a short history cannot be tuned on
            self.nothing = str(reason)
            return None

    def lists(self, name: str, fit: Fit) -> Ints:
        """What `fit` recommends on the tuning days, (u, at least k)."""
        assert self.split is not None
        known, held = self.split
        long = max(self.k, LISTED)
        return checked(name, fit(known)(held.users, long), known, held.users, long)

    def best(self, name: str, variants: Sequence[Fit]) -> tuple[int, Ints | None]:
        """The variant of the best recall@k and its lists; the first where there is nothing to choose by."""
        if self.split is None:
            self._progress(f"{name}: its first variant stands: {self.nothing}")
            return 0, None
        known, held = self.split
        self._progress(
            f"{name}: choosing among {len(variants)} variants on the days from {known.cut:%Y-%m-%d} on"
        )
        lists = [self.lists(name, fit) for fit in variants]
        recalls = [user_metrics(found, held, ks=(self.k,))[f"recall@{self.k}"].mean() for found in lists]
        best = int(np.argmax(recalls))
        return best, lists[best]


class _Table:
    """Every model fitted once under each of its seeds, for its own row and for the blends it is part of."""

    def __init__(
        self,
        models: Mapping[str, Model],
        known: AsOf,
        held: HeldOut,
        lengths: tuple[int, ...],
        seeds: tuple[int, ...],
        tuning: _Tuning,
        progress: Progress,
    ) -> None:
        self._models, self._known, self._held, self._lengths = models, known, held, lengths
        self._seeds, self._tuning, self._progress = seeds, tuning, progress
        self._variants: dict[str, tuple[int, Ints | None]] = {}
        self._answers: dict[tuple[str, int], Ints] = {}
        self._spent: dict[str, list[float]] = {}
        self.weights: dict[str, dict[str, float]] = {}
        """By blend, of each of its sources."""

    def row(self, name: str) -> Row:
        """A model's row. Raises NotApplicable where the data does not allow it."""
        model = self._models[name]
        if isinstance(model, Blend):
            answers, seeded, variant = self._blended(name, model), self._seeds, 0
        else:
            runs = runs_of(model, self._seeds)
            variant = self._variant(name)[0]
            answers = [self._answer(name, seed) for seed in runs]
            seeded = tuple(runs) if isinstance(model, Seeded) else ()
        values: dict[str, list[NDArray[np.float64]]] = {}
        for answer in answers:
            for metric, of_users in user_metrics(answer, self._held, ks=self._lengths).items():
                if not metric.startswith(PINS):
                    values.setdefault(_title(metric), []).append(of_users)
        stacked = {metric: np.stack(runs) for metric, runs in values.items()}
        row = Row(name, NEXT_DAYS, stacked, seeded, variant, *self._spent.get(name, (0.0, 0.0)))
        shown = (f"{m} {row.mean(m):.4f}" for m in row.values if m.endswith(f"@{self._tuning.k}"))
        self._progress(f"{name}: " + ", ".join(shown))
        return row

    def _variant(self, name: str) -> tuple[int, Ints | None]:
        """The variant that stands, and its lists on the tuning days where it was chosen by them."""
        if name not in self._variants:
            model, start = self._models[name], time.perf_counter()
            variants = variants_of(model, runs_of(model, self._seeds)[0])  # type: ignore[arg-type]
            several = len(variants) > 1
            self._variants[name] = self._tuning.best(name, variants) if several else (0, None)
            self._spent[name] = [time.perf_counter() - start, 0.0]
        return self._variants[name]

    def _answer(self, name: str, seed: int) -> Ints:
        """(u, at least the longest list) of the held-out users, by the model fitted as of the cut."""
        model, variant = self._models[name], self._variant(name)[0]
        if (name, seed) not in self._answers:
            start = time.perf_counter()
            recommend = variants_of(model, seed)[variant](self._known)  # type: ignore[arg-type]
            fitted = time.perf_counter()
            users, k = self._held.users, max(self._lengths[-1], LISTED)
            self._answers[name, seed] = checked(name, recommend(users, k), self._known, users, k)
            self._spent[name][0] += fitted - start
            self._spent[name][1] += time.perf_counter() - fitted
        return self._answers[name, seed]

    def _blended(self, name: str, blend: Blend) -> list[Ints]:
        """A list of the held-out users a seed, by weights chosen on the tuning days."""
        sources, weights = self._chosen(name, blend)
        self.weights[name] = dict(zip(sources, weights.tolist(), strict=True))
        out = []
        for seed in self._seeds:
            runs = {s: seed if isinstance(self._models[s], Seeded) else self._seeds[0] for s in sources}
            lists = [self._answer(source, run) for source, run in runs.items()]
            start = time.perf_counter()
            out.append(fused(lists, weights, self._lengths[-1]))
            self._spent.setdefault(name, [0.0, 0.0])[1] += time.perf_counter() - start
        return out

    def _chosen(self, name: str, blend: Blend) -> tuple[list[str], NDArray[np.float64]]:
        """The blend's sources that the data allows, and the weight of each."""
        sources, lists = [], []
        for source in blend.sources:
            if source not in self._models:
                continue
            try:
                self._answer(source, self._seeds[0])
                lists.append(self._tuning_lists(source))
            except NotApplicable:  # its own row says why
                continue
            sources.append(source)
        if len(sources) < 2:
            raise NotApplicable(
                f"it mixes at least two of {', '.join(blend.sources)}; here: {', '.join(sources) or 'none'}"
            )
        tuned = [listed for listed in lists if listed is not None]
        if self._tuning.split is None:
            self._progress(f"{name}: equal weights stand: {self._tuning.nothing}")
            return sources, np.full(len(sources), 1 / len(sources))
        self._progress(f"{name}: choosing weights of {', '.join(sources)}")
        return sources, chosen_weights(tuned, self._tuning.split[1], self._tuning.k)

    def _tuning_lists(self, name: str) -> Ints | None:
        """A source's lists on the tuning days; None where there are no such days."""
        variant, lists = self._variant(name)
        if lists is None and self._tuning.split is not None:
            model = self._models[name]
            fit = variants_of(model, runs_of(model, self._seeds)[0])[variant]  # type: ignore[arg-type]
            lists = self._tuning.lists(name, fit)
            self._variants[name] = variant, lists
        return lists


def _in_words(weights: Mapping[str, float]) -> str:
    """`pixie 60%, dcm 40%`, largest first, sources without a weight left out."""
    ordered = sorted(weights.items(), key=lambda item: -item[1])
    return ", ".join(f"{source} {weight:.0%}" for source, weight in ordered if weight > 0)


def _title(metric: str) -> str:
    """`hit_rate@100/new_users` as `HR@100/new_users`."""
    name, _, rest = metric.partition("@")
    return f"{NAMES[name]}@{rest}"
