"""A release's parts measured as they would serve, on days they were not fit to.

Retrieval: everything before the last days of the data is known, and their new positives are held out (KDD
2020, section 5). Ranking: the rows of the training set's test days. Per-user and per-row values are kept, so
that two releases compare pair by pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import PIN_TOPICS
from feature_repo.vectors.index import Filter
from feature_repo.vectors.replica import Replica
from feature_repo.vectors.rows import PinRows
from training.context import TrainingContext
from training.data.point_in_time import FeastPointInTime, PointInTime
from training.data.training_set import Block, PinVectors, TrainingSet, TrainingSetError, build
from training.evaluation.histories import Histories
from training.evaluation.retrieval import NEW_USERS, HeldOut, evaluate, popularity, user_metrics
from training.models.interactions import INTERACTION_FEATURES, Pins
from training.models.pin_board_graph import PinBoardGraph
from training.models.pinnability import Ranker
from training.models.pinnersage import PinnerSageConfig, sample_medoids, user_interests
from training.models.pixie import PixieSettings
from training.pipelines.pinnability import NEW_USER_POSITIVES, SET, split_of
from training.pipelines.pinnability import evaluate as evaluate_ranker
from training.pipelines.pixie import walk
from training.pipelines.user_actions import UserActions
from training.registry import digest_of
from validation.gates import Paired
from validation.lake import Lake

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

K = 100
SEARCHED = 300
"""Neighbours searched per medoid: past K, since pins the user knows are taken out."""
POPULAR = 2_000
"""Popular pins from which each user's K unknown ones are taken."""


@dataclass(frozen=True)
class Measured:
    """One part's metrics, and the values they are means of where two releases may be compared by them."""

    metrics: dict[str, float]
    units: Mapping[str, Floats] = field(default_factory=dict)
    """By metric: one value a user or a row, in the evaluation's order."""


def evaluation_id(held: HeldOut | None, rows: TrainingSet | None) -> str:
    """Identifies the held-out users and pins and the ranker's rows: equal ids, equal questions."""
    asked = (
        ""
        if held is None
        else digest_of(held.cut, held.end, *map(_digest, (held.users, held.offsets, held.pins)))
    )
    return digest_of("next_days", K, asked, "" if rows is None else rows.info.fingerprint)


def measure_pinnersage(
    ctx: TrainingContext, past: Histories, rows: PinRows, config: PinnerSageConfig
) -> Measured:
    """PinnerSage over the vectors of `rows` for every held-out user; see `measured`.

    Interests are those as of the cut, and only pins made before it are searched.
    """
    lake, held = Lake(ctx.lake), past.held
    actions = UserActions.read(lake, _pins(rows), lake.interval()[0], held.cut)
    replica = Replica.of("evaluated", rows)
    recommended = np.zeros((len(held), K), np.int64)
    for row, user_id in enumerate(held.users.tolist()):
        place = int(np.searchsorted(actions.users, user_id))
        if place == len(actions) or actions.users[place] != user_id:
            continue
        interests = user_interests(actions.history(place, past.cut_ms), past.cut_ms, config)
        drawn = sample_medoids(interests, config.sampled, seed=ctx.seed + user_id)
        if len(drawn):
            made_before = Filter(created_before_ms=past.cut_ms)
            hits = replica.search(interests.vectors[drawn], SEARCHED, flt=made_before)
            turns = hits.ids.T.ravel()  # every medoid's nearest first
            recommended[row] = _unknown(turns, past.known(user_id))
    return measured("pinnersage", recommended, held)


def measure_pixie(
    ctx: TrainingContext, past: Histories, graph: PinBoardGraph, settings: PixieSettings
) -> Measured:
    """Pixie on `graph`, which knows nothing after the cut, for every held-out user; see `measured`."""
    return measured("pixie", walk(graph, settings, past, k=K, seed=ctx.seed), past.held)


def measured(role: str, recommended: Ints, held: HeldOut) -> Measured:
    """Recall, hit rate and NDCG at 10, 50 and 100, overall and by slice, as `<role>/...`."""
    metrics = {f"{role}/{_plain(n)}": v for n, v in evaluate(recommended, held).items()}
    units = user_metrics(recommended, held, ks=(K,))
    return Measured(
        metrics, {f"{role}/{_plain(n)}": v for n, v in units.items() if n.startswith(f"recall@{K}")}
    )


def measure_baselines(ctx: TrainingContext, past: Histories) -> dict[str, float]:
    """Popularity of the 30 days before the cut as `popularity/...`, each user's known pins taken out, and
    `chance/recall_at_100`, of K pins drawn blindly from those made before the cut.
    """
    lake, held = Lake(ctx.lake), past.held
    most_popular = popularity(lake, held.cut, POPULAR)
    popular = np.stack([_unknown(most_popular, past.known(user)) for user in held.users.tolist()])
    created = lake.read("pins", ["created_at"])["created_at"]
    return measured("popularity", popular, held).metrics | {
        "chance/recall_at_100": K / max(int((created < held.cut).sum()), K)
    }


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
