"""A release measured as it would serve: its stored vectors, its PinnerSage, its ranker, on days not fit to.

Retrieval: everything before the last days of the data is known, their new positives are held out (KDD
2020, section 5), and the release's medoids search its own collection's vectors. Ranking: the rows of the
training set's test days. Per-user and per-row values are kept, so that two releases compare pair by pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import PIN_TOPICS
from feature_repo.vectors.index import Filter
from feature_repo.vectors.replica import Replica
from feature_repo.vectors.rows import PinRows
from training.context import TrainingContext
from training.data.point_in_time import FeastPointInTime, PointInTime
from training.data.training_set import Block, PinVectors, TrainingSet, TrainingSetError, build
from training.evaluation.retrieval import (
    NEW_USER_ACTIONS,
    NEW_USERS,
    OVERALL,
    TAIL_TOPICS,
    HeldOut,
    NothingHeldOut,
    evaluate,
    hold_out,
    popularity,
)
from training.models.interactions import INTERACTION_FEATURES, Pins
from training.models.pinnability import Ranker
from training.models.pinnersage import PinnerSageConfig, sample_medoids, user_interests
from training.pipelines.pinnability import NEW_USER_POSITIVES, SET, split_of
from training.pipelines.pinnability import evaluate as evaluate_ranker
from training.pipelines.pinnersage import HOLDOUT_DAYS, HOLDOUT_USERS
from training.pipelines.user_actions import UserActions
from training.registry import digest_of
from validation.gates import Paired
from validation.lake import Lake

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

K = 100
SEARCHED = 300
"""Neighbours searched per medoid: past K, since pins the user knows are taken out."""
EVALUATED_USERS = 2_000
POPULAR = 2_000
"""Popular pins from which each user's K unknown ones are taken."""


@dataclass(frozen=True)
class Measured:
    """One part's metrics, and the values they are means of where two releases may be compared by them."""

    metrics: dict[str, float]
    units: Mapping[str, Floats] = field(default_factory=dict)
    """By metric: one value a user or a row, in the evaluation's order."""


def held_out(ctx: TrainingContext, end: datetime) -> HeldOut:
    """New positives of the last day before `end`, of EVALUATED_USERS at most.

    Of more days where one holds fewer than HOLDOUT_USERS users: data rarely ends at midnight, and a last day of
    a few hours would decide by noise. Raises NothingHeldOut where even a week holds nothing.
    """
    lake, found = Lake(ctx.lake), None
    nothing = NothingHeldOut(f"nothing is held out before {end}")
    for days in HOLDOUT_DAYS:
        try:
            found = hold_out(lake, end - timedelta(days=days), end)
        except NothingHeldOut as error:
            nothing = error
            continue
        if len(found) >= HOLDOUT_USERS:
            break
    if found is None:
        raise nothing
    return found.sample(EVALUATED_USERS, ctx.seed)


def evaluation_id(held: HeldOut | None, rows: TrainingSet | None) -> str:
    """Identifies the held-out users and pins and the ranker's rows: equal ids, equal questions."""
    asked = (
        ""
        if held is None
        else digest_of(held.cut, held.end, *map(_digest, (held.users, held.offsets, held.pins)))
    )
    return digest_of("next_days", K, asked, "" if rows is None else rows.info.fingerprint)


def measure_retrieval(
    ctx: TrainingContext, held: HeldOut, stored: PinRows, config: PinnerSageConfig
) -> Measured:
    """PinnerSage over `stored` vectors for every held-out user: recall, hit rate and NDCG at 10, 50 and 100.

    Interests are those as of the cut and only pins made before it are searched. Also the same of popularity
    (30 days before the cut, the user's known pins taken out of both), as `popularity/...`, and the recall of
    K pins drawn blindly.
    """
    lake = Lake(ctx.lake)
    pins = _pins(stored)
    actions = UserActions.read(lake, pins, lake.interval()[0], held.cut)
    replica = Replica.of("evaluated", stored)
    cut_ms = int(held.cut.timestamp() * 1000)
    recommended = np.zeros((len(held), K), np.int64)
    popular = np.zeros((len(held), K), np.int64)
    most_popular = popularity(lake, held.cut, POPULAR)
    for row, user_id in enumerate(held.users.tolist()):
        place = int(np.searchsorted(actions.users, user_id))
        if place == len(actions) or actions.users[place] != user_id:
            popular[row] = most_popular[:K]
            continue
        history = actions.history(place, cut_ms)
        interests = user_interests(history, cut_ms, config)
        drawn = sample_medoids(interests, config.sampled, seed=ctx.seed + user_id)
        known = np.unique(history.pin_ids)
        if len(drawn):
            hits = replica.search(interests.vectors[drawn], SEARCHED, flt=Filter(created_before_ms=cut_ms))
            recommended[row] = _unknown(hits.ids.T.ravel(), known)  # in turns: every medoid's nearest first
        popular[row] = _unknown(most_popular, known)
    metrics = {f"retrieval/{_plain(n)}": v for n, v in evaluate(recommended, held).items()}
    metrics |= {f"popularity/{_plain(n)}": v for n, v in evaluate(popular, held).items()}
    searchable = int((stored.created_at_ms < cut_ms).sum())
    metrics["retrieval/chance_recall_at_100"] = K / max(searchable, K)
    return Measured(metrics, {f"retrieval/{n}": v for n, v in user_recalls(recommended, held).items()})


