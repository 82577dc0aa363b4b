"""Queries through a tower that is being learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from training.models.searchsage.network import QueryTower
from training.models.searchsage.tokens import by_length

BLOCK = 256
"""Queries of equal length that are encoded at once."""


@contextmanager
def used_words(tower: QueryTower, ids: list[list[int]]) -> Iterator[list[list[int]]]:
    """`ids` in a vocabulary of the words they use, which the tower has while inside.

    A step then costs what it learns: the other rows get no gradient, and are most of a small encoder's weights.
    """
    words = tower.transformer.get_input_embeddings()
    padding = tower.transformer.config.pad_token_id or 0  # some encoders count positions by it, so it stays
    used = np.unique(np.concatenate([np.arange(padding + 1), *map(np.asarray, ids)])).astype(np.int64)
    few = nn.Embedding.from_pretrained(words.weight.detach()[torch.from_numpy(used)].clone(), freeze=False)
    tower.transformer.set_input_embeddings(few)
    try:
        yield [np.searchsorted(used, row).tolist() for row in ids]
    finally:
        with torch.no_grad():
            words.weight[torch.from_numpy(used)] = few.weight
        tower.transformer.set_input_embeddings(words)


def encode(tower: QueryTower, ids: Sequence[Sequence[int]]) -> Tensor:
    """(u, d) unit rows of queries of token ids, with a gradient where one is asked for."""
    rows, found = zip(*((rows, tower(torch.from_numpy(t))) for rows, t in by_length(ids, BLOCK)), strict=True)
    return torch.cat(found)[torch.from_numpy(np.argsort(np.concatenate(rows)))]
