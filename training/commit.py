"""Which code runs."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


@lru_cache(maxsize=1)
def git_commit() -> str:
    """Commit of the code that runs, with `+changes` where tracked files differ; `unknown` outside git."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return "unknown"
    return f"{commit}+changes" if _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):  # no git here: an unpacked archive, a slim image
        return None
    return done.stdout.strip() if done.returncode == 0 else None
