"""Spaces whose rows the feature store holds, offline and online, and how they go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.jobs.files import part
from feature_repo.views import PIN_EMBEDDING, USER_EMBEDDING, USER_INTERESTS

if TYPE_CHECKING:
    from feast import FeatureStore

IN_SPACES = (PIN_EMBEDDING, USER_EMBEDDING, USER_INTERESTS)
"""Views whose rows belong to a space."""


def offline_spaces(features: Path) -> Iterator[tuple[str, str, Path]]:
    """(view, space, file) of every space below the features folder."""
    for view in IN_SPACES:
        for file in sorted((features / view.name).glob("*.parquet")):
            yield view.name, file.stem, part(features, view, file.stem)


def online_spaces(store: FeatureStore) -> Iterator[tuple[str, str, int]]:
    """(view, space, bytes) of every space with rows online; nothing before definitions were applied."""
    known = {view.name: view for view in store.list_feature_views()}
    for view in IN_SPACES:
        if view.name in known:
            sizes = _online(store).spaces(store.config, known[view.name])
            for space, size in sorted(sizes.items()):
                yield view.name, space, size


def drop_online(store: FeatureStore, view: str, space: str) -> None:
    """Remove a space's rows of one view from the online store."""
    _online(store).drop_space(store.config, store.get_feature_view(view), space)


def _online(store: FeatureStore):  # type: ignore[no-untyped-def]  # feature_repo.online.packed.PackedOnlineStore
    return store._get_provider().online_store
