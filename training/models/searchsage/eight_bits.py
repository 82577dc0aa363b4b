"""Weights of an exported graph in eight bits, in blocks that have a scale each.

A query is a few tokens, and most of its time goes into reading weights. One scale a matrix and one a layer's
inputs, as in ONNX Runtime's dynamic quantisation, is faster still and takes vectors too far (cosine .98).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import NodeProto

BLOCK = 16
"""Weights, and inputs beside them, that share a scale: the least that ONNX Runtime takes."""
MIDDLE, MOST = 128, 127
BY_INTEGERS = 4
"""ONNX Runtime's name for products of eight-bit inputs with eight-bit weights."""
DOMAIN = "com.microsoft"


def in_eight_bits(graph: bytes) -> bytes:
    """The ONNX graph, each product with a float32 matrix of a multiple of BLOCK rows made ONNX Runtime's
    MatMulNBits; the matrix may be off by half its block's scale."""
    from onnx import helper, load_from_string, numpy_helper

    model = load_from_string(graph)
    nodes, weights = model.graph.node, model.graph.initializer
    matrices = {weight.name: weight for weight in weights}
    for node in nodes:
        if node.op_type != "MatMul" or node.input[1] not in matrices:
            continue
        name, matrix = node.input[1], numpy_helper.to_array(matrices[node.input[1]])
        if matrix.dtype == np.float32 and matrix.ndim == 2 and len(matrix) % BLOCK == 0:
            parts = {f"{name}/{part}": array for part, array in zip("qs", blocks(matrix), strict=True)}
            known = {weight.name for weight in weights}
            weights.extend(numpy_helper.from_array(a, part) for part, a in parts.items() if part not in known)
            _replace(node, list(parts), matrix.shape)
    read = {name for node in nodes for name in node.input}
    kept = [weight for weight in weights if weight.name in read]
    del weights[:]
    weights.extend(kept)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return model.SerializeToString()


def blocks(matrix: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A matrix (k, n) as integers (n, k / BLOCK, BLOCK) around MIDDLE, and the step of each block, flat."""
    parted = matrix.T.reshape(matrix.shape[1], -1, BLOCK)
    scales = np.maximum(np.abs(parted).max(axis=2), np.finfo(np.float32).tiny * MOST) / MOST
    integers = np.rint(parted / scales[:, :, None]) + MIDDLE
    return integers.astype(np.uint8), scales.astype(np.float32).ravel()


def _replace(node: NodeProto, parts: list[str], shape: tuple[int, ...]) -> None:
    from onnx import helper

    made = helper.make_node(
        "MatMulNBits",
        [node.input[0], *parts],
        list(node.output),
        node.name,
        domain=DOMAIN,
        K=shape[0],
        N=shape[1],
        bits=8,
        block_size=BLOCK,
        accuracy_level=BY_INTEGERS,
    )
    node.CopyFrom(made)
