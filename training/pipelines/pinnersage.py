"""Train PinnerSage: choose alpha, walk forward to measure it, register the parameters, cluster every user."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import PINNERSAGE_SERVICE
from training.context import TrainingContext
from training.digests import digest_files, digest_of
from training.evaluation import pinnersage_alpha
from training.evaluation.pinnersage_alpha import (
    AlphaChoice,
    AlphaConfig,
    NothingToChooseBy,
    choose_alpha,
    procedure,
)
from training.evaluation.retrieval import HOLDOUT_DAYS, HOLDOUT_USERS
from training.model_log import FLAVOURS, Dataset, ModelLog, pinned
from training.models import interest_clusters, interest_kernels
from training.models import pinnersage as pinnersage_model
from training.models.interactions import Pins
from training.models.pinnersage import (
    Interests,
    PinnerSageConfig,
    sample_medoids,
    user_interests,
    users_interests,
)
from training.pipelines import user_actions as user_actions_module
from training.pipelines.catalogues import catalogue_of
from training.pipelines.clock import run_end
from training.pipelines.interest_map import interest_maps
from training.pipelines.user_actions import UserActions
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import Part

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

MODEL = "pinnersage"

CODE = (
    Path(pinnersage_model.__file__),
    Path(interest_clusters.__file__),
    Path(interest_kernels.__file__),
    Path(pinnersage_alpha.__file__),
    Path(user_actions_module.__file__),
    Path(__file__),
)

ALPHA = AlphaConfig()
"""How alpha is chosen, on vectors as of its first day: a graph that holds these days would know them."""
EVALUATED_USERS = 1000
USERS_AT_ONCE = 4096
"""Users clustered between two looks at the caller: what bounds the memory of their interests."""
RETRIEVED = 100
"""Pins retrieved per user in the walk forward, over all sampled medoids."""
RELEVANT = 0.8
"""Cosine from which a recommended pin counts as relevant to one acted on (paper, section 5)."""

MS_PER_DAY = 86_400_000


def train_pinnersage(
    ctx: TrainingContext, pins: Part, config: PinnerSageConfig | None = None, *, force: bool = False
) -> Part:
    """Choose alpha in the space of `pins` and register PinnerSage; the part searches that space's collection.

    `pins` makes vectors of pins: PinSage, as in the paper, or content. With `config` its alpha is kept. The
    version already made from the same actions, space, configuration and code is returned as it is, unless
    `force`. Alpha and the metrics are of vectors as of the day before the evaluated ones. Raises LakeError
    without an actions table.
    """
    lake, registry = Lake(ctx.lake), Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    end = run_end(ctx)
    wanted = (config or PinnerSageConfig()).model_copy(update={"space": pins.space})
    data = lake.digest(("actions",))
    chosen = "given" if config else "chosen"
    inputs = digest_of(MODEL, data, end, chosen, wanted.model_dump_json(), ctx.seed, digest_files(CODE))
    version = None if force else registry.find(MODEL, inputs)
    if version is not None:
        ctx.progress(f"pinnersage: unchanged, {MODEL}@{version}")
        return _part(registry, version, pins)
    actions = read_actions(ctx, pins, wanted)
    ctx.progress(f"pinnersage: {len(actions)} users, {len(actions.pin_rows)} positive actions")
    holdout_ms = holdout(actions, _ms(end))
    cut = datetime.fromtimestamp(holdout_ms / 1000, UTC)
    choice = None
    if config is None:
        before = catalogue_of(ctx, pins, max(cut - timedelta(days=ALPHA.days), lake.interval()[0]))
        choice = _choose(replace(actions, pins=before), wanted, holdout_ms, ctx.seed)
    actions = replace(actions, pins=catalogue_of(ctx, pins, cut))
    if choice is not None:
        wanted = wanted.model_copy(update={"alpha": choice.alpha})
        ctx.progress(f"pinnersage: {choice.summary()}")
    metrics = walk_forward(actions, wanted, holdout_ms, ctx.seed)
    if choice is not None:
        metrics |= choice.metrics()
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "model"
        wanted.save(files)
        log = ModelLog(
            name=MODEL,
            files=files,
            flavour=FLAVOURS / "pinnersage.py",
            description="Users as several medoid pins: exact Ward clusters of what they acted on, weighed by "
            "recency (arXiv 2007.03634).",
            params={**wanted.model_dump(), "alpha_was": chosen, "evaluated_from_ms": holdout_ms},
            metrics=metrics,
            interval=(max(lake.interval()[0], end - timedelta(days=wanted.window_days)), end),
            datasets=(Dataset("actions", str(ctx.lake), data),),
            signature=_signature(actions.pins.vectors.shape[1]),
            requirements=pinned("numba", "numpy", "pandas", "pydantic"),
            inputs=inputs,
            tags={"feature_service": PINNERSAGE_SERVICE, "space": pins.space or ""},
            figures=({} if choice is None else {"alpha": pinnersage_alpha.figure(choice)})
            | interest_maps(actions, wanted, holdout_ms, ctx.seed),
            notes="Nothing is learned: quality is bounded by the space. "
            + (
                f"{procedure(ALPHA)} Here: {choice.summary()}. "
                if choice is not None
                else "alpha was given, not chosen. "
            )
            + "Metrics are of the days from "
            f"{datetime.fromtimestamp(holdout_ms / 1000, UTC):%Y-%m-%d} on, on which alpha was not chosen; "
            "sampling is seeded. " + lake.contract().notes,
        )
        version = registry.log_model_version(log)
    ctx.progress(f"pinnersage: registered {MODEL}@{version}")
    return _part(registry, version, pins)


def read_actions(ctx: TrainingContext, pins: Part, config: PinnerSageConfig) -> UserActions:
    """Positive actions of the window before the run's end, on pins of the space that `pins` makes."""
    end = run_end(ctx)
    start = end - timedelta(days=config.window_days)
    return UserActions.read(Lake(ctx.lake), catalogue_of(ctx, pins), start, end)


