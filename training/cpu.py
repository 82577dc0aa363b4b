"""Two settings that are worth more to torch on a CPU than most kernels: for trainers, not for services.

Both are the process's own: call them before the first large tensor, and on both sides of any comparison.
"""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass

MATMUL_ERROR = 1e-5
"""Largest relative error of a matrix product that still counts as float32."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_NEVER = 2**31 - 1


@dataclass(frozen=True)
class CpuSettings:
    """What was set, for the record of a run."""

    kept_heap: bool
    matmul: str


def tune_cpu(threads: int | None = None) -> CpuSettings:
    """Keep freed memory in the process and let float32 products use the widest float32 kernel.

    glibc returns every block above 32 MB to the kernel, and a large tensor is then faulted in anew, page by
    page, each time: twice the time of a training step. The price is that resident memory stays at its peak.
    `threads` sets torch's; None leaves them.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    return CpuSettings(keep_heap(), fast_matmul())


def keep_heap() -> bool:
    """Tell malloc to keep what is freed; False where the C library is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, _NEVER))


def fast_matmul() -> str:
    """Set torch's float32 matmul precision to `medium` where that is still float32, else `highest`.

    On CPUs without bfloat16 matrix units `medium` sends products to oneDNN's AVX-512 float32 kernel. With
    such units it would round to bfloat16, so one product is checked against float64 first.
    """
    import torch

    generator = torch.Generator().manual_seed(7)
    a, b = torch.randn(2, 256, 256, generator=generator)
    exact = a.double() @ b.double()
    torch.set_float32_matmul_precision("medium")
    error = ((a @ b).double() - exact).abs().max() / exact.abs().max()
    if error > MATMUL_ERROR:
        torch.set_float32_matmul_precision("highest")
    return torch.get_float32_matmul_precision()
