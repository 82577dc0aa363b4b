"""What a request names, held to what there is: pins of the catalogue, boards with pins, numbers in range."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bentos.errors import BoardNotFound, LimitOutOfRange, PinNotFound
from bentos.messages import MAX_IDS, MAX_LIMIT, ExternalId
from bentos.release import ServingRelease
from validation.tables import EntityKind


def known_pin(release: ServingRelease, given: ExternalId) -> int:
    """The lake id of a pin of the catalogue. Raises PinNotFound, BadId."""
    pin = release.ids.inside(EntityKind.PIN, given)
    if not pin or pin not in release.features.cards(np.array([pin], np.int64)):
        raise PinNotFound(f"pin {given!r} is not in the catalogue of release {release.version}")
    return pin


def known_board(release: ServingRelease, given: ExternalId) -> int:
    """The lake id of a board that holds pins. Raises BoardNotFound, BadId."""
    board = release.ids.inside(EntityKind.BOARD, given)
    holds = board and (
        len(release.features.boards([board]).get(board, ()))
        or (release.walker is not None and len(release.walker.pins_of_board(board)))
    )
    if not holds:
        name = release.contract.board_name
        raise BoardNotFound(f"{name} {given!r} holds no pin that release {release.version} knows")
    return board


def check_limit(limit: int, what: str = "pins") -> None:
    """Raises LimitOutOfRange."""
    if not 1 <= limit <= MAX_LIMIT:
        raise LimitOutOfRange(f"limit is {limit}; ask for 1 to {MAX_LIMIT} {what}")


def check_count(name: str, values: Sequence[object], *, least: int = 0) -> None:
    """Raises LimitOutOfRange."""
    if not least <= len(values) <= MAX_IDS:
        raise LimitOutOfRange(f"{name} names {len(values)} pins; name {least} to {MAX_IDS}")