def load_config(ctx: TrainingContext, part: Part) -> PinnerSageConfig:
    """The registered parameters of a PinnerSage part."""
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    return PinnerSageConfig.load(registry.download(part.model, part.version))


def all_interests(
    actions: UserActions, config: PinnerSageConfig, now: datetime
) -> Iterator[tuple[int, Interests]]:
    """(user id, interests as of `now`) of every user who has any, ascending; on all cores."""
    now_ms, threads = _ms(now), os.cpu_count() or 1
    for start in range(0, len(actions), USERS_AT_ONCE):
        ids = actions.users[start : start + USERS_AT_ONCE].tolist()
        found = users_interests(
            actions.histories(start, start + USERS_AT_ONCE), now_ms, config, threads=threads
        )
        for user_id, interests in zip(ids, found, strict=True):
            if len(interests):
                yield user_id, interests


def holdout(actions: UserActions, end_ms: int) -> int:
    """When the held-out days start, Unix ms: the last day, or up to a week until enough users are in them.

    Enough is HOLDOUT_USERS, or a quarter of all users where that is fewer: a last day that breaks off at noon
    would decide by noise.
    """
    start = end_ms - MS_PER_DAY
    for days in HOLDOUT_DAYS:
        start = end_ms - days * MS_PER_DAY
        owner = np.searchsorted(actions.offsets, np.flatnonzero(actions.times_ms >= start), side="right")
        if len(np.unique(owner)) >= min(HOLDOUT_USERS, len(actions) / 4):
            break
    return start


@dataclass
class _Tally:
    """Sums of the walk forward for one way to recommend."""

    held: int = 0
    relevant: int = 0
    recalled: int = 0

    def add(self, vectors: NDArray[np.float32], held: NDArray[np.int64], shown: NDArray[np.int64]) -> None:
        self.held += len(held)
        self.recalled += int(np.isin(held, shown).sum())
        if len(shown):
            best = (vectors[held] @ vectors[shown].T).max(axis=1)
            self.relevant += int((best >= RELEVANT).sum())

    def metrics(self, suffix: str = "") -> dict[str, float]:
        total = max(self.held, 1)
        return {
            f"relevance_at_{RETRIEVED}{suffix}": self.relevant / total,
            f"recall_at_{RETRIEVED}{suffix}": self.recalled / total,
        }


