"""The rankers that an evaluation fits by itself: Pinnability's, one model a head, told positions in training
or not, and TransAct, one network for every head.

The two without positions are the ablation of the position-bias switch. A pin shown first is acted on more,
whatever it is; a ranker that is not told so holds the pin responsible, and one that is told forgets it when
serving. Trees without the query are that of what searching tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.data.training_set import Block
from training.evaluation.ranking import MIN_POSITIVES, RankingData, RankingModel, Scores
from training.evaluation.served_scores import served_scores
from training.models.calibration import restore_rate
from training.models.pinnability import FeatureSpec, PinnabilityRanker
from training.pipelines.fitting import GbdtConfig, LogisticConfig, Rows, fit_gbdt, fit_logistic
from training.transact.examples import Known
from training.transact.fitting import TransActRecipe, fit_transact

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Logistic:
    """A logistic regression a head."""

    position: bool = True
    config: LogisticConfig = field(default_factory=LogisticConfig)
    seeded: bool = False

    def scores(self, data: RankingData, seed: int) -> Scores:
        spec = _spec(data, self.position)
        train = features(data.train, spec)
        return _scores(
            data,
            spec,
            [
                fit_logistic(_rows(train, data, data.train, h), spec, self.config)
                for h in range(len(data.heads))
            ],
        )


@dataclass(frozen=True)
class Gbdt:
    """Boosted trees a head, stopped by the validation rows."""

    position: bool = True
    query: bool = True
    config: GbdtConfig = field(default_factory=GbdtConfig)
    seeded: bool = True

    def scores(self, data: RankingData, seed: int) -> Scores:
        spec = _spec(data, self.position, self.query)
        train, held = features(data.train, spec), features(data.validation, spec)
        rankers = [
            fit_gbdt(
                _rows(train, data, data.train, h),
                _rows(held, data, data.validation, h),
                spec,
                self.config,
                seed=seed,
            )
            for h in range(len(data.heads))
        ]
        return _scores(data, spec, rankers)


@dataclass(frozen=True)
class TransAct:
    """The network that `corkboard train` makes, on the same rows; its budget of reads is the recipe's."""

    known: Callable[[], Known]
    """Reads what it joins the rows with."""
    position: bool = True
    recipe: TransActRecipe = field(default_factory=TransActRecipe)
    seeded: bool = True

    def scores(self, data: RankingData, seed: int) -> Scores:
        spec, actions = _spec(data, self.position), data.rows.info.action_names
        known = self.known()
        fitted = fit_transact(data.train, known, actions, spec, self.recipe, seed=seed)
        ranker = fitted.ranker
        columns = [ranker.heads.index(head) for head in data.heads]
        blocks = (data.validation, data.test)
        raw = [served_scores(ranker, block, known)[:, columns] for block in blocks]
        return Scores(*(restore_rate(p, fitted.negative_rate) for p in raw))


def models(data: RankingData, known: Callable[[], Known] | None = None) -> dict[str, RankingModel]:
    """Every ranker of the table; those without positions or query only where they were recorded, TransAct where
    `known` reads what it joins them with."""
    made: dict[str, RankingModel] = {"pinnability_logistic": Logistic(), "pinnability_gbdt": Gbdt()}
    if known is not None:
        # every head of the table, however few positives taught it
        made["transact"] = TransAct(known, recipe=TransActRecipe(min_positives=MIN_POSITIVES))
    if data.rows.info.has_position:
        made |= {"logistic_no_position": Logistic(position=False), "gbdt_no_position": Gbdt(position=False)}
    if data.rows.info.has_query:
        made["gbdt_no_query"] = Gbdt(query=False)
    return made


def features(block: Block, spec: FeatureSpec, *, serving: bool = False) -> Floats:
    """(n, len(spec.names)) with the positions that pins were shown at, or as `serving` has them."""
    position = None if serving else block.position
    return spec.assemble(block.user_scalars, block.pin_scalars, block.interactions, position, block.query)


def _spec(data: RankingData, position: bool, query: bool = True) -> FeatureSpec:
    info = data.rows.info
    return FeatureSpec(
        space=info.space, position=position and info.has_position, query=info.query_features if query else ()
    )


def _rows(assembled: Floats, data: RankingData, block: Block, head: int) -> Rows:
    return Rows(assembled, data.labels(block)[:, head].astype(np.float32), block.weight)


def _scores(data: RankingData, spec: FeatureSpec, rankers: Sequence[PinnabilityRanker]) -> Scores:
    parts = []
    for block in (data.validation, data.test):
        served = features(block, spec, serving=True)
        parts.append(np.column_stack([ranker.score(served) for ranker in rankers]))
    return Scores(*parts)
