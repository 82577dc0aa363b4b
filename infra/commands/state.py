"""What every command shares: the home, and errors as one line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

import typer

from infra.home import Home
from infra.relocation import settle

ROOMS = ("feature_repo", "training", "validation", "infra")
"""Packages whose errors are written for a person to mend."""

Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of every random choice.")]
"""What NumPy's generators and torch's take."""


@dataclass(frozen=True)
class State:
    """What every command shares."""

    home_path: str

    @property
    def home(self) -> Home:
        """The home, its variables in the environment, its registry's paths in order."""
        home = self.as_it_is
        with named_errors():
            settle(home)
        return home

    @property
    def as_it_is(self) -> Home:
        """The home, its variables in the environment: for what must work whatever its registry is like."""
        home = Home.at(self.home_path)
        os.environ.update(home.environment())
        return home


class named_errors:
    """Turn an error of ours, which names its mend, into one line and exit code 1, and one of the machine that
    names a file; others stay tracebacks."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, OSError) and error.filename is not None:
            files = (error.filename, error.filename2)
            said = f"{' to '.join(str(file) for file in files if file is not None)}: {error.strerror}"
        elif error is not None and type(error).__module__.partition(".")[0] in ROOMS:
            said = str(error)
        else:
            return False
        typer.secho(f"error: {said}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from error
