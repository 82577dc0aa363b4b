"""What a person sees while a long job runs: numbered steps with their time, lines beneath."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

IN_A_PIPE = 10_000
"""Columns where no terminal shows the lines, unless COLUMNS says: what reads them wants each whole."""

console = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else IN_A_PIPE)


class Steps:
    """Numbered steps of one job: `with step("train"):` prints `[3/6] train` and, at the end, its seconds."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        self.done += 1
        console.print(f"[bold cyan]\\[{self.done}/{self.total}][/] [bold]{title}[/]", soft_wrap=True)
        start = time.monotonic()
        yield
        console.print(f"      [dim]{time.monotonic() - start:.1f} s[/]")


def say(message: str) -> None:
    """One line of what is happening, however long: terminals wrap it, files keep paths and addresses whole."""
    console.print(f"      {message}", markup=False, soft_wrap=True)


@contextmanager
def live(title: str) -> Iterator[Callable[[str], None]]:
    """One line that is written over while a step with many small parts runs, gone at its end."""
    with console.status(title) as status:
        yield status.update
