"""What is known: features in Feast (offline and online) and item vectors in Milvus.

Feast asks typeguard to check the arguments of every call, which rewrites its source as it is imported: half of
the CPU that a process takes to import it, seconds each time. Where Corkboard imports Feast, that is left out;
the `feast` command, which is there before us, checks as ever.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import typeguard

_typechecked = typeguard.typechecked


def _but_feast(target: Any = None, **options: Any) -> Any:
    """`typeguard.typechecked` for whatever is not Feast's."""
    if target is None:
        return partial(_but_feast, **options)
    if target.__module__.partition(".")[0] == "feast":
        return target
    return _typechecked(target, **options)


typeguard.typechecked = _but_feast
