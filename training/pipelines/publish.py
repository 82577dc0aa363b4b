"""Put what was trained where services find it: features and vectors in Feast, vectors in Milvus too.

A note beside the feature files (`published.json`) says which of them the online store already has, so that a
run that was stopped halfway, or is run again, publishes what is missing and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import PIN_EMBEDDING, USER_EMBEDDING, USER_INTERESTS
from training.context import TrainingContext
from training.digests import digest_of
from training.models.content import without_content
from training.models.pinnersage import Interests
from training.pipelines import content as content_pipeline
from training.pipelines.catalogues import catalogue_of
from training.pipelines.clock import run_end
from training.pipelines.query_records import QueryRecords, read_records
from validation.lake import Lake
from validation.manifest import CollectionCheck, Part
from validation.tables import Polarity
from validation.whole_files import replace_text

if TYPE_CHECKING:
    from feast import FeatureStore

    from feature_repo.jobs.embeddings import UserInterests

QUALITY_DAYS = 30

NOTE = "published.json"


@dataclass(frozen=True)
class Publisher:
    """The feature store of one run. Creating the object touches nothing."""

    ctx: TrainingContext

    @cached_property
    def store(self) -> FeatureStore:
        """The store, its definitions applied."""
        from feature_repo.store import apply, open_store

        self.ctx.progress("feast: applying definitions")
        store = open_store(self.ctx.feast_home)
        apply(store)
        return store

    def features(self, force: bool = False) -> None:
        """Bring the batch views up to the run's end, offline and online."""
        from feature_repo.jobs.build import BATCH_VIEWS, build_features

        ctx = self.ctx
        build_features(Lake(ctx.lake), ctx.features, as_of=run_end(ctx), progress=ctx.progress)
        self.materialize(BATCH_VIEWS, force)

    def vectors(self, part: Part, force: bool = False) -> CollectionCheck:
        """The space's vectors to Feast's offline store (`online` brings them further), then its Milvus
        collection, built and measured after re-opening.

        Raises VectorIndexError where Milvus cannot be reached or does not keep what it is given.
        """
        from feature_repo.jobs.embeddings import write_pin_embeddings
        from training import index

        ctx, space = self.ctx, _space(part)
        lake, end = Lake(ctx.lake), run_end(self.ctx)
        catalogue = cache(lambda: catalogue_of(ctx, part))
        made_of = digest_of(space, lake.digest(("pins", "topics")))
        if force or self._noted(f"{PIN_EMBEDDING}/{space}") != made_of:
            pins = catalogue()
            known = ~without_content(pins.vectors)
            ctx.progress(f"{space}: {known.sum()} vectors to the feature store")
            # Content does not depend on what anyone did: it is true from the data's first day on. What is made
            # of people's actions is true once they are all known.
            since = lake.interval()[0] if part.model == content_pipeline.MODEL else end
            write_pin_embeddings(ctx.features, space, pins.ids[known], pins.vectors[known], since)
            self._note(f"{PIN_EMBEDDING}/{space}", made_of)
        holds = digest_of(made_of, ctx.milvus_uri, lake.digest(("actions",)), end)
        check = None if force else self._standing(part, holds)
        if check is None:
            pins = catalogue()
            topics = [row[row > 0] for row in pins.topics]
            quality = pin_quality(lake, pins.ids, end)
            check = index.build(
                ctx.milvus_uri, space, pins.ids, pins.vectors, topics, pins.created_at_ms, quality, ctx.progress
            )
            self._note(f"collection/{space}", json.dumps([holds, check.model_dump()]))
        return check

    def users(self, part: Part, force: bool = False) -> None:
        """Every user's PinnerFormer vector as of the run's end to Feast; the quiet keep theirs."""
        from feature_repo.jobs.embeddings import write_user_embeddings
        from training.pipelines.pinnerformer_users import daily_user_vectors

        ctx, space, now = self.ctx, _space(part), run_end(self.ctx)
        made_of = digest_of(space, now, Lake(ctx.lake).digest(("actions",)))
        if force or self._noted(f"{USER_EMBEDDING}/{space}") != made_of:
            made = daily_user_vectors(ctx, part)
            write_user_embeddings(ctx.features, space, made.users, made.vectors, now)
            ctx.progress(f"{space}: vectors of {len(made)} users to the feature store")
            self._note(f"{USER_EMBEDDING}/{space}", made_of)

    def interests(self, part: Part, pins: Part, force: bool = False) -> None:
        """Every user's PinnerSage interests as of the run's end, in the space that `pins` makes, to Feast.

        Where impressions name the medoids that brought them, importances are those times the rewards.
        """
        from feature_repo.jobs.embeddings import write_user_interests
        from training.pipelines.pinnersage import all_interests, load_config, read_actions

        ctx, space, now = self.ctx, _space(part), run_end(self.ctx)
        lake = Lake(ctx.lake)
        made_of = digest_of(space, part.version, now, lake.digest(("actions", "impressions")))
        if force or self._noted(f"{USER_INTERESTS}/{space}") != made_of:
            config = load_config(ctx, part)
            actions = read_actions(ctx, pins, config)
            records = QueryRecords()
            if config.query_rewards:
                records = read_records(lake, now - timedelta(days=config.window_days), now)
            rows = (
                _stored(user, records.reward(user, found))
                for user, found in all_interests(actions, config, now)
            )
            written = write_user_interests(ctx.features, space, rows, now)
            ctx.progress(
                f"{space}: interests of {written} users to the feature store, {len(records.by_user)} of them"
                " weighed by what came of theirs"
            )
            self._note(f"{USER_INTERESTS}/{space}", made_of)

    def online(self) -> None:
        """Bring the vectors and interests that were written to the online store, each view once a run."""
        self.materialize([PIN_EMBEDDING, USER_EMBEDDING, USER_INTERESTS])

    def materialize(self, views: Sequence[str], force: bool = False) -> None:
        """Bring the views whose files changed since the last time to the online store."""
        from feature_repo.store import materialize

        stamps = {view: _stamp(self.ctx.features / view) for view in views}
        changed = [view for view, stamp in stamps.items() if force or self._noted(f"online/{view}") != stamp]
        if not changed:
            return
        self.ctx.progress(f"feast: materializing {', '.join(changed)}")
        materialize(self.store, changed, end=max(datetime.now(UTC), run_end(self.ctx)))
        for view in changed:
            self._note(f"online/{view}", stamps[view])

    def _standing(self, part: Part, holds: str) -> CollectionCheck | None:
        """What was measured when the collection was built, if it was built from the same and is still there."""
        from feature_repo.vectors.milvus import connect

        noted = json.loads(self._noted(f"collection/{part.space}") or "[null, null]")
        if noted[0] != holds or part.collection is None:
            return None
        check = CollectionCheck.model_validate(noted[1])
        milvus = connect(self.ctx.milvus_uri)
        try:
            if not milvus.exists(part.collection):
                return None
            rows = milvus.open(part.collection, consistency="Strong").rows
        finally:
            milvus.close()
        if rows != check.rows:
            return None
        self.ctx.progress(f"{part.collection}: unchanged, {rows} pins")
        return check

    @property
    def _notes(self) -> Path:
        return self.ctx.features / NOTE

    def _noted(self, what: str) -> str | None:
        notes = json.loads(self._notes.read_text()) if self._notes.exists() else {}
        return notes.get(what)

    def _note(self, what: str, digest: str) -> None:
        notes = json.loads(self._notes.read_text()) if self._notes.exists() else {}
        self._notes.parent.mkdir(parents=True, exist_ok=True)
        replace_text(self._notes, json.dumps({**notes, what: digest}, indent=2, sort_keys=True))


