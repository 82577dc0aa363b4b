"""Train the light ranker on what the funnel fetched and cut, and measure it against the orders it replaces.

Where the funnel has logged enough of what it cut (`candidates`), that is what the trees learn from. Until
then, and always for the measurement, the release's own sources are replayed at midnights (`light/replay.py`):
the log of another policy would name sources that the funnel does not have. Days that releases test on teach
nothing here either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.context import TrainingContext
from training.data.point_in_time import PointInTime
from training.data.splits import DAY
from training.digests import digest_files, digest_of
from training.evaluation import served as served_module
from training.evaluation.funnel_recall import funnel_recall
from training.evaluation.histories import actions_by_day
from training.evaluation.retrieval import NothingHeldOut, hold_out, hold_out_last
from training.light import logged as logged_module
from training.light import measure as measure_module
from training.light import replay as replay_module
from training.light import rows as rows_module
from training.light import rule_sources as rule_sources_module
from training.light.logged import logged_requests
from training.light.measure import LIGHT, MERGE, TWO_TOWER, measure, requests_of
from training.light.replay import PIXIE, ROLES, Replayed, Sources, replay
from training.light.rows import Outcome, Request, World, labelled
from training.model_log import FLAVOURS, Dataset, ModelLog, columns_signature, pinned
from training.models import light_ranking as light_ranking_module
from training.models import source_lists as source_lists_module
from training.models.interactions import Pins, polarity_signs
from training.models.light_ranking import LightSpec
from training.pipelines import figures, light_fitting
from training.pipelines.clock import run_end
from training.pipelines.fitting import NothingToLearn
from training.pipelines.light_fitting import LightConfig, LightRows, fit_light
from training.pipelines.registering import flat_params, register, unchanged
from training.registry import LEARNED_UNTIL_TAG, Registry
from validation.lake import Lake
from validation.manifest import RELEASE_MODEL, Part
from validation.tables import CANDIDATES, IMPRESSIONS, PIN_ID, USER_ID

MODEL = "light_gbdt"
SOURCES_TAG = "sources"
"""Tag naming the versions whose weights gave the scores that the trees read."""

TABLES = ("pins", "actions", "impressions", "follows", "candidates")

_MADE_BY = (
    served_module,
    logged_module,
    measure_module,
    replay_module,
    rows_module,
    rule_sources_module,
    light_ranking_module,
    source_lists_module,
    light_fitting,
)
CODE = (*(Path(module.__file__ or "") for module in _MADE_BY), Path(__file__))

Ints = NDArray[np.int64]


class NothingFetched(ValueError):
    """Of what users acted on in the tested days no source brought anything."""


class LightPipeline(BaseModel):
    """Everything one light ranker is made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trees: LightConfig = LightConfig()
    unimpressed_shares: tuple[float, ...] = (1.0, 4.0, 16.0)
    """Weights of what was cut that are tried; the one that keeps most on the last training day stands."""
    days: int = Field(3, ge=2)
    """Days before the tested ones that are replayed, each from its midnight."""
    users: int = Field(600, ge=1)
    """Users a replayed day, and in the measurement."""
    cut: int = Field(100, ge=1)
    """Pins a request that were cut and are learned from."""
    least_logged: int = Field(2_000, ge=1)
    """Pins acted on that the candidate log must hold before it takes the replay's place."""
    log_days: int = Field(14, ge=2)
    """Newest days of the log that are read."""
    budget: int = Field(light_ranking_module.SHORTLIST, ge=1)
    """Candidates that heavy ranking takes."""


@dataclass(frozen=True)
class Learned:
    """Rows to learn from, in time order, and where they came from."""

    rows: LightRows
    request: Ints  # (n,)
    day: Ints  # (n,) days since 1970 of the request
    origin: str


