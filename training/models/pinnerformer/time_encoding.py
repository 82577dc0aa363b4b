"""When an action happened, as 155 numbers: 25 of absolute time, 65 each of two distances (paper, section 3.1).

A time t becomes cos(2 pi t / p + phi) and sin(2 pi t / p + phi) for each period p, with a learned phase phi a
period, and log(t). Periods divide in float64: Unix time in float32 would be right to two minutes only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

HOUR, DAY = 3_600.0, 86_400.0

ABSOLUTE_PERIODS = tuple(HOUR * h for h in (0.25, 0.5, 0.75, 1, 2, 4, 8, 16)) + tuple(
    DAY * d for d in (1, 7, 28, 365)
)
"""Seconds, 12."""

RELATIVE_PERIODS = tuple((28 * DAY) ** (i / 31) for i in range(32))
"""Seconds, 32, evenly spaced in their logarithm from one second to four weeks."""

WIDTHS = (2 * len(ABSOLUTE_PERIODS) + 1, 2 * len(RELATIVE_PERIODS) + 1, 2 * len(RELATIVE_PERIODS) + 1)
WIDTH = sum(WIDTHS)

_LOG_CENTRES = (math.log(1.7e9), 9.0, 5.0)
"""Taken off the logs, so that none of them starts as a constant that drowns the token's other features."""


class Periods(nn.Module):
    """One time value as 2 x periods + 1 numbers."""

    def __init__(self, periods: tuple[float, ...], log_centre: float) -> None:
        super().__init__()
        self.register_buffer("periods", torch.tensor(periods, dtype=torch.float64), persistent=False)
        self.phases = nn.Parameter(torch.zeros(len(periods)))
        self.log_centre = log_centre

    def forward(self, seconds: Tensor) -> Tensor:
        """(...) float64, not negative -> (..., 2 x periods + 1) float32."""
        turns = (seconds[..., None] / self.periods).frac().float()
        angles = 2 * math.pi * turns + self.phases
        log = (seconds.log1p() - self.log_centre).float()[..., None]
        return torch.cat([angles.cos(), angles.sin(), log], dim=-1)


class TimeEncoding(nn.Module):
    """All three values of every token."""

    def __init__(self) -> None:
        super().__init__()
        periods = (ABSOLUTE_PERIODS, RELATIVE_PERIODS, RELATIVE_PERIODS)
        self.values = nn.ModuleList(Periods(p, c) for p, c in zip(periods, _LOG_CENTRES, strict=True))

    def forward(self, times_ms: Tensor, lengths: Tensor) -> Tensor:
        """(B, L) int64 Unix ms, ascending within `lengths`, and (B,) -> (B, L, 155) float32.

        Time since the newest action is measured from the sequence's last token, at every token: the one
        thing an earlier token knows of a later one is how long before the last it was.
        """
        newest = times_ms.gather(1, (lengths - 1).clamp(min=0)[:, None])  # (B, 1)
        previous = torch.cat([times_ms[:, :1], times_ms[:, :-1]], dim=1)
        values = (times_ms, newest - times_ms, times_ms - previous)
        encoded = [
            encode(value.clamp(min=0).double() / 1000)
            for encode, value in zip(self.values, values, strict=True)
        ]
        return torch.cat(encoded, dim=-1)
