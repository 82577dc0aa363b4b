"""A trained query encoder: what a version holds, and what search serves queries with."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.models.searchsage.config import Pooling
from training.models.searchsage.network import QueryTower
from training.models.searchsage.runtime import Eager, Onnx, Runtime, export, installed
from training.models.searchsage.tokens import QueryTokens, by_length
from training.models.weights import load_network, save_network

Floats = NDArray[np.float32]

log = logging.getLogger(__name__)

FILES = "searchsage"
"""Name of the two files of a saved tower; the tokenizer has a third."""
GRAPH = "searchsage.onnx"
"""The tower exported, so that loading a version traces nothing: that holds up every thread for seconds."""

BATCH = 64
LEAST_KNOWN = 0.5
"""Share of a query's letters (`QueryTokens.known`) below which its vector says nothing of it."""


class QueryEncoder:
    """Queries to unit vectors among the pins of a space, by torch as it is or exported (`exported`).

    One may be read by several threads at once.
    """

    def __init__(
        self, tower: QueryTower, tokens: QueryTokens, stands_on: str, *, longest: int, origin: str
    ) -> None:
        self.tower = tower.eval()
        self.tokens = tokens
        self.stands_on = stands_on
        """The space of pins that it learned against, or the newest of those that they were joined from,
        `pinsage@3`."""
        self.longest = longest
        self.origin = origin
        """The encoder it was fine-tuned from, `name version`, or `scratch`."""
        self.runtime: Runtime = Eager(self.tower)

    @property
    def dimension(self) -> int:
        return self.tower.dimension

    def encode(self, queries: Sequence[str]) -> Floats:
        """Vectors of `queries`, (n, dimension) float32, unit rows.

        Any string is taken; what lies past the longest input is cut off, and an empty one has a vector that
        means nothing (refusing it is the caller's). Equal queries have equal rows; a row depends on its batch
        only by rounding (1e-6). Threads are torch's own
        setting, one where exported.
        """
        out = np.empty((len(queries), self.dimension), np.float32)
        for rows, ids in by_length(self.tokens(queries), BATCH):
            out[rows] = self.runtime(ids)
        return out

    def reads(self, query: str) -> bool:
        """Whether the encoder's vocabulary knows most of the query: the vector of another means nothing."""
        return self.tokens.known(query) >= LEAST_KNOWN

    def exported(self) -> QueryEncoder:
        """The same, run by ONNX Runtime on one thread. Raises ImportError without the `onnx` extra, and
        ExportDiffers."""
        out = QueryEncoder(self.tower, self.tokens, self.stands_on, longest=self.longest, origin=self.origin)
        out.runtime = Onnx(export(self.tower))
        return out

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), settings (JSON) and `tokenizer.json` into `folder`; the exported tower
        too, where the `onnx` extra is installed and takes this transformer."""
        settings = {
            "space": self.stands_on,
            "dimension": self.dimension,
            "pooling": self.tower.pooling.value,
            "longest": self.longest,
            "origin": self.origin,
            "transformer": self.tower.transformer_settings(),
        }
        save_network(self.tower, folder, FILES, settings)
        self.tokens.save(folder)
        if installed():
            try:
                (folder / GRAPH).write_bytes(export(self.tower))
            except RuntimeError as reason:  # torch's vectors are the same
                log.warning("queries will be encoded by torch as it is: %s", reason)

    @classmethod
    def load(cls, folder: Path) -> QueryEncoder:
        """The encoder saved in `folder`, run by ONNX Runtime where it was exported and the `onnx` extra is
        installed. Nothing else is read or downloaded.

        Raises FileNotFoundError where there is none, TransformersMissing where the package is not installed.
        """
        saved = json.loads((folder / f"{FILES}.json").read_text())
        tower = load_network(
            folder,
            FILES,
            lambda s: QueryTower.rebuilt(s["transformer"], s["dimension"], Pooling(s["pooling"])),
        )
        tokens = QueryTokens.load(folder, saved["longest"])
        made = cls(tower, tokens, saved["space"], longest=saved["longest"], origin=saved["origin"])
        if not installed():
            return made
        try:
            made.runtime = Onnx(folder / GRAPH)
        except Exception as reason:  # ONNX Runtime has a dozen kinds; torch's vectors are the same
            log.warning("torch encodes queries, at a quarter of the speed: %s: %s", folder / GRAPH, reason)
        return made
