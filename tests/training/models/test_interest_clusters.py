"""The compiled Ward against scipy's, its medoids against their definition, its float32 against its bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from training.models import interest_kernels
from training.models.interest_clusters import Limits, cluster_users, medoids, squared_distances, ward_labels


def first_members(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """A partition named by each cluster's first member: equal partitions become equal arrays."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return first[inverse]


def scipy_ward(vectors: NDArray[np.float32], alpha: float) -> NDArray[np.int64]:
    return fcluster(linkage(vectors.astype(np.float64), "ward"), np.sqrt(alpha), "distance")


def planted(rng: np.random.Generator, m: int, dim: int = 32, topics: int = 6, noise: float = 0.5):
    centres = rng.standard_normal((topics, dim))
    topic = rng.integers(0, topics, m)
    vectors = centres[topic] + noise * rng.standard_normal((m, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), topic


@given(
    m=st.integers(2, 120),
    dim=st.integers(1, 24),
    noise=st.floats(0.05, 2.0),
    quantile=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=150, deadline=None)
def test_ward_gives_scipys_partition_at_any_cut(m: int, dim: int, noise: float, quantile: float, seed: int):
    vectors, _ = planted(np.random.default_rng(seed), m, dim, noise=noise)
    heights = np.sort(linkage(vectors.astype(np.float64), "ward")[:, 2] ** 2)
    # Between two merges' heights, so that the last digits do not decide; below the first, above the last.
    edges = np.concatenate([[heights[0] / 2], heights, [heights[-1] * 2 + 1e-9]])
    low = int(quantile * (len(edges) - 2))
    if edges[low + 1] - edges[low] < 1e-9:
        return
    alpha = (edges[low] + edges[low + 1]) / 2
    np.testing.assert_array_equal(
        first_members(ward_labels(vectors, alpha)), first_members(scipy_ward(vectors, alpha))
    )


@pytest.mark.parametrize("dim", [2, 16, 256])
def test_ward_gives_scipys_partition_at_every_size(dim: int):
    rng = np.random.default_rng(dim)
    for m in (*range(2, 140), 191, 192, 193, 255, 256, 257, 320, 449):
        vectors, _ = planted(rng, m, dim, noise=float(rng.choice([0.1, 0.5, 2.0])))
        tree = linkage(vectors.astype(np.float64), "ward")
        edges = np.concatenate([[0.0], tree[:, 2] ** 2, [2 * tree[-1, 2] ** 2 + 1]])
        for cut in {0, m // 3, m // 2, m - 1}:
            low, high = edges[cut], edges[cut + 1]
            if high - low < 1e-12 * high:
                continue
            alpha = (low + high) / 2
            expected = first_members(fcluster(tree, np.sqrt(alpha), "distance"))
            np.testing.assert_array_equal(first_members(ward_labels(vectors, alpha)), expected, f"m = {m}")


def test_choices_within_float32_noise_are_made_in_float64():
    """Pairs whose distances differ in the ninth digit: float32 cannot tell which is nearer, scipy can."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        ends = rng.standard_normal((8, 64))
        near = ends + 0.3 * rng.standard_normal((8, 64)) / 8
        third = near + (near - ends) * (1 + 1e-4 * rng.standard_normal((8, 1)))
        vectors = np.concatenate([ends, near, third]).astype(np.float32)
        heights = np.sort(linkage(vectors.astype(np.float64), "ward")[:, 2] ** 2)
        alpha = (heights[7] + heights[8]) / 2
        np.testing.assert_array_equal(
            first_members(ward_labels(vectors, alpha)), first_members(scipy_ward(vectors, alpha))
        )


def test_a_cut_within_float32_noise_of_a_height_is_decided_in_float64():
    vectors, _ = planted(np.random.default_rng(5), 60, dim=64)
    for height in linkage(vectors.astype(np.float64), "ward")[:, 2] ** 2:
        for alpha in (height * (1 - 1e-11), height * (1 + 1e-11)):
            np.testing.assert_array_equal(
                first_members(ward_labels(vectors, alpha)), first_members(scipy_ward(vectors, alpha))
            )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_vectors_need_not_be_unit(scale: float):
    vectors, _ = planted(np.random.default_rng(6), 300, dim=32, topics=12)
    vectors = (
        vectors * np.float32(scale) * np.random.default_rng(7).uniform(0.2, 5, (300, 1)).astype(np.float32)
    )
    for alpha in np.array([0.1, 1.0, 10.0]) * scale**2:
        np.testing.assert_array_equal(
            first_members(ward_labels(vectors, alpha)), first_members(scipy_ward(vectors, alpha))
        )


@pytest.mark.parametrize("m", [500, 1500])
def test_ward_gives_scipys_partition_on_long_histories(m: int):
    vectors, _ = planted(np.random.default_rng(m), m, dim=64, topics=40)
    for alpha in (0.3, 1.0, 3.0, 20.0):
        np.testing.assert_array_equal(
            first_members(ward_labels(vectors, alpha)), first_members(scipy_ward(vectors, alpha))
        )


def test_ward_keeps_repeated_points_together():
    vectors, _ = planted(np.random.default_rng(3), 30)
    repeated = np.repeat(vectors, 4, axis=0)
    labels = ward_labels(repeated, 1e-6)
    np.testing.assert_array_equal(labels.reshape(30, 4), np.tile(labels[::4, None], (1, 4)))
    np.testing.assert_array_equal(first_members(labels), first_members(scipy_ward(repeated, 1e-6)))


def test_ward_terminates_when_every_distance_is_equal():
    labels = ward_labels(np.eye(40, dtype=np.float32), 1.99)
    assert len(np.unique(labels)) == 40
    assert len(np.unique(ward_labels(np.eye(40, dtype=np.float32), 1e9))) == 1


@pytest.mark.parametrize("m", [0, 1])
def test_ward_of_less_than_two_points(m: int):
    np.testing.assert_array_equal(ward_labels(np.ones((m, 4), np.float32), 1.0), np.zeros(m))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_ward_names_a_vector_that_is_not_finite(broken: float):
    vectors, _ = planted(np.random.default_rng(0), 20)
    vectors[13, 2] = broken
    with pytest.raises(ValueError, match="vector 13 is not finite"):
        ward_labels(vectors, 1.0)


def test_ties_end_in_a_partition_that_a_cut_between_heights_defines():
    """A grid: every distance tied. Within `alpha` of the grid step all merge somehow; below it, none."""
    grid = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), -1).reshape(-1, 2).astype(np.float32)
    assert len(np.unique(ward_labels(grid, 0.999))) == 64
    labels = ward_labels(grid, 1.0)
    assert 32 <= len(np.unique(labels)) <= 63
    for cluster in np.unique(labels):
        members = grid[labels == cluster]
        assert len(members) <= 2
        assert pdist(members, "sqeuclidean").max(initial=0.0) <= 1.0
    pairs = np.repeat(grid * 10, 2, axis=0) + np.tile([[0, 0], [0.5, 0]], (64, 1)).astype(np.float32)
    np.testing.assert_array_equal(ward_labels(pairs, 1.0), np.repeat(np.arange(64), 2))


def test_labels_are_numbered_in_order_of_appearance():
    vectors, _ = planted(np.random.default_rng(0), 60)
    labels = ward_labels(vectors, 1.0)
    _, first = np.unique(labels, return_index=True)
    assert (np.diff(first) > 0).all()


def test_medoid_is_the_member_with_the_least_summed_squared_distance():
    vectors, _ = planted(np.random.default_rng(1), 80)
    labels = ward_labels(vectors, 2.0)
    distances = ((vectors[:, None].astype(np.float64) - vectors[None]) ** 2).sum(-1)
    for cluster, medoid in enumerate(medoids(vectors, labels)):
        members = np.flatnonzero(labels == cluster)
        assert medoid == members[distances[np.ix_(members, members)].sum(1).argmin()]


def test_squared_distances_against_the_definition():
    vectors, _ = planted(np.random.default_rng(2), 20)
    expected = ((vectors[:, None].astype(np.float64) - vectors[None]) ** 2).sum(-1)
    np.fill_diagonal(expected, np.inf)
    np.testing.assert_allclose(squared_distances(vectors), expected, atol=1e-6)


def test_medoid_of_two_and_of_copies_is_the_earlier_row():
    vectors, _ = planted(np.random.default_rng(4), 10)
    np.testing.assert_array_equal(medoids(vectors[:2], np.zeros(2, np.int64)), [0])
    copies = np.concatenate([vectors[:1], np.repeat(vectors[1:2], 5, axis=0)])
    np.testing.assert_array_equal(medoids(copies, np.zeros(6, np.int64)), [1])


def test_float32_distances_stay_within_a_quarter_of_the_slack_that_choices_allow_for():
    rng = np.random.default_rng(11)
    for m in (300, 900):
        vectors, _ = planted(rng, m, dim=256, topics=m // 20)
        double = vectors.astype(np.float64)
        squares = (double**2).sum(1)
        exact = squares[:, None] + squares - 2 * double @ double.T
        np.fill_diagonal(exact, np.inf)
        error = np.abs(squared_distances(vectors)[exact < np.inf] - exact[exact < np.inf]).max()
        leaf = 16 * np.sqrt(256) * interest_kernels.UNIT * squares.max()
        assert 0 < error < leaf / 4


def test_importances_sizes_and_medoids_of_one_user_by_hand():
    vectors = np.array([[1, 0], [0.99, 0.01], [0, 1], [0, 0]], np.float32)
    day = interest_kernels.MS_PER_DAY
    now = int(1000 * day)
    times = now - np.array([100, 10, 3, 2, 1]) * int(day)
    rows = np.array([0, 1, 2, 3, 0])
    found = cluster_users(
        rows + 1, vectors, rows, times, np.array([0, 5]), Limits(0, now, now, 0.01, 0.1, 99, 99, 4)
    )
    assert found.counts.tolist() == [2]
    np.testing.assert_allclose(
        found.importances[0, :2], [np.exp(-1.0) + np.exp(-0.1) + np.exp(-0.01), np.exp(-0.03)], rtol=1e-12
    )
    assert found.sizes[0].tolist() == [2, 1, 0, 0]
    assert found.actions[0, :2].tolist() == [4, 2]


def test_a_users_medoids_are_those_of_its_labels():
    m = 120
    vectors, _ = planted(np.random.default_rng(12), m)
    rows, now = np.arange(m), m * 1000
    limits = Limits(0, now, now, 0.01, 1.0, m, m, m)
    found = cluster_users(rows + 1, vectors, rows, rows * 1000, np.array([0, m]), limits)
    newest_first = vectors[::-1]
    labels = ward_labels(newest_first, 1.0)
    expected = m - 1 - medoids(newest_first, labels)
    kept = found.counts[0]
    assert kept == len(expected) and found.sizes[0].max() > 2
    np.testing.assert_array_equal(np.sort(found.actions[0, :kept]), np.sort(expected))
