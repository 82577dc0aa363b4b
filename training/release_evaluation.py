"""A release's parts measured as they would serve, on days they were not fit to.

Retrieval: everything before the last days of the data is known, and their new positives are held out (KDD
2020, section 5). Ranking: the rows of the training set's test days. Per-user and per-row values are kept, so
that two releases compare pair by pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import PIN_TOPICS
from feature_repo.vectors.index import Filter
from feature_repo.vectors.replica import Replica
from feature_repo.vectors.rows import PinRows
from training.context import TrainingContext
from training.data.point_in_time import FeastPointInTime, PointInTime
from training.data.splits import Interval
from training.data.training_set import Block, PinVectors, TrainingSet, TrainingSetError, build
from training.digests import digest_of
from training.evaluation.histories import Histories
from training.evaluation.measured import K, Measured, measured, unknown
from training.evaluation.ranker_metrics import engage_losses, ranker_metrics, row_slices
from training.evaluation.retrieval import HeldOut
from training.evaluation.served import (
    AtCut,
    conditional_serves,
    dcm_serves,
    pinnerformer_serves,
    two_tower_serves,
)
from training.evaluation.served_scores import served_scores
from training.models.calibration import Calibrator
from training.models.interactions import Pins
from training.models.interests import InterestNetwork
from training.models.pin_board_graph import PinBoardGraph
from training.models.pinnerformer import PinnerFormer
from training.models.pinnersage import PinnerSageConfig, sample_medoids, user_interests
from training.models.pixie import PixieSettings
from training.models.ranker import Ranker
from training.models.two_tower import TwoTower
from training.pipelines.pinnability import SET, split_of
from training.pipelines.pixie import walk
from training.pipelines.retrievers import CONDITIONAL, DCM, LEARNED, PINNERFORMER, TWO_TOWER
from training.pipelines.user_actions import UserActions
from training.transact.examples import Known
from validation.lake import Lake

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEARCHED = 300
"""Neighbours searched per medoid: past K, since pins the user knows are taken out."""


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
            recommended[row] = unknown(turns, past.known(user_id))
    return measured("pinnersage", recommended, held)


def measure_pixie(
    ctx: TrainingContext, past: Histories, graph: PinBoardGraph, settings: PixieSettings
) -> Measured:
    """Pixie on `graph`, which knows nothing after the cut, for every held-out user; see `measured`."""
    return measured("pixie", walk(graph, settings, past, k=K, seed=ctx.seed), past.held)


def measure_learned(model: str, files: Path, at: AtCut, seed: int) -> Measured:
    """A learned retriever (one of `LEARNED`) from its version's files, as it would have served at the cut;
    no metrics where it would have served nobody."""
    if model == PINNERFORMER:
        served = pinnerformer_serves(PinnerFormer.load(files), at)
    elif model == DCM:
        served = dcm_serves(InterestNetwork.load(files), at)
    elif model == CONDITIONAL:
        served = conditional_serves(InterestNetwork.load(files), at, seed)
    elif model == TWO_TOWER:
        served = two_tower_serves(TwoTower.load(files), at)
    else:
        raise ValueError(f"{model} is no learned retriever; they are {', '.join(LEARNED)}")
    return measured(model, served.recommended, served.held) if len(served.held) else Measured({})


def ranking_rows(ctx: TrainingContext) -> TrainingSet | None:
    """The newest training set of rankers, None where there is none."""
    rows = TrainingSet(ctx.training_sets / SET)
    try:
        _ = rows.info
    except TrainingSetError:
        return None
    return rows


class NothingTested(LookupError):
    """A ranker has learned from every day that it could be measured on."""


def tested_days(rows: TrainingSet, since: datetime | None = None) -> Interval:
    """The test days of `rows`, those from before `since` left out: nothing is tested on what it has seen.

    Raises NothingTested where no day is left.
    """
    test = split_of(rows.info).test
    start = test.start if since is None else max(test.start, since)
    if start >= test.end:
        raise NothingTested(f"a ranker learned until {since:%Y-%m-%d}, where the rows to test on end")
    return Interval(start, test.end)


def tested_rows(
    ctx: TrainingContext, rows: TrainingSet, space: str, stored: PinRows | None, test: Interval
) -> Block:
    """The rows of `test` with interactions in `space`.

    Straight from `rows` where they are of that space; otherwise those days are joined anew with the `stored`
    vectors, beside it.
    """
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


def measure_ranker(
    ranker: Ranker, calibrator: Calibrator, block: Block, actions: Sequence[str], known: Known | None
) -> Measured:
    """The ranker's metrics as `ranker/...` and the log loss of its chance of any positive action row by row,
    overall, on new users and on each surface: what two rankers of any heads have in common."""
    raw = served_scores(ranker, block, known)
    made = calibrator.calibrate(raw, block.columns(calibrator.features))
    metrics = ranker_metrics(ranker.heads, actions, raw, made, block)
    out = {f"ranker/{name}": value for name, value in metrics.items()}
    out |= normalized_entropy(out)
    loss = engage_losses(ranker.heads, made, block)
    users = block.keys["user_id"].to_numpy()
    units, owners = {"ranker/log_loss": loss}, {"ranker/log_loss": users}
    for name, rows in row_slices(block).items():
        units[f"ranker/log_loss/{name}"], owners[f"ranker/log_loss/{name}"] = loss[rows], users[rows]
    return Measured(out, units, owners)


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


def _pins(stored: PinRows) -> Pins:
    topics = np.zeros((len(stored), PIN_TOPICS), np.int64)
    for row in range(len(stored)):
        own = stored.topics(row)[:PIN_TOPICS]
        topics[row, : len(own)] = own
    return Pins(stored.ids, stored.vectors, topics, stored.created_at_ms)


def _digest(array: NDArray[np.generic]) -> str:
    return digest_of(array.tobytes().hex())
