"""Sequences without their padding: tokens of several buckets as rows of one matrix, for products to be one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bucket:
    """B sequences of at most L tokens, t in all."""

    real: Tensor  # (B, L) bool: the places that hold a token
    starts: Tensor  # (B,) row of t where each sequence begins
    places: Tensor | None  # (t,) which of B x L those are; None where all are
    sources: Tensor | None  # (B x L,) row of t that stands at each place, in padding the newest; None as above

    @classmethod
    def of(cls, lengths: Tensor) -> Bucket:
        """Sequences of `lengths` (B,) int64, at least 1 each, padded to their longest."""
        place, starts = torch.arange(int(lengths.max())), lengths.cumsum(0) - lengths
        real = place < lengths[:, None]
        if real.all():
            return cls(real, starts, None, None)
        sources = starts[:, None] + torch.minimum(place, lengths[:, None] - 1)
        return cls(real, starts, real.flatten().nonzero()[:, 0], sources.flatten())

    @property
    def tokens(self) -> int:
        """t."""
        return self.real.numel() if self.places is None else len(self.places)

    def rows(self, x: Tensor) -> Tensor:
        """(B, L, W) -> (t, W); of x that is padded further, no more is read."""
        flat = x[:, : self.real.shape[1]].flatten(0, 1)
        return flat if self.places is None else flat.index_select(0, self.places)

    def padded(self, rows: Tensor) -> Tensor:
        """(t, W) -> (B, L, W)."""
        flat = rows if self.sources is None else rows.index_select(0, self.sources)
        return flat.view(*self.real.shape, -1)


@dataclass(frozen=True)
class Packing:
    """The T rows of several buckets: bucket after bucket, sequence after sequence, oldest first."""

    buckets: tuple[Bucket, ...]

    @classmethod
    def of(cls, lengths: Sequence[Tensor]) -> Packing:
        """Of buckets of sequences of those lengths."""
        return cls(tuple(Bucket.of(some) for some in lengths))

    @property
    def newest(self) -> Tensor:
        """Row of each sequence's newest token, (U,)."""
        return torch.cat([bucket.real.sum(dim=1) for bucket in self.buckets]).cumsum(0) - 1

    def rows(self, padded: Iterable[Tensor]) -> Tensor:
        """(B, L, W) of every bucket -> (T, W)."""
        parts = [bucket.rows(x) for bucket, x in zip(self.buckets, padded, strict=True)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def padded(self, rows: Tensor) -> Iterator[Tensor]:
        """(T, W) -> (B, L, W) of every bucket; padding repeats the newest."""
        parts = rows.split([bucket.tokens for bucket in self.buckets])
        return (bucket.padded(part) for bucket, part in zip(self.buckets, parts, strict=True))
