"""Settings that people write: YAML or JSON files, and what is wrong with one in a line."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError


class Unreadable(ValueError):
    """A file that is absent or does not parse; the message names it."""


def read_settings(file: Path) -> object:
    """What a YAML or JSON file says. Raises Unreadable."""
    import yaml

    try:
        return yaml.safe_load(file.read_text())
    except Exception as error:
        # Beside its own errors, the parser lets those of dates, numbers and depth through.
        raise Unreadable(f"{file}: cannot be read: {error}") from error


def first_fault(error: ValidationError) -> str:
    """Where the first setting that does not fit stands, and why: `weights.buy: Input should be...`; why alone
    where settings do not fit each other."""
    first = error.errors()[0]
    where, why = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    return f"{where}: {why}" if where else why
