"""What is compiled ahead is what is used."""

from __future__ import annotations

import numpy as np
import torch

from training import kernels
from training.models import diversity, interest_kernels
from training.models.diversity import DiversityConfig, diversify
from training.models.pinnersage import History, PinnerSageConfig, user_interests
from training.models.transact import SequenceConfig, tiles
from training.models.transact.sequence import SequenceEncoder
from training.models.transact.shared import SharedEncoder

COMPILED = (tiles.encode, diversity._greedy, interest_kernels.cluster_slice)


def test_nothing_is_compiled_again_for_those_who_use_it() -> None:
    kernels.compile_kernels()
    before = [set(kernel.signatures) for kernel in COMPILED]
    assert all(before)
    config = SequenceConfig(length=9, actions=5, pin_dim=4, action_dim=4, ffn=8)
    shared = SharedEncoder(SequenceEncoder(config).eval().requires_grad_(False))
    shared.candidates(shared.user(torch.randn(7, config.width)), torch.randn(5, config.pin_dim))
    rng = np.random.default_rng(0)
    vectors, topics = rng.standard_normal((9, 4)).astype(np.float32), rng.integers(0, 3, 9)
    diversify(rng.random(9).astype(np.float32), vectors, 5, DiversityConfig(), topics=topics, boards=topics)
    user_interests(History(np.arange(1, 10), vectors, np.arange(9) * 1000), 10_000, PinnerSageConfig())
    assert [set(kernel.signatures) for kernel in COMPILED] == before