def walk_forward(
    actions: UserActions, config: PinnerSageConfig, holdout_ms: int, seed: int
) -> dict[str, float]:
    """The paper's retrieval protocol on the actions from `holdout_ms` on, beside popularity and the last pin.

    Interests are those as of `holdout_ms`; `config.sampled` medoids share RETRIEVED nearest pins, found
    exactly. Relevance is the share of held-out pins with cosine >= 0.8 to a recommended one, recall the share
    recommended themselves; pins the user acted on before are neither held out nor recommended.
    """
    pins, ours, popular, last = actions.pins, _Tally(), _Tally(), _Tally()
    top = actions.popular(holdout_ms - 30 * MS_PER_DAY, holdout_ms, 2 * RETRIEVED)
    users, interests_found = 0, 0
    for user in actions.sample(EVALUATED_USERS, seed):
        past = actions.history(user, holdout_ms)
        known = np.searchsorted(pins.ids, np.unique(past.pin_ids))
        held = np.setdiff1d(actions.since(user, holdout_ms), known)
        if len(held) == 0 or len(past.pin_ids) == 0:
            continue
        interests = user_interests(past, holdout_ms, config)
        drawn = sample_medoids(interests, config.sampled, seed=seed + user)
        users += 1
        interests_found += len(interests)
        ours.add(pins.vectors, held, nearest(pins, interests.vectors[drawn], known, RETRIEVED))
        last.add(pins.vectors, held, nearest(pins, past.vectors[-1:], known, RETRIEVED))
        popular.add(pins.vectors, held, top[~np.isin(top, known)][:RETRIEVED])
    return {
        "evaluated_users": float(users),
        "held_out_pins": float(ours.held),
        "interests_per_user": interests_found / max(users, 1),
        **ours.metrics(),
        **popular.metrics("_popular"),
        **last.metrics("_last_pin"),
    }


def nearest(
    pins: Pins, queries: NDArray[np.float32], known: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Rows of the `count` pins nearest to `queries` (q, d), an equal share each, without the rows `known`."""
    if len(queries) == 0:
        return np.empty(0, np.int64)
    similarity = queries @ pins.vectors.T  # (q, p)
    similarity[:, known] = -np.inf
    share = min(count // len(queries), len(pins.ids))
    rows = np.argpartition(-similarity, share - 1, axis=1)[:, :share]
    found = np.take_along_axis(similarity, rows, axis=1) > -np.inf
    return np.unique(rows[found])


def _choose(actions: UserActions, config: PinnerSageConfig, before_ms: int, seed: int) -> AlphaChoice | None:
    """Alpha from the days before the evaluated ones; None where nobody came back in them."""
    try:
        return choose_alpha(actions, before_ms, config, search=ALPHA, seed=seed)
    except NothingToChooseBy:  # the default stands, and the card says it was not chosen
        return None


def _part(registry: Registry, version: int, pins: Part) -> Part:
    return Part(
        model=MODEL,
        version=version,
        space=pins.space,
        collection=pins.collection,
        feature_service=PINNERSAGE_SERVICE,
        metrics=registry.metrics(MODEL, version),
    )


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)


def _signature(dim: int) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    columns = [
        ColSpec(DataType.long, "pin_id"),
        ColSpec(Array(DataType.float), "vector"),
        ColSpec(DataType.long, "timestamp_ms"),
    ]
    interests = [
        ColSpec(DataType.long, "medoid_pin_id"),
        ColSpec(DataType.float, "importance"),
        ColSpec(DataType.long, "pins"),
    ]
    return ModelSignature(Schema(columns), Schema(interests))
