"""A user's rows in the online store: found, and removed for good."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from feature_repo.schema import BOARD_FEATURES
from feature_repo.views import SPACE, VIEWS

if TYPE_CHECKING:
    from feast import FeatureStore


def online_rows(store: FeatureStore, user_id: int, boards: Sequence[int]) -> int:
    """Rows of the user, and of their boards, in every view and space."""
    from feature_repo.online.packed import Question

    online = _online(store)
    asked = [Question(view, ids, space) for view, ids, space in _places(store, user_id, boards)]
    return sum(row is not None for rows in online.read_rows(store.config, asked) for row in rows)


def remove_online(store: FeatureStore, user_id: int, boards: Sequence[int]) -> None:
    """Remove them. A store to which definitions were never applied has none."""
    online = _online(store)
    for view, ids, space in _places(store, user_id, boards):
        online.delete_rows(store.config, view, ids, space)


def _places(
    store: FeatureStore, user_id: int, boards: Sequence[int]
) -> Iterator[tuple[Any, list[int], str | None]]:
    """(view, ids, space) of everything that may be theirs."""
    for view in store.list_feature_views():
        keys = VIEWS[view.name].keys if view.name in VIEWS else ()
        ids = [user_id] if "user_id" in keys else list(boards) if view.name == BOARD_FEATURES else []
        if not ids:
            continue
        if SPACE not in keys:
            yield view, ids, None
            continue
        for space in _online(store).spaces(store.config, view):
            yield view, ids, space


def _online(store: FeatureStore) -> Any:  # feature_repo.online.packed.PackedOnlineStore
    return store._get_provider().online_store
