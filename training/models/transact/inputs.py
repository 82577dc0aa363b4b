"""What the ranker reads: one row a (request, candidate pin)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """A batch of rows; pins are named by their place in `content`."""

    content: Tensor  # (n, P) float32 content vectors of the batch's pins, unit; row 0 is zero: no vector known
    pins: Tensor  # (B, L) int64 places in content, newest action first
    actions: Tensor  # (B, L) int64 action codes, 0 where there is none (padding, behind the oldest)
    surfaces: Tensor  # (B, L) int64 codes, 0 for none
    times_ms: Tensor  # (B, L) int64 Unix ms
    request_ms: Tensor  # (B,) int64
    candidates: Tensor  # (B,) int64 places in content
    features: Tensor  # (B, F) float32 in the order of the network's FeatureSpec; NaN counts as 0
    users: Tensor  # (B, U) float32 long-term vectors, unit, zero where the user has none; U may be 0
    recent: Tensor | None = None
    """(B, L) int64: 1 for the newest realtime action, 2 for the one before..., 0 for others. None: all are."""
    negatives: Tensor | None = None
    """(B, N) int64 places of pins shown to the user and not acted on, 0 for none; the next-action loss's."""

    def __len__(self) -> int:
        return len(self.candidates)
