"""Meaning and words count what finds most of the checked queries, and are served as they were measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.evaluation.blending import LISTED, fused
from training.evaluation.judged_queries import JudgedQueries
from training.models.search_fusion import SearchFusion
from training.models.source_lists import SourceList, fuse
from training.searchsage.fusing import chosen_fusion

QUERIES = 60


def asked(answers: np.ndarray) -> JudgedQueries:
    """A query for each of the pins `answers` (q, n)."""
    owner = np.repeat(np.arange(len(answers)), answers.shape[1])
    queries = [f"query {i}" for i in range(len(answers))]
    pins = answers.ravel()
    return JudgedQueries.of(queries, owner, pins, np.ones(len(pins)), np.unique(pins))


def lists(answers: np.ndarray, right: np.ndarray, seed: int) -> np.ndarray:
    """(q, LISTED): a query's answers first where the list is right about it, else pins that answer nothing."""
    noise = 10_000 * (seed + 1) + np.random.default_rng(seed).permutation(LISTED * len(answers))
    out = noise.reshape(len(answers), LISTED)
    out[right, : answers.shape[1]] = answers[right]
    return out


@pytest.mark.parametrize("meaning_knows", [0.9, 0.1])
def test_the_list_that_finds_most_counts_most(meaning_knows: float) -> None:
    """Eight answers have no room beside as many of the other list's pins."""
    answers = np.arange(1, 8 * QUERIES + 1).reshape(QUERIES, 8)
    knows = np.arange(QUERIES) < meaning_knows * QUERIES
    meaning, words = lists(answers, knows, 1), lists(answers, ~knows, 2)
    fusion, recall = chosen_fusion(meaning, words, asked(answers))
    assert (fusion.meaning > 0.5) == (meaning_knows > 0.5)
    assert recall >= max(meaning_knows, 1 - meaning_knows)


def test_equally_good_weights_are_the_default() -> None:
    answers = np.arange(1, QUERIES + 1)[:, None]
    both = lists(answers, np.ones(QUERIES, bool), 1)
    assert chosen_fusion(both, both, asked(answers)) == (SearchFusion(), 1.0)


def test_what_is_served_is_what_was_measured() -> None:
    rng = np.random.default_rng(5)
    meaning, words = (rng.permutation(np.arange(1, 500))[:LISTED] for _ in range(2))
    brought = [SourceList(n, ids, np.zeros(LISTED)) for n, ids in (("meaning", meaning), ("words", words))]
    for fusion in (SearchFusion(), SearchFusion(meaning=0.8, damping=5), SearchFusion(meaning=0.3, damping=20)):
        weights = dict(zip(("meaning", "words"), fusion.weights, strict=True))
        served = np.concatenate([meaning, words])[fuse(brought, 40, weights, fusion.damping)]
        measured = fused((meaning[None], words[None]), fusion.weights, 40, fusion.damping)[0]
        assert served.tolist() == measured.tolist()


def test_what_is_saved_comes_back_and_older_versions_have_the_default(tmp_path: Path) -> None:
    chosen = SearchFusion(meaning=0.7, damping=20)
    chosen.save(tmp_path)
    assert SearchFusion.load(tmp_path) == chosen
    assert SearchFusion.load(tmp_path / "before") == SearchFusion(meaning=0.5, damping=60)
