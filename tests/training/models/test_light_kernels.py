"""The kernels of light ranking against naive rules."""

from __future__ import annotations

import numpy as np

from training.models import light_kernels


def test_topics_are_counted_as_unique_counts_them() -> None:
    topics = np.random.default_rng(0).integers(-1, 9, (40, 4))
    wanted = dict(zip(*np.unique(topics[topics > 0], return_counts=True), strict=True))
    assert dict(zip(*light_kernels.counted(topics), strict=True)) == wanted
    assert [len(each) for each in light_kernels.counted(topics[:0])] == [0, 0]


def test_rows_are_dealt_by_the_naive_rule() -> None:
    rng = np.random.default_rng(0)
    for rows, width in ((1, 1), (3, 7), (5, 200)):
        ids = rng.integers(0, rows * width, (rows, width))
        scores, shares = rng.random((rows, width), np.float32), rng.integers(0, 2 * width, rows)
        wanted: dict[int, tuple[np.float32, int]] = {}
        for place in range(width):
            for row in range(rows):
                if place < shares[row] and ids[row, place]:
                    wanted.setdefault(ids[row, place], (scores[row, place], row))
        found, said, owners = light_kernels.dealt(ids, scores, shares)
        assert dict(zip(found, zip(said, owners, strict=True), strict=True)) == wanted
        assert found.tolist() == list(wanted)


def test_fit_places_by_the_naive_rule() -> None:
    rng = np.random.default_rng(0)
    for n, most in ((0, 3), (7, 3), (500, 40), (500, 500)):
        ids, scores = rng.integers(-1, max(2, n // 2), n), rng.random(n, np.float32)
        scores[rng.random(n) < 0.2] = np.nan
        fit = [i for i in range(n) if ids[i] > 0 and np.isfinite(scores[i])]
        wanted = [i for nth, i in enumerate(fit) if ids[i] not in ids[fit[:nth]]][:most]
        places, unfit = light_kernels.fit_places(ids, scores, most)
        assert places.tolist() == wanted and unfit == n - len(fit)


def test_rows_among_pins_that_stand_twice() -> None:
    rows = light_kernels.rows_among(np.array([5, 9, 3, 5]), np.array([3, 5, 5]))
    assert rows.tolist() == [2, 3, 0, 2]


def test_arrays_are_copied_only_where_no_kernel_is_compiled_for_them() -> None:
    dense = np.arange(6.0, dtype=np.float32)
    fixed = dense.copy()
    fixed.flags.writeable = False
    assert light_kernels.compiled(dense, np.float32) is dense
    for other in (dense.astype(np.float64), dense[::2], fixed, dense.tolist()):
        made = light_kernels.compiled(other, np.float32)
        assert made.dtype == np.float32 and made.flags.carray and made is not other
        np.testing.assert_array_equal(made, np.asarray(other))
