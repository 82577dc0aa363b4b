"""Weights that change under requests: a new file counts at once, a bad one never."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bentos.messages import FeedAnswer, FeedRequest
from bentos.policy_file import PolicyFile
from tests.bentos.conftest import run
from tests.bentos.fakes import COOK, Stack
from tests.bentos.test_ranking_stages import ThreeHeads

NO_DIVERSITY = "diversity: {theta: 1, topic_cap: 0, board_cap: 0}\n"


@pytest.fixture
def served(stack_of: Callable[..., Stack], tmp_path: Path) -> tuple[Stack, Path]:
    """A stack of three heads whose weights are in a file that is not there yet."""
    stack, file = stack_of(ranker=ThreeHeads()), tmp_path / "utility.yaml"
    stack.service = replace(stack.service, policy=PolicyFile(file).current)
    return stack, file


def write(file: Path, text: str) -> None:
    """As an editor does; times are set apart, since two writes within one tick would look like one."""
    last = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(text)
    os.utime(file, ns=(last + 10**9, last + 10**9))


def asked(stack: Stack) -> FeedAnswer:
    return run(stack.service.homefeed(FeedRequest(user_id=COOK, limit=20)))


def places(answer: FeedAnswer) -> list[float]:
    return [pin.heads["save"] for pin in answer.pins]


def test_a_change_of_the_file_changes_the_next_order(served: tuple[Stack, Path]) -> None:
    stack, file = served
    first = asked(stack)
    assert first.utility and first.utility.policy == stack.release.policy.digest
    write(file, "weights: {save: 1}\n" + NO_DIVERSITY)
    saves = places(asked(stack))
    assert saves == sorted(saves, reverse=True)
    write(file, "weights: {hide: -1, report: -1}\n" + NO_DIVERSITY)
    answer = asked(stack)
    hides = [pin.heads["hide"] for pin in answer.pins]
    assert hides == sorted(hides) and answer.utility and answer.utility.weights["save"] == 0
    file.unlink()
    assert asked(stack).utility.policy == first.utility.policy, "without a file the defaults are back"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("weights: {save: 1", "cannot be read"),
        ("weights: {sav: 1}", "utility weighs sav; the data set's actions are"),
        ("weights: {hide: 3}", "give a weight below 0"),
        ("weights: {download: 1}", "the ranker has heads engage, save, hide; utility weighs none of them"),
        ("diversity: {theta: 7}", "diversity.theta"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_the_last_good_one_stays(
    served: tuple[Stack, Path], bad: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    stack, file = served
    write(file, "weights: {save: 2}\n" + NO_DIVERSITY)
    good = asked(stack)
    write(file, bad)
    with caplog.at_level(logging.ERROR, "corkboard.policy"):
        answers = [asked(stack) for _ in range(3)]
    for answer in answers:
        assert (
            answer.policy_refused and words in answer.policy_refused and "utility.yaml" in answer.policy_refused
        )
        assert answer.utility == good.utility and answer.missing == []
    assert len([r for r in caplog.records if words in r.getMessage()]) == 1, "one line a change, not a request"
    write(file, "weights: {save: 3}\n" + NO_DIVERSITY)
    mended = asked(stack)
    assert mended.policy_refused is None and mended.utility and mended.utility.weights["save"] == 3


def test_a_bad_file_from_the_start_leaves_the_defaults(served: tuple[Stack, Path]) -> None:
    stack, file = served
    write(file, "weights: nothing")
    answer = asked(stack)
    assert answer.policy_refused and answer.utility
    assert answer.utility.policy == stack.release.policy.digest


def test_a_named_file_that_is_absent_is_refused(stack: Stack, tmp_path: Path) -> None:
    found = PolicyFile(tmp_path / "none.yaml", named=True).current(stack.release)
    assert found.refused and "none.yaml: cannot be read" in found.refused
    assert found.policy == stack.release.policy
    assert PolicyFile(tmp_path / "none.yaml").current(stack.release).refused is None


def test_another_release_is_checked_anew(served: tuple[Stack, Path]) -> None:
    """Weights that fit a ranker of three heads weigh none of another's."""
    stack, file = served
    write(file, "weights: {save: 1}")
    policy = PolicyFile(file)
    assert policy.current(stack.release).refused is None
    other = replace(stack.release, version=2, ranker=ThreeHeads(heads=("click", "hide")))
    found = policy.current(other)
    assert found.refused and "heads click, hide" in found.refused and found.policy == other.policy


def test_every_request_runs_on_one_whole_policy_while_the_file_changes(served: tuple[Stack, Path]) -> None:
    stack, file = served
    texts = [f"weights: {{save: {w}, hide: -{w}}}\n{NO_DIVERSITY}" for w in (1, 2, 3)]
    write(file, texts[0])
    stop = threading.Event()

    def churn() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            staged = file.with_suffix(".tmp")
            write(staged, texts[turn % 3])
            staged.replace(file)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        answers = [asked(stack) for _ in range(30)]
    finally:
        stop.set()
        thread.join()
    for answer in answers:
        weights = answer.utility.weights
        assert weights["hide"] == -weights["save"] and answer.policy_refused is None
        for pin in answer.pins:
            worth = weights["save"] * (pin.heads["save"] - pin.heads["hide"])
            assert pin.score == pytest.approx(worth, abs=1e-5)
