"""Time as 155 numbers, right to the second however large Unix time is."""

from __future__ import annotations

import math

import pytest
import torch

from training.models.pinnerformer.time_encoding import (
    ABSOLUTE_PERIODS,
    RELATIVE_PERIODS,
    WIDTH,
    WIDTHS,
    TimeEncoding,
)

NOW = 1_760_000_123_456


def encode(times_ms: list[int], length: int | None = None) -> torch.Tensor:
    times = torch.tensor([times_ms])
    lengths = torch.tensor([length or len(times_ms)])
    return TimeEncoding()(times, lengths)[0]


def test_widths_are_the_papers() -> None:
    assert WIDTHS == (25, 65, 65) and WIDTH == 155
    assert encode([NOW, NOW + 5]).shape == (2, 155)
    assert len(ABSOLUTE_PERIODS) == 12 and ABSOLUTE_PERIODS[0] == 900 and ABSOLUTE_PERIODS[-1] == 365 * 86_400
    assert len(RELATIVE_PERIODS) == 32
    assert RELATIVE_PERIODS[0] == 1 and RELATIVE_PERIODS[-1] == pytest.approx(28 * 86_400)


def test_values_are_those_of_the_formula() -> None:
    times = [NOW - 90_000_000, NOW - 3_000, NOW]
    encoding = TimeEncoding()
    with torch.no_grad():
        for value in encoding.values:
            value.phases.uniform_(-3, 3)
    got = encoding(torch.tensor([times]), torch.tensor([3]))[0]
    seconds = [
        [t / 1000 for t in times],
        [(NOW - t) / 1000 for t in times],
        [0.0, (times[1] - times[0]) / 1000, (times[2] - times[1]) / 1000],
    ]
    start = 0
    for value, expected in zip(encoding.values, seconds, strict=True):
        periods = value.periods.tolist()
        for j, (period, phase) in enumerate(zip(periods, value.phases.tolist(), strict=True)):
            for i, t in enumerate(expected):
                angle = 2 * math.pi * math.fmod(t / period, 1.0) + phase
                assert float(got[i, start + j]) == pytest.approx(math.cos(angle), abs=2e-4)
                assert float(got[i, start + len(periods) + j]) == pytest.approx(math.sin(angle), abs=2e-4)
        logs = got[:, start + 2 * len(periods)].tolist()
        assert logs == pytest.approx([math.log1p(t) - value.log_centre for t in expected], abs=1e-4)
        start += 2 * len(periods) + 1


def test_a_second_moves_the_fastest_absolute_period_by_its_angle() -> None:
    """float32 seconds of 2025 are 128 apart; the encoding is not."""
    a, b = encode([NOW])[0], encode([NOW + 1000])[0]
    turn = math.atan2(float(b[12]), float(b[0])) - math.atan2(float(a[12]), float(a[0]))
    assert math.remainder(turn, 2 * math.pi) == pytest.approx(2 * math.pi / 900, abs=1e-4)


def test_equal_timestamps_and_padding_are_finite() -> None:
    assert torch.isfinite(encode([NOW] * 5)).all()
    assert torch.isfinite(encode([NOW, NOW + 9, 0, 0], length=2)).all()
