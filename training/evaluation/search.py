"""Did search find what people engaged with later, and what judges say answers a query?

Everything before the cut is known. Two questions: the queries of the days after it, answered by the pins that
were saved or stayed with; and the lake's judged queries, graded. Every pin made before the cut can be found.
Slices stand as rankings of their own, since that is where search by words and search by meaning part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.context import Progress, silent
from training.evaluation.blending import fused
from training.evaluation.judged_queries import (
    MRR,
    NDCG,
    RECALL,
    JudgedQueries,
    K,
    engaged_queries,
    query_metrics,
    read_judgements,
)
from training.evaluation.report import Report, Row
from training.evaluation.seeded import Seeded, runs_of, variants_of
from training.models.content import ContentEncoder, Sentences
from training.models.interactions import Pins
from training.models.lexical import words
from training.models.search_fusion import SearchFusion
from training.pipelines.search_world import SearchWorld

Ints = NDArray[np.int64]
Values = NDArray[np.float64]

LISTED = 300
"""Pins a model names for each query: what the surface fetches from each source before it fuses them."""

LATER, JUDGED = "later", "judged"
UNSEEN, REWORDED, HEAD, TAIL = "unseen", "reworded", "head", "tail"

FEWEST = 20
"""Queries below which a slice is not shown."""


class SearchEvaluationError(ValueError):
    """A model that cannot be evaluated as asked."""


class NotApplicable(Exception):
    """Raised by a fit that the data does not allow; the message says why."""


@dataclass(frozen=True)
class Known:
    """All that a model may look at."""

    world: SearchWorld
    content: Pins
    """The whole catalogue in the content space, rows as `world.pins`."""
    encoder: ContentEncoder
    sentences: Sentences | None
    """Reads texts off the shelf; None where no encoder is installed."""


Answer = Callable[[Sequence[str]], Ints]
"""Queries to (q, LISTED) pin ids, best first, zero-padded."""
Fit = Callable[[Known], Answer]
Fitted = Fit | Seeded[Fit]


@dataclass(frozen=True)
class ByMeaning:
    """An answer that says how it is fused with that of words."""

    answer: Answer
    fusion: SearchFusion

    def __call__(self, queries: Sequence[str]) -> Ints:
        return self.answer(queries)


@dataclass(frozen=True)
class Hybrid:
    """Lists of two other models of the table, as one: fused as that of meaning says."""

    meaning: str
    words: str

    @property
    def parts(self) -> tuple[str, str]:
        return self.meaning, self.words


Model = Fitted | Hybrid


def evaluate(
    known: Known,
    models: Mapping[str, Model],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    against: str | None = None,
    progress: Progress = silent,
) -> Report:
    """Every model on both questions and their slices; a model with randomness is fitted under every seed.

    Raises SearchEvaluationError for a hybrid of models that are not there, and for an `against` that is none.
    """
    if against is not None and against not in models:
        raise SearchEvaluationError(f"no model {against!r}; there are {', '.join(models)}")
    split, candidates = known.world.split, known.world.candidates
    questions = {LATER: engaged_queries(split.held, candidates)}
    if (judged := read_judgements(known.world.lake, candidates)) is not None:
        questions[JUDGED] = judged
    table = _Table(known, models, tuple(seeds), questions, progress)
    skipped: dict[str, str] = {}
    rows: list[Row] = []
    for name in models:
        try:
            rows += table.rows(name)
        except NotApplicable as reason:
            skipped[name] = str(reason)
            progress(f"{name}: left out: {reason}")
    facts = {
        "pairs": "titles, for nobody searches" if split.of_titles else "searches",
        "cut": f"{split.cut:%Y-%m-%d}",
        "learned_pairs": len(split.train),
        "learned_queries": len(split.train.queries),
        **{f"{name}_queries": len(asked) for name, asked in questions.items()},
        "pins": len(candidates),
    }
    used = tuple(name for name in table.slices if any(row.ranking == name for row in rows))
    return Report(
        "search",
        {name: table.slices[name].words for name in used},
        (RECALL, NDCG, MRR),
        facts,
        tuple(rows),
        skipped,
        against,
        unit="query",
    )


@dataclass(frozen=True)
class _Slice:
    question: str
    kept: NDArray[np.bool_]
    words: str


class _Table:
    """Every model fitted once under each of its seeds, for its own rows and the hybrids it is part of."""

    def __init__(
        self,
        known: Known,
        models: Mapping[str, Model],
        seeds: tuple[int, ...],
        questions: Mapping[str, JudgedQueries],
        progress: Progress,
    ) -> None:
        self._known, self._models, self._seeds = known, models, seeds
        self._questions, self._progress = questions, progress
        self.slices = _slices(known, questions)
        self._answers: dict[tuple[str, int], dict[str, Ints]] = {}
        self._fusions: dict[tuple[str, int], SearchFusion] = {}
        self._spent: dict[str, list[float]] = {}

    def rows(self, name: str) -> list[Row]:
        """One a slice. Raises NotApplicable where the data does not allow the model."""
        runs = self._runs(name)
        metrics: dict[str, dict[str, Values]] = {}
        for question, asked in self._questions.items():
            of_runs = [query_metrics(self._answer(name, seed)[question][:, :K], asked) for seed in runs]
            shown = (RECALL, NDCG, MRR) if question == LATER else (NDCG, MRR)
            metrics[question] = {m: np.stack([run[m] for run in of_runs]) for m in shown}
        seeded = tuple(runs) if self._seeded(name) else ()
        spent = self._spent.get(name, [0.0, 0.0])
        first = metrics[LATER][RECALL].mean()
        self._progress(f"{name}: {RECALL} {first:.4f}, {spent[0]:.0f} s to fit")
        return [
            Row(
                name,
                title,
                {m: v[:, part.kept] for m, v in metrics[part.question].items()},
                seeded,
                0,
                *spent,
            )
            for title, part in self.slices.items()
        ]

    def _seeded(self, name: str) -> bool:
        model = self._models[name]
        if isinstance(model, Hybrid):
            return any(self._seeded(part) for part in model.parts)
        return isinstance(model, Seeded)

    def _runs(self, name: str) -> Sequence[int]:
        model = self._models[name]
        if not isinstance(model, Hybrid):
            return runs_of(model, self._seeds)
        absent = [part for part in model.parts if part not in self._models]
        if absent:
            raise NotApplicable(f"it fuses {' and '.join(model.parts)}; add {', '.join(absent)}")
        return self._seeds if self._seeded(name) else self._seeds[:1]

    def _answer(self, name: str, seed: int) -> dict[str, Ints]:
        """By question, (q, LISTED)."""
        model = self._models[name]
        if not isinstance(model, Hybrid) and not isinstance(model, Seeded):
            seed = self._seeds[0]
        if (name, seed) not in self._answers:
            start = time.perf_counter()
            if isinstance(model, Hybrid):
                parts = [self._answer(part, seed) for part in model.parts]
                how = self._fusions.get((model.meaning, seed), SearchFusion())
                fit_s, start = 0.0, time.perf_counter()
                found = {
                    q: fused([part[q] for part in parts], how.weights, LISTED, how.damping)
                    for q in self._questions
                }
            else:
                answer = variants_of(model, seed)[0](self._known)
                fit_s = time.perf_counter() - start
                if isinstance(answer, ByMeaning):
                    self._fusions[name, seed] = answer.fusion
                found = {q: answer(asked.queries) for q, asked in self._questions.items()}
            if isinstance(model, Seeded):
                first = query_metrics(found[LATER][:, :K], self._questions[LATER])[RECALL].mean()
                self._progress(f"{name}, seed {seed}: {RECALL} {first:.4f}")
            spent = self._spent.setdefault(name, [0.0, 0.0])
            spent[0] += fit_s
            spent[1] += time.perf_counter() - start - fit_s
            self._answers[name, seed] = found
        return self._answers[name, seed]


def _slices(known: Known, questions: Mapping[str, JudgedQueries]) -> dict[str, _Slice]:
    """By title; a question's slices follow it."""
    split = known.world.split
    days = "newest titles" if split.of_titles else f"queries from {split.cut:%Y-%m-%d} on"
    said = {LATER: f"{days}, answered by what people engaged with", JUDGED: "judged queries, graded"}
    texts = dict(zip(known.world.candidates.tolist(), known.world.texts(), strict=True))
    asked_before = _volume(known)
    half = _half(np.array(sorted(asked_before.values(), reverse=True)))
    out: dict[str, _Slice] = {}
    for question, asked in questions.items():
        volume = np.array([asked_before.get(query, 0) for query in asked.queries])
        parts = {
            UNSEEN: (volume == 0, "nobody made them before the cut"),
            REWORDED: (_reworded(asked, texts), "most of the best answers have none of their words"),
        }
        if question == LATER:
            parts[HEAD] = (volume >= half, "the most made, half of the pairs before the cut")
            parts[TAIL] = ((volume > 0) & (volume < half), "made before, but less often")
        out[question] = _Slice(question, np.ones(len(asked), bool), f"{len(asked)} {said[question]}")
        for name, (kept, why) in parts.items():
            if kept.sum() >= FEWEST:
                out[f"{question}, {name}"] = _Slice(question, kept, f"{int(kept.sum())} of them: {why}")
    return out


def _volume(known: Known) -> dict[str, int]:
    """Pairs of each query before the cut."""
    train = known.world.split.train
    counts = np.bincount(train.query, minlength=len(train.queries))
    return dict(zip(train.queries, counts.tolist(), strict=True))


def _half(counts: Ints) -> int:
    """The least count among the largest that together hold half of all; counts descend."""
    if not len(counts):
        return 1
    return int(counts[np.searchsorted(np.cumsum(counts), counts.sum() / 2)])


def _reworded(asked: JudgedQueries, texts: Mapping[int, str]) -> NDArray[np.bool_]:
    """(q,): most of the answers of the highest relevance say none of the query's words."""
    held: dict[int, set[str]] = {}
    out = np.zeros(len(asked), bool)
    for row, query in enumerate(asked.queries):
        at = slice(asked.offsets[row], asked.offsets[row + 1])
        best = asked.pins[at][asked.relevance[at] == asked.relevance[at].max()].tolist()
        said = set(words(query))
        for pin in best:
            if pin not in held:
                held[pin] = set(words(texts[pin]))
        out[row] = sum(bool(said & held[pin]) for pin in best) < len(best) / 2
    return out
