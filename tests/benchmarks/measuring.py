"""What the benchmarks measure with: sides that take turns, float32 precision, and the machine in a line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch

from training.cpu import CpuSettings

Name = TypeVar("Name")
Made = TypeVar("Made")


def in_turns(
    sides: Mapping[Name, Callable[[], Made]], rounds: int, clock: Callable[[], float] = time.process_time
) -> tuple[dict[Name, list[float]], dict[Name, Made]]:
    """CPU seconds of each side in each of `rounds`, sides taking turns, and what each made last.

    One round first is not counted. `clock` is a process's CPU time, or a thread's.
    """
    spent: dict[Name, list[float]] = {name: [] for name in sides}
    made: dict[Name, Made] = {}
    for round_ in range(rounds + 1):
        for name, side in sides.items():
            begin = clock()
            made[name] = side()
            if round_:
                spent[name].append(clock() - begin)
    return spent, made


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """float32 matrix products at `precision` while inside; `medium` only where tune_cpu found it faithful."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision if before == "medium" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def machine(settings: CpuSettings, products: str) -> str:
    """CPU, torch, settings and load; `products` says what matrix products are computed in."""
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    return (
        f"{model}; torch {torch.__version__}, 1 thread, heap kept: {settings.kept_heap}, {products}; "
        f"OPENBLAS_CORETYPE {os.environ.get('OPENBLAS_CORETYPE', 'unset')}; load {load}"
    )
