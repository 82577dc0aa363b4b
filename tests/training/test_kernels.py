"""What is compiled ahead is what is used."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from training import kernels
from training.models import diversity, interest_kernels
from training.models.diversity import DiversityConfig, diversify
from training.models.pinnersage import History, PinnerSageConfig, user_interests
from training.models.transact import SequenceConfig, tiles
from training.models.transact.sequence import SequenceEncoder
from training.models.transact.shared import SharedEncoder

COMPILED = (tiles.encode, diversity._greedy, interest_kernels.cluster_slice)


def use_what_was_compiled() -> None:
    """Raises AssertionError where a kernel is compiled for a use of it; for a process that has used none."""
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


def test_nothing_is_compiled_again_for_those_who_use_it() -> None:
    """In an interpreter of its own: tests before this one have compiled what they used."""
    code = f"from {__name__} import use_what_was_compiled; use_what_was_compiled()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("raised", [RuntimeError, KeyboardInterrupt])
def test_what_fails_in_the_process_beside_is_not_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], raised: type[BaseException]
) -> None:
    def fails() -> None:
        raise raised("while it compiles")

    monkeypatch.setattr(kernels, "KERNELS", (fails,))
    beside = multiprocessing.get_context("fork").Process(target=kernels._compile_beside)
    beside.start()
    beside.join()
    assert beside.exitcode == 0 and capfd.readouterr().err == ""


@pytest.mark.parametrize(("lives", "compiled"), [(True, [1, 2]), (False, [])])
def test_nothing_is_compiled_for_a_process_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, lives: bool, compiled: list[int]
) -> None:
    done: list[int] = []
    parent = SimpleNamespace(is_alive=lambda: lives)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(kernels, "KERNELS", (lambda: done.append(1), lambda: done.append(2)))
    kernels._compile_beside()
    assert done == compiled


def test_a_machine_that_starts_no_process_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        def __init__(self, **given: object) -> None: ...

        def start(self) -> None:
            raise BlockingIOError("no more processes")

    monkeypatch.setattr(multiprocessing, "get_context", lambda method: SimpleNamespace(Process=Refused))
    kernels.begin_compiling()