def train_light(
    ctx: TrainingContext,
    features: PointInTime,
    parts: Mapping[str, Part],
    pins: Pins,
    config: LightPipeline | None = None,
    *,
    force: bool = False,
) -> Part:
    """Train, measure and register the light ranker over the sources among `parts` (by role).

    `features` answers for what was known of users and pins; its files must reach the run's end.

    The version already made from the same data, sources, configuration and code is returned as it is, unless
    `force`. Raises NothingHeldOut where no day can be held out, NothingToLearn where nothing tells pins acted
    on from others, NothingFetched where nothing can be measured, LakeError without impressions.
    """
    config = config or LightPipeline()
    lake, registry, end = Lake(ctx.lake), Registry(ctx.mlflow_uri, ctx.mlflow_artifacts), run_end(ctx)
    over = weights_named(registry, parts)
    data = lake.digest(TABLES)
    inputs = digest_of(MODEL, data, end, over, config.model_dump_json(), ctx.seed, digest_files(CODE))
    if version := unchanged(ctx, MODEL, inputs, force=force):
        return light_part(registry, version)
    newest = registry.latest(MODEL) if ctx.keep_weights else None
    if newest is not None and registry.version(MODEL, newest).tags.get(SOURCES_TAG) == over:
        ctx.progress(f"{MODEL}: the sources kept their weights, and so does {MODEL}@{newest}")
        return light_part(registry, newest)
    since = max(
        (until for part in parts.values() if (until := registry.learned_until(part.model, part.version))),
        default=None,
    )
    tested = hold_out_last(lake, end, since=since).sample(config.users, ctx.seed)
    world = world_at(lake, features, pins, end)
    spec = LightSpec(sources=source_names(lake, parts))
    learned = _learned(ctx, lake, world, spec, parts, tested.cut, config)
    share = _best_share(learned, spec, config, ctx.seed)
    trees = config.trees.model_copy(update={"unimpressed_share": share})
    ranker = fit_light(learned.rows, spec, trees, seed=ctx.seed)
    ctx.progress(
        f"{MODEL}: {len(learned.rows)} candidates of {learned.origin}, measuring on {len(tested)} users"
    )
    replayed = replay(lake, pins, Sources.of(ctx, parts, tested.cut), tested, ctx.seed)
    try:
        kept = measure(world, ranker, replayed, (config.budget,))
    except ValueError as error:
        raise NothingFetched(f"the days from {tested.cut:%Y-%m-%d} on: {error}") from error
    metrics = kept.metrics(config.budget)
    importance = ranker.booster.get_score(importance_type="total_gain")
    log = ModelLog(
        name=MODEL,
        flavour=FLAVOURS / "light.py",
        description="Boosted trees that cut a few thousand candidates to those worth a heavy ranker, by what "
        "every source says of a pin and by counters (lightweight ranking, Pinterest Engineering 2020).",
        params=flat_params(config.model_copy(update={"trees": trees}))
        | {"sources": over, "learned_from": learned.origin, "rows": len(learned.rows)},
        metrics=metrics,
        interval=(tested.cut - config.days * DAY, tested.cut),
        datasets=(Dataset(", ".join(TABLES), str(ctx.lake), data),),
        signature=columns_signature(dict.fromkeys(spec.names, "float")),
        figures={"importance": figures.importance({name: importance.get(name, 0.0) for name in spec.names})},
        requirements=pinned("numpy", "pandas", "pydantic", "xgboost-cpu"),
        inputs=inputs,
        tags={SOURCES_TAG: over, LEARNED_UNTIL_TAG: tested.cut.isoformat()},
        notes=f"Learned from {learned.origin}; what was cut weighs {share:g} times what was shown in vain. "
        f"Measured on a replay of the days from {tested.cut:%Y-%m-%d} on: {kept.fetched:.0f} candidates a "
        f"user, {kept.reached:.0%} of what users acted on among them. Recall flatters whoever agrees with the "
        f"policy that chose what was shown. {lake.contract().notes}\n\n{kept.table(config.budget)}",
    )
    ctx.progress(
        f"{MODEL}: keeps {metrics[f'{LIGHT}/kept']:.3f} of engaged pins among {config.budget} "
        f"({_others(metrics)})"
    )
    return light_part(registry, register(ctx, log, ranker.save))


def chosen(parts: Mapping[str, Part], light: Part | None) -> str:
    """Who orders candidates: of the trees, the two-tower and the merge, who keeps most of what users act on.

    `light` was measured over these parts; without it the two-tower does, where there is one.
    """
    if light is None:
        return TWO_TOWER if TWO_TOWER in parts else MERGE
    orders = (LIGHT, *((TWO_TOWER,) if TWO_TOWER in parts else ()), MERGE)
    return max(orders, key=lambda order: light.metrics.get(f"{order}/kept", 0.0))


def light_part(registry: Registry, version: int) -> Part:
    """The release part of one version."""
    return Part(model=MODEL, version=version, metrics=registry.metrics(MODEL, version))


def weights_named(registry: Registry, parts: Mapping[str, Part]) -> str:
    """The sources among `parts` with the versions at which their weights were learned, in funnel order.

    Pixie learns none: visits on tomorrow's graph are counted as on today's.
    """
    said = []
    for role in (role for role in ROLES if role in parts):
        model, version = parts[role].model, parts[role].version
        said.append(model if role == PIXIE else f"{model}@{registry.weights_of(model, version)}")
    return ", ".join(said)


def source_names(lake: Lake, parts: Mapping[str, Part]) -> tuple[str, ...]:
    """Sources whose scores and ranks are features: those of `parts`, and the rules that the data allows."""
    rules = rule_sources_module.BUDGETS if lake.has("follows") else (rule_sources_module.POPULAR,)
    return (*(role for role in ROLES if role in parts), *rules)


