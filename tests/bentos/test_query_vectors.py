"""Queries that meet are encoded together, once each, and kept within bounds."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bentos.query_vectors import TOGETHER, QueryVectors
from tests.bentos.planted_search import PlantedEncoder
from validation.queries import LOGGED_QUERY


def test_a_query_is_encoded_once() -> None:
    encoder = PlantedEncoder()
    queries = QueryVectors(encoder)
    np.testing.assert_array_equal(queries.of("cake"), queries.of("cake"))
    np.testing.assert_array_equal(queries.of("cake"), PlantedEncoder().encode(["cake"])[0])
    assert encoder.passes == [["cake"]]


def test_what_comes_during_a_pass_shares_the_next() -> None:
    encoder = PlantedEncoder(gate=threading.Event())
    queries = QueryVectors(encoder)
    asked = ["cake", *(f"query {i % 5}" for i in range(20))]
    with ThreadPoolExecutor(len(asked)) as pool:
        first = pool.submit(queries.of, "cake")
        while not encoder.passes:
            pass
        rest = [pool.submit(queries.of, query) for query in asked]
        while len(queries._waiting) < 5:
            pass
        encoder.gate.set()
        vectors = [done.result(10) for done in rest]
    assert [sorted(made) for made in encoder.passes] == [["cake"], [f"query {i}" for i in range(5)]]
    np.testing.assert_array_equal(first.result(), vectors[0])


def test_a_pass_has_a_bound() -> None:
    encoder = PlantedEncoder(gate=threading.Event())
    queries = QueryVectors(encoder)
    asked = [f"query {i}" for i in range(TOGETHER + 3)]
    with ThreadPoolExecutor(len(asked) + 1) as pool:
        pool.submit(queries.of, "cake")
        while not encoder.passes:
            pass
        done = [pool.submit(queries.of, query) for query in asked]
        while len(queries._waiting) < len(asked):
            pass
        encoder.gate.set()
        assert all(one.result(10).shape == (encoder.dimension,) for one in done)
    assert [len(made) for made in encoder.passes] == [1, TOGETHER, 3]


def test_those_not_asked_for_longest_are_forgotten() -> None:
    encoder = PlantedEncoder()
    queries = QueryVectors(encoder, remembered=2)
    for query in ("a", "b", "a", "c", "a", "b"):
        queries.of(query)
    assert [made[0] for made in encoder.passes] == ["a", "b", "c", "b"]


def test_long_queries_are_not_kept() -> None:
    encoder = PlantedEncoder()
    queries = QueryVectors(encoder)
    long = "cake " * LOGGED_QUERY
    np.testing.assert_array_equal(queries.of(long), queries.of(long))
    assert len(encoder.passes) == 2


def test_an_encoder_that_fails_is_asked_again() -> None:
    encoder = PlantedEncoder(broken=True)
    queries = QueryVectors(encoder)
    with pytest.raises(RuntimeError, match="broken"):
        queries.of("cake")
    encoder.broken = False
    assert queries.of("cake").any()