def pin_quality(lake: Lake, pin_ids: NDArray[np.int64], end: datetime) -> NDArray[np.float64]:
    """Share of a pin's judgements in the last 30 days that were not negative, (n,) in (0, 1]; 1 without any.

    (positives + 1) / (positives + negatives + 1): one complaint halves a pin that nobody liked.
    """
    vocabulary = lake.contract().vocabulary
    rows = lake.read("actions", ["pin_id", "action"], end - timedelta(days=QUALITY_DAYS), end)

    def count(polarity: Polarity) -> NDArray[np.int64]:
        ids = rows.loc[rows["action"].isin(vocabulary.codes(polarity)), "pin_id"]
        return ids.value_counts().reindex(pin_ids, fill_value=0).to_numpy(np.int64)

    positives, negatives = count(Polarity.POSITIVE), count(Polarity.NEGATIVE)
    return (positives + 1) / (positives + negatives + 1)


def _stored(user_id: int, found: Interests) -> UserInterests:
    from feature_repo.jobs.embeddings import UserInterests

    return UserInterests(user_id, found.medoid_pin_ids, found.importances, found.sizes, found.vectors)


def _space(part: Part) -> str:
    if part.space is None:
        raise ValueError(f"{part.model}@{part.version} names no space; nothing of it can be published")
    return part.space


def _stamp(folder: Path) -> str:
    """Changes when a file of the folder is written, added or removed."""
    files = sorted(folder.glob("*.parquet"))
    return digest_of(*((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files))
