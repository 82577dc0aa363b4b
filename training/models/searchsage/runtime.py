"""The query tower exported to ONNX Runtime: nearly the same vectors in a quarter of eager torch's time a query.

Batches hold queries of one length, so the graph has neither mask nor padding.
"""

from __future__ import annotations

import io
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from training.models.searchsage.eight_bits import in_eight_bits
from training.models.searchsage.network import QueryTower

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

log = logging.getLogger(__name__)

LEAST_COSINE = 0.999
"""Of an exported vector to the tower's own."""
PROBES, PROBED = (3, 7, 12), 16
"""Tokens of the inputs that an export is checked on, and how many of each: pieces of words at random."""
OPSET = 17


class ExportDiffers(RuntimeError):
    """The exported tower does not say what the tower says."""


class Runtime(Protocol):
    """What runs a tower."""

    name: str

    def __call__(self, ids: Ints) -> Floats:
        """(b, t) token ids of equal length -> (b, dimension) unit rows."""


class Eager:
    """torch as it is."""

    name = "torch"

    def __init__(self, tower: QueryTower) -> None:
        self._tower = tower

    def __call__(self, ids: Ints) -> Floats:
        with torch.inference_mode():
            return self._tower(torch.from_numpy(ids)).numpy()


class Onnx:
    """A graph that `export` made, on one thread of ONNX Runtime; may be called by several threads at once."""

    name = "onnxruntime"

    def __init__(self, graph: bytes | Path) -> None:
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = InferenceSession(
            graph if isinstance(graph, bytes) else str(graph), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, ids: Ints) -> Floats:
        return self._session.run(None, {"ids": ids})[0]


def export(tower: QueryTower) -> bytes:
    """The tower as an ONNX graph, traced and checked against itself: weights in eight bits where those say what
    the tower says, else as they are.

    Raises ExportDiffers, and what torch's exporter raises for a transformer that it cannot trace (a
    RuntimeError).
    """
    whole = _graph(tower.eval())
    try:
        small = in_eight_bits(whole)
        cosine = agreement(small, tower)
        if cosine >= LEAST_COSINE:
            return small
        why = f"vectors have cosine {cosine:.4f} to the tower's own"
    except Exception as reason:  # ONNX Runtime has a dozen kinds for a graph that it cannot run
        why = str(reason)
    log.warning("weights stay in 32 bits: in eight, %s", why)
    cosine = agreement(whole, tower)
    if not cosine >= LEAST_COSINE:
        raise ExportDiffers(f"the exported tower has cosine {cosine:.4f} to its own vectors")
    return whole


def agreement(graph: bytes, tower: QueryTower) -> float:
    """The least cosine of a graph's vectors to those of the tower that it was made of."""
    made, own, rng = Onnx(graph), Eager(tower), np.random.default_rng(0)
    probes = [rng.integers(0, tower.vocabulary, (PROBED, length)) for length in PROBES]
    return min(float((made(ids) * own(ids)).sum(1).min()) for ids in probes)


def installed() -> bool:
    """Whether the packages of the `onnx` extra are there."""
    return find_spec("onnx") is not None and find_spec("onnxruntime") is not None


def _graph(tower: QueryTower) -> bytes:
    graph = io.BytesIO()
    example = torch.arange(10).reshape(2, 5) % tower.vocabulary
    with warnings.catch_warnings(), torch.no_grad():
        # of shapes that a trace fixes; batches are of one length, and the probes are of others than the trace
        warnings.simplefilter("ignore")
        torch.onnx.export(
            tower,
            (example,),
            graph,
            input_names=["ids"],
            output_names=["vectors"],
            dynamic_axes={"ids": {0: "b", 1: "t"}, "vectors": {0: "b"}},
            opset_version=OPSET,
            dynamo=False,
        )
    return graph.getvalue()
