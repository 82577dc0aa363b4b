"""Shallow boosted trees as complete ones, scored by a compiled kernel in a tenth of what the library takes.

The library (xgboost) prepares a matrix for every call and takes a branch at every node of every row. Here a
tree is folded from its leaves to its root, a node at a time for some hundred rows together: a comparison and a
choice that the compiler makes of eight rows at once. That costs all nodes of a tree where a walk costs its
depth, so it is for shallow trees.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xgboost

Floats = NDArray[np.float32]

DEEPEST = 6
"""Depth up to which folding beats walking."""
_ROWS = 256
"""Rows at a time: their columns and the values being folded stay in the first cache."""


@dataclass(frozen=True)
class FoldedTrees:
    """t trees of depth d: node i has children 2i + 1 and 2i + 2; a leaf above the last level is repeated."""

    features: NDArray[np.int32]  # (t, 2^d - 1) column that a node looks at
    thresholds: Floats  # (t, 2^d - 1) smaller values go left
    missing_left: NDArray[np.bool_]  # (t, 2^d - 1) whether NaN goes left
    leaves: Floats  # (t, 2^d) what each adds to the log odds
    bias: np.float32
    """Log odds before any tree."""

    @classmethod
    def of(cls, booster: xgboost.Booster) -> FoldedTrees | None:
        """The trees of a `binary:logistic` booster with numeric splits; None of another, or where they are too
        deep."""
        learner = json.loads(bytes(booster.save_raw("json")))["learner"]
        if learner["objective"]["name"] != "binary:logistic":
            return None
        base = float(np.ravel(json.loads(learner["learner_model_param"]["base_score"]))[0])
        trees = learner["gradient_booster"]["model"]["trees"]
        depth = max((_depth(tree, 0) for tree in trees), default=0)
        if not 1 <= depth <= DEEPEST:
            return None
        shape = (len(trees), 2**depth - 1)
        made = cls(
            np.zeros(shape, np.int32),
            np.zeros(shape, np.float32),
            np.zeros(shape, bool),
            np.zeros((len(trees), 2**depth), np.float32),
            np.float32(-np.log(1 / base - 1)),
        )
        for row, tree in enumerate(trees):
            made._put(row, tree, 0, 0, depth)
        return made

    def chances(self, rows: Floats) -> Floats:
        """Probability of the positive class of each row (n, F), (n,) float32."""
        columns = np.ascontiguousarray(rows.T, np.float32)
        log_odds = _fold(columns, self.features, self.thresholds, self.missing_left, self.leaves, self.bias)
        return np.float32(1) / (np.float32(1) + np.exp(-log_odds))

    def _put(self, row: int, tree: dict[str, Any], node: int, at: int, below: int) -> None:
        """Node `node` of the library's tree and all below it at place `at`, `below` levels over the leaves."""
        value = tree["split_conditions"][node]
        if tree["left_children"][node] < 0:
            first = ((at + 1) << below) - (1 << (self.leaves.shape[1].bit_length() - 1))
            self.leaves[row, first : first + (1 << below)] = value
            return
        self.features[row, at], self.thresholds[row, at] = tree["split_indices"][node], value
        self.missing_left[row, at] = bool(tree["default_left"][node])
        self._put(row, tree, tree["left_children"][node], 2 * at + 1, below - 1)
        self._put(row, tree, tree["right_children"][node], 2 * at + 2, below - 1)


def _depth(tree: dict[str, Any], node: int) -> int:
    if tree["left_children"][node] < 0:
        return 0
    return 1 + max(_depth(tree, tree[side][node]) for side in ("left_children", "right_children"))


@numba.njit(cache=True, nogil=True)
def _fold(columns, features, thresholds, missing_left, leaves, bias):  # type: ignore[no-untyped-def]
    n, half = columns.shape[1], leaves.shape[1] // 2
    out = np.empty(n, np.float32)
    # Two, and not one folded in place: the compiler takes rows together only where none overlaps another.
    held, made = np.empty((half, _ROWS), np.float32), np.empty((half, _ROWS), np.float32)
    for start in range(0, n, _ROWS):
        size = min(_ROWS, n - start)
        total = np.full(size, bias, np.float32)
        for tree in range(len(features)):
            for k in range(half):
                node = half - 1 + k
                x = columns[features[tree, node], start : start + size]
                _pick(
                    x,
                    thresholds[tree, node],
                    missing_left[tree, node],
                    leaves[tree, 2 * k],
                    leaves[tree, 2 * k + 1],
                    held[k],
                )
            width = half
            while width > 1:
                width //= 2
                for k in range(width):
                    node = width - 1 + k
                    x = columns[features[tree, node], start : start + size]
                    _choose(
                        x,
                        thresholds[tree, node],
                        missing_left[tree, node],
                        held[2 * k],
                        held[2 * k + 1],
                        made[k],
                    )
                held, made = made, held
            first = held[0]
            for i in range(size):
                total[i] += first[i]
        for i in range(size):  # numba compiles a loop in a tenth of the time of an assignment of slices
            out[start + i] = total[i]
    return out


@numba.njit(inline="always")
def _pick(x, limit, missing_left, left, right, out):  # type: ignore[no-untyped-def]
    """One of two numbers by each x."""
    if missing_left:
        for i in range(len(x)):
            out[i] = right if x[i] >= limit else left
    else:
        for i in range(len(x)):
            out[i] = left if x[i] < limit else right


@numba.njit(inline="always")
def _choose(x, limit, missing_left, left, right, out):  # type: ignore[no-untyped-def]
    """One of two rows' values by each x."""
    if missing_left:
        for i in range(len(x)):
            a, b = left[i], right[i]  # both read, or it would be a branch
            out[i] = b if x[i] >= limit else a
    else:
        for i in range(len(x)):
            a, b = left[i], right[i]
            out[i] = a if x[i] < limit else b
