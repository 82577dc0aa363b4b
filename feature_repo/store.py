"""Opening, applying and materializing the feature store of one home, from code.

The `feast` command does the same by hand from this folder; both read the same YAML files:
`feature_store.yaml` (embedded) and `envs/redis.yaml` (with CORKBOARD_REDIS set).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feast import FeatureStore

REPOSITORY = Path(__file__).resolve().parent
"""The Feast repository: the folder of feature_store.yaml."""

EMBEDDED = REPOSITORY / "feature_store.yaml"
REDIS = REPOSITORY / "envs" / "redis.yaml"

EPOCH = datetime(1970, 1, 2, tzinfo=UTC)
"""Start of a full materialization."""


class FeatureStoreError(RuntimeError):
    """The store cannot be used as asked; the message says what to run first."""


def open_store(home: str | Path, *, redis: str | None = None) -> FeatureStore:
    """The feature store of the home folder `home`: SQLite online by default, Redis by `host:port[,options]`.

    Nothing is taken from the environment but CORKBOARD_REDIS, where `redis` is not given. The home folder is
    created; nothing is applied.
    """
    root = Path(home).expanduser().resolve()
    root.mkdir(parents=True, exist_ok=True)
    redis = redis or os.environ.get("CORKBOARD_REDIS")
    variables = {"CORKBOARD_HOME": str(root)}
    if redis:
        variables["CORKBOARD_REDIS"] = redis
    return open_config(REDIS if redis else EMBEDDED, variables)


def open_config(path: Path, variables: Mapping[str, str]) -> FeatureStore:
    """The feature store of one YAML file, its `${...}` filled from `variables`.

    Raises FeatureStoreError for a variable that is not given: Feast would take its name for a path.
    """
    import yaml

    from feature_repo.feast_import import FeatureStore, RepoConfig

    try:
        text = Template(path.read_text()).substitute(variables)
    except KeyError as missing:
        raise FeatureStoreError(f"{path.name} needs {missing.args[0]}; set it in the environment") from None
    config = RepoConfig(**yaml.safe_load(text))
    config.repo_path = REPOSITORY
    return FeatureStore(config=config)


def apply(store: FeatureStore) -> None:
    """Register every definition and make the online tables; what is no longer defined is removed.

    The same as `feast apply` in this folder. Safe to repeat.
    """
    from feast.diff.registry_diff import extract_objects_for_keep_delete_update_add

    contents = definitions(store.project)
    _, removed, _, _ = extract_objects_for_keep_delete_update_add(store.registry, store.project, contents)
    objects = [
        *contents.projects,
        *contents.entities,
        *contents.data_sources,
        *contents.feature_views,
        *contents.on_demand_feature_views,
        *contents.feature_services,
    ]
    store.apply(
        objects,
        objects_to_delete=[thing for things in removed.values() for thing in things],
        partial=False,
        skip_feature_view_validation=True,
    )
    store.refresh_registry()


def definitions(project: str):  # type: ignore[no-untyped-def]  # feast.repo_contents.RepoContents
    """Feast's collection of every object in `feature_repo.repository`."""
    from feast import Entity, FeatureService, FeatureView, OnDemandFeatureView, Project
    from feast.data_source import DataSource
    from feast.feature_view import DUMMY_ENTITY
    from feast.repo_contents import RepoContents

    from feature_repo import repository

    objects = [getattr(repository, name) for name in repository.__all__]
    views = [thing for thing in objects if isinstance(thing, FeatureView)]
    sources = {thing.name: thing for thing in objects if isinstance(thing, DataSource)}
    sources |= {view.batch_source.name: view.batch_source for view in views}
    return RepoContents(
        projects=[Project(name=project)],
        data_sources=list(sources.values()),
        entities=[*(thing for thing in objects if isinstance(thing, Entity)), DUMMY_ENTITY],
        feature_views=views,
        feature_services=[thing for thing in objects if isinstance(thing, FeatureService)],
        on_demand_feature_views=[thing for thing in objects if isinstance(thing, OnDemandFeatureView)],
        stream_feature_views=[],
        label_views=[],
        permissions=[],
    )


def materialize(
    store: FeatureStore,
    views: Iterable[str] | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> None:
    """Bring the newest rows of `views` (all by default) with event time in [start, end] to the online store.

    Without `start` every row counts; without `end`, all up to now. A row that is online and newer stays. A call
    that is killed leaves whole rows, old and new, and the same call brings the rest.
    """
    names = None if views is None else list(views)
    if names == []:
        return
    with redirect_stdout(StringIO()):  # Feast prints a line a view, in colour
        store.materialize(start_date=start or EPOCH, end_date=end or datetime.now(UTC), feature_views=names)
    store.refresh_registry()