def user_recalls(recommended: Ints, held: HeldOut) -> dict[str, Floats]:
    """Recall@K of each user, overall and by slice; (users of the slice,) each, in the order of `held.users`."""
    owner, width = held.owner, len(held)
    listed = {(u, p) for u, row in enumerate(recommended[:, :K].tolist()) for p in row if p}
    pairs = zip(owner.tolist(), held.pins.tolist(), strict=True)
    found = np.fromiter((pair in listed for pair in pairs), bool, len(owner))
    out = {}
    everyone, new = np.ones(width, bool), held.history < NEW_USER_ACTIONS
    for name, users, counted in (
        (OVERALL, everyone, np.ones(len(owner), bool)),
        (NEW_USERS, new, np.ones(len(owner), bool)),
        (TAIL_TOPICS, everyone, held.tail),
    ):
        total = np.bincount(owner[counted], minlength=width)
        hits = np.bincount(owner[counted & found], minlength=width)
        chosen = users & (total > 0)
        if chosen.any():
            out["recall_at_100" + ("" if name == OVERALL else f"/{name}")] = hits[chosen] / total[chosen]
    return out


def ranking_rows(ctx: TrainingContext) -> TrainingSet | None:
    """The newest training set of rankers, None where there is none."""
    rows = TrainingSet(ctx.training_sets / SET)
    try:
        _ = rows.info
    except TrainingSetError:
        return None
    return rows


def tested_rows(ctx: TrainingContext, rows: TrainingSet, space: str, stored: PinRows | None) -> Block:
    """The test days' rows with interactions in `space`.

    Straight from `rows` where they are of that space; otherwise those days are joined anew with the `stored`
    vectors, beside it.
    """
    test = split_of(rows.info).test
    if rows.info.space == space:
        return rows.block(test)
    if stored is None:
        raise ValueError(f"the rows are of {rows.info.space}; vectors of {space} are needed to join them anew")
    return build(
        Lake(ctx.lake),
        point_in_time(ctx),
        ctx.training_sets / f"{SET}_{space.replace('@', '_')}",
        start=test.start,
        end=test.end,
        vectors=PinVectors(space, stored.ids, stored.vectors),
        config=rows.info.config,
        progress=ctx.progress,
    ).block()


def point_in_time(ctx: TrainingContext) -> PointInTime:
    """Historical features of the context's Feast repository."""
    from feature_repo.store import open_store

    return FeastPointInTime(open_store(ctx.feast_home))


def measure_ranker(ranker: Ranker, block: Block) -> Measured:
    """The ranker's metrics as `ranker/...` and its log loss row by row, overall and on new users."""
    metrics, score = evaluate_ranker(ranker, block)
    out = {f"ranker/{name}": value for name, value in metrics.items()}
    out |= normalized_entropy(out)
    p = np.clip(score.astype(np.float64), 1e-7, 1 - 1e-7)
    loss = -np.where(block.label > 0, np.log(p), np.log1p(-p))
    units = {"ranker/log_loss": loss}
    new = _new_users(block)
    if new.any():
        units[f"ranker/log_loss/{NEW_USERS}"] = loss[new]
    return Measured(out, units)


def normalized_entropy(metrics: Mapping[str, float]) -> dict[str, float]:
    """`ranker/normalized_entropy` of `ranker/...` metrics: log loss over that of the base rate; or nothing."""
    rows, positives = metrics.get("ranker/rows", 0.0), metrics.get("ranker/positives", 0.0)
    if not 0 < positives < rows or "ranker/log_loss" not in metrics:
        return {}
    rate = positives / rows
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    return {"ranker/normalized_entropy": float(metrics["ranker/log_loss"] / entropy)}


def same_rows(a: Block, b: Block) -> bool:
    """Whether two blocks ask about the same impressions in the same order."""
    keys = ["request_id", "user_id", "pin_id", "timestamp"]
    return len(a) == len(b) and a.keys[keys].equals(b.keys[keys])


def paired(metric: str, candidate: Floats, champion: Floats, *, larger_is_better: bool = True) -> Paired:
    """The means of two aligned samples and the standard error of their difference."""
    difference = candidate - champion
    n = len(difference)
    error = float(difference.std(ddof=1) / np.sqrt(n)) if n > 1 else float(np.abs(difference).sum())
    return Paired(
        metric=metric,
        candidate=float(candidate.mean()),
        champion=float(champion.mean()),
        standard_error=error,
        n=n,
        larger_is_better=larger_is_better,
    )


def _pins(stored: PinRows) -> Pins:
    topics = np.zeros((len(stored), PIN_TOPICS), np.int64)
    for row in range(len(stored)):
        own = stored.topics(row)[:PIN_TOPICS]
        topics[row, : len(own)] = own
    return Pins(stored.ids, stored.vectors, topics, stored.created_at_ms)


def _unknown(ids: Ints, known: Ints) -> Ints:
    """The first K distinct ids that are neither padding nor `known`, zero-padded, (K,)."""
    kept = ids[(ids > 0) & ~np.isin(ids, known)]
    _, first = np.unique(kept, return_index=True)
    kept = kept[np.sort(first)][:K]
    return np.pad(kept, (0, K - len(kept)))


def _new_users(block: Block) -> NDArray[np.bool_]:
    return block.interactions[:, INTERACTION_FEATURES.index("sequence_positives")] < NEW_USER_POSITIVES


def _plain(name: str) -> str:
    """`recall@100/new_users` as `recall_at_100/new_users`: MLflow takes no @ in a metric's name."""
    return name.replace("@", "_at_")


def _digest(array: NDArray[np.generic]) -> str:
    return digest_of(array.tobytes().hex())
