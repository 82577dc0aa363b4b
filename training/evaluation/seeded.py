"""A model in a table: variants to tune, and whether a seed changes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

F = TypeVar("F", bound=Callable)


@dataclass(frozen=True)
class Seeded(Generic[F]):
    """A model with randomness: its variants under a seed, always the same number of them."""

    variants: Callable[[int], Sequence[F]]


def variants_of(model: F | Sequence[F] | Seeded[F], seed: int) -> list[F]:
    """The model's variants; a model without randomness takes no notice of `seed`."""
    if isinstance(model, Seeded):
        return list(model.variants(seed))
    return list(model) if isinstance(model, Sequence) else [model]


def runs_of(model: F | Sequence[F] | Seeded[F], seeds: Sequence[int]) -> Sequence[int]:
    """The seeds to fit under: all for a seeded model, one for any other. Raises ValueError without seeds."""
    if not seeds:
        raise ValueError("no seeds to fit models under; give at least one")
    return seeds if isinstance(model, Seeded) else seeds[:1]
