"""The kernels that cost most to compile and that a run waits for, compiled while a core has nothing else to do.

numba keeps what it compiled beside the code, so that whoever needs a kernel next loads it. Each is called on a
little of what it is given in use: the types decide what is compiled, the numbers do not.
"""

from __future__ import annotations

import multiprocessing
from contextlib import suppress

import numpy as np


def begin_compiling() -> None:
    """Compile in a process of its own, which ends as this one exits; where this one is killed, after the kernel
    that it is at. What fails there, or cannot be started at all, is left to those who need a kernel."""
    spawn = multiprocessing.get_context("spawn")  # threads of torch and numba do not survive a fork
    with suppress(OSError):
        spawn.Process(target=_compile_beside, name="kernels", daemon=True).start()


def compile_kernels() -> None:
    """What is waited for alone comes first. Seconds where everything is compiled already."""
    for kernel in KERNELS:
        kernel()


def _compile_beside() -> None:
    """`compile_kernels` while the process that began it lives, without a word of what goes wrong."""
    parent = multiprocessing.parent_process()
    with suppress(Exception, KeyboardInterrupt):
        for kernel in KERNELS:
            if parent is not None and not parent.is_alive():
                return
            kernel()


def encoder() -> None:
    """TransAct's, of one request."""
    import torch

    from training.models.transact.encoder import EncoderLayer
    from training.models.transact.float32 import TileEncoder
    from training.models.transact.folding import FoldedLayer

    made = TileEncoder([FoldedLayer.of(EncoderLayer(width=4, heads=1, ffn=4, dropout=0.0))])
    user = made.user(torch.ones(1, 4))
    made.encode(user, torch.ones(1, 2), torch.arange(1), torch.empty(1, 4), torch.empty(1, 8))


def page() -> None:
    """The order of a page by what varies."""
    from training.models.diversity import diversify

    diversify(np.arange(3.0), np.eye(3, dtype=np.float32), 3)


def clusters() -> None:
    """PinnerSage's interests of one user."""
    from training.models.interest_clusters import Limits, cluster_users

    rows, limits = np.arange(2), Limits(0, 2, 2, 0.01, 1.0, 2, 2, 2)
    cluster_users(rows + 1, np.eye(2, dtype=np.float32), rows, rows, np.array([0, 2]), limits)


KERNELS = (encoder, page, clusters)