def world_at(lake: Lake, features: PointInTime, pins: Pins, end: datetime) -> World:
    """What rows are made from, with every action before `end`."""
    import pandas as pd

    from feature_repo.sequence import SequenceLog

    log = SequenceLog.from_actions(pd.concat(list(actions_by_day(lake, end))))
    return World(features, pins, log, polarity_signs(lake.contract().vocabulary))


def outcomes_of(lake: Lake, replayed: Replayed) -> list[Outcome]:
    """What each replayed user did, and was shown, in the time after the cut."""
    held = replayed.held
    shown = lake.read(IMPRESSIONS.name, [USER_ID, PIN_ID], held.cut, held.end)
    shown = shown[shown[USER_ID].isin(held.users)]
    seen = {user: pins.to_numpy(np.int64) for user, pins in shown.groupby(USER_ID)[PIN_ID]}
    return [
        Outcome(held.pins[held.offsets[row] : held.offsets[row + 1]], seen.get(user, np.empty(0, np.int64)))
        for row, user in enumerate(held.users.tolist())
    ]


def _learned(
    ctx: TrainingContext,
    lake: Lake,
    world: World,
    spec: LightSpec,
    parts: Mapping[str, Part],
    until: datetime,
    config: LightPipeline,
) -> Learned:
    """The funnel's log where it holds enough, else the replay of the last days before `until`."""
    if lake.has(CANDIDATES.name):
        releases = comparable_releases(Registry(ctx.mlflow_uri, ctx.mlflow_artifacts), parts)
        requests, outcomes = logged_requests(lake, until - config.log_days * DAY, until - DAY, releases)
        engaged = sum(len(outcome.engaged) for outcome in outcomes)
        if engaged >= config.least_logged:
            made = labelled(world, spec, requests, outcomes, cut=config.cut, seed=ctx.seed)
            return _in_days(*made, requests, f"{len(requests)} logged requests")
        ctx.progress(
            f"{MODEL}: the log holds {engaged} pins acted on; {config.least_logged} take the replay's place"
        )
    requests, outcomes, sources = [], [], None
    for back in range(config.days, 0, -1):
        cut = until - back * DAY
        try:
            held = hold_out(lake, cut, cut + DAY).sample(config.users, ctx.seed)
        except NothingHeldOut:
            continue
        sources = sources or Sources.of(ctx, parts, cut)
        replayed = replay(lake, world.pins, sources, held, ctx.seed)
        requests += requests_of(replayed)
        outcomes += outcomes_of(lake, replayed)
    if not requests:
        raise NothingToLearn(f"nobody acted on a new pin in the {config.days} days before {until:%Y-%m-%d}")
    made = labelled(world, spec, requests, outcomes, cut=config.cut, seed=ctx.seed)
    return _in_days(*made, requests, f"{len(requests)} replayed requests")


def _in_days(rows: LightRows, request: Ints, requests: list[Request], origin: str) -> Learned:
    days = np.array([one.time_ms for one in requests], np.int64) // rows_module.MS_PER_DAY
    return Learned(rows, request, days[request], origin)


def _best_share(learned: Learned, spec: LightSpec, config: LightPipeline, seed: int) -> float:
    """The weight of what was cut that keeps most on the last day, fitted on those before; the middle one
    where one day is all there is."""
    last = learned.day == learned.day.max()
    shares = config.unimpressed_shares
    if last.all() or not learned.rows.engaged[last].any() or len(shares) == 1:
        return shares[len(shares) // 2]
    before, held = (learned.rows.take(np.flatnonzero(rows)) for rows in (~last, last))
    orders = {}
    for share in shares:
        trees = config.trees.model_copy(update={"unimpressed_share": share})
        try:
            orders[str(share)] = fit_light(before, spec, trees, seed=seed).score(held.features)
        except NothingToLearn:
            return shares[len(shares) // 2]
    kept = funnel_recall(learned.request[last], held.engaged, orders, (config.budget,), logged=held.logged)
    return max(shares, key=lambda share: kept.mean(str(share), config.budget))


def comparable_releases(registry: Registry, parts: Mapping[str, Part]) -> set[int]:
    """Releases whose sources had the weights that `parts` have: only their scores mean the same."""
    wanted = weights_named(registry, parts)
    found = set()
    for version in registry.versions(RELEASE_MODEL):
        said = registry.params(RELEASE_MODEL, version)
        theirs = {
            role: Part(model=model, version=int(number))
            for role in ROLES
            if role in said
            for model, _, number in [said[role].partition("@")]
        }
        if weights_named(registry, theirs) == wanted:
            found.add(version)
    return found


def _others(metrics: Mapping[str, float]) -> str:
    kept = {name.removesuffix("/kept"): value for name, value in metrics.items() if name.endswith("/kept")}
    return ", ".join(f"{name} {value:.3f}" for name, value in kept.items() if name != LIGHT)
