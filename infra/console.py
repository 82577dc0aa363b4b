"""What a person sees while a long job runs: numbered steps with their time, lines and bars beneath."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

console = Console(highlight=False)


class Steps:
    """Numbered steps of one job: `with step("train"):` prints `[3/6] train` and, at the end, its seconds."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        self.done += 1
        console.print(f"[bold cyan]\\[{self.done}/{self.total}][/] [bold]{title}[/]")
        start = time.monotonic()
        yield
        console.print(f"      [dim]{time.monotonic() - start:.1f} s[/]")


def say(message: str) -> None:
    """One line of what is happening."""
    console.print(f"      {message}", markup=False)


@contextmanager
def bar(title: str) -> Iterator[Callable[[str, float], None]]:
    """A progress bar; the function it gives takes what is being done and the share done, 0 to 1."""
    columns = (
        TextColumn("     "),
        SpinnerColumn(),
        BarColumn(bar_width=30),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=1.0)
        yield lambda what, share: progress.update(task, description=what, completed=share)
