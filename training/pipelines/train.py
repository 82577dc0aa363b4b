"""The whole training run in order: features, content space, words, PinSage, SearchSage, Pixie, learned
retrievers, PinnerSage, training set, rankers, light ranker.

    lake -> features -> Feast
         -> lexical@v (BM25 and popular queries)
         -> content@v -> Feast, Milvus
                      -> pinsage@v -> Feast, Milvus
                                   -> searchsage@v (queries, and the pins they find) -> Feast, Milvus
                                   -> pinnersage@v -> interests -> Feast
                      -> pixie@v (the pin-board graph)
                      -> pinnerformer@v -> Feast, Milvus; users' vectors -> Feast
                      -> dcm@v, conditional@v, two_tower@v -> Feast, Milvus
                      -> training set -> pinnability_logistic@v, pinnability_gbdt@v, transact@v
         all sources, replayed -> light_gbdt@v
                      -> training set of ads -> ads_multi_tower@v

PinnerSage lives in PinSage's space, as in the paper, and in the content space where PinSage does not find more
than content vectors do (`pinsage.shortfall`). Rankers stay in the content space: a PinSage vector knows what
people did up to the run's end, and an impression of last week must not.

Models that do not stand on each other are learned side by side (`lanes.py`); publishing stays in one process
and one order. Every step looks first whether it was already done on the same inputs, so the run can be stopped
anywhere and started again, and costs seconds where nothing changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from training.ads.trainer import NothingToLearn as NothingClicked
from training.context import TrainingContext
from training.data.point_in_time import FeastPointInTime
from training.data.splits import TooShort
from training.data.training_set import NoTrainingRows, TrainingSet
from training.evaluation.retrieval import NothingHeldOut
from training.interests.fitting import TooFewEngagements
from training.lanes import Lanes, Outcome
from training.models.interactions import Pins
from training.models.searchsage import TransformersMissing
from training.pinnerformer.trainer import NothingToPredict
from training.pipelines import ads as ads_pipeline
from training.pipelines import content as content_pipeline
from training.pipelines import lexical as lexical_pipeline
from training.pipelines import light as light_pipeline
from training.pipelines import pinnersage as pinnersage_pipeline
from training.pipelines import pinsage as pinsage_pipeline
from training.pipelines import pixie as pixie_pipeline
from training.pipelines import retrievers
from training.pipelines import searchsage as searchsage_pipeline
from training.pipelines import transact as transact_pipeline
from training.pipelines.ads import build_ads_set, train_ads
from training.pipelines.clock import run_interval
from training.pipelines.content import content_part, load_catalogue, train_content
from training.pipelines.fitting import NothingToLearn
from training.pipelines.interests import train_conditional, train_dcm
from training.pipelines.lexical import NoWords, train_lexical
from training.pipelines.light import NothingFetched, train_light
from training.pipelines.pinnability import Kind, build_training_set, train_pinnability
from training.pipelines.pinnerformer import TooFewLabels, train_pinnerformer
from training.pipelines.pinnersage import train_pinnersage
from training.pipelines.pinsage import train_pinsage
from training.pipelines.pinsage_world import TooFewPairs
from training.pipelines.pixie import NothingToWalk, train_pixie
from training.pipelines.publish import Publisher
from training.pipelines.retrievers import CONDITIONAL, DCM, PINNERFORMER, TWO_TOWER, NothingServed
from training.pipelines.searchsage import train_searchsage
from training.pipelines.steps import FEATURES, INSIDE, RANKERS, STEPS, Chosen
from training.pipelines.transact import train_transact
from training.pipelines.transact_settings import settings_of
from training.pipelines.two_tower import train_two_tower
from training.registry import TRAINED, Registry
from training.release_parts import newest_sources
from training.searchsage.pairs import TooFewQueries
from training.transact.trainer import NothingToLearn as NothingForTransAct
from validation.lake import Lake
from validation.manifest import CollectionCheck, Part


class TrainRetriever(Protocol):
    """How a learned retriever is trained over a content space."""

    def __call__(self, ctx: TrainingContext, content: Part, *, force: bool = False) -> Part: ...


RETRIEVERS: dict[str, TrainRetriever] = {
    PINNERFORMER: train_pinnerformer,
    DCM: train_dcm,
    CONDITIONAL: train_conditional,
    TWO_TOWER: train_two_tower,
}
"""In the order they are trained. DCM, conditional retrieval and the two-tower publish pins alone: services make
their users from the stored sequence."""


@dataclass(frozen=True)
class Trained:
    """What a run left in the registry and in the stores."""

    interval: tuple[datetime, datetime]
    """Actions the run knew, UTC, the end exclusive."""
    parts: dict[str, Part] = field(default_factory=dict)
    """By registered model name."""
    collections: tuple[CollectionCheck, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    """Steps left out, with the reason."""


def train(ctx: TrainingContext, models: Sequence[str] | None = None, force: bool = False) -> Trained:
    """Run the steps named in `models` (all by default) and what they stand on; what changed is redone.

    `force` redoes the named steps even where nothing changed. A step whose tables the lake lacks, or whose
    data cannot decide anything (one outcome only, too few days), is skipped, and what stands on it too.
    Raises UnknownStep, LakeError before the first ingest, Unreadable for a `transact.yaml` at fault, and
    LabelLeak where a feature of the rankers' rows knows what they are to foretell: then nothing after that step
    is made.
    """
    return _Run(ctx, Chosen(tuple(models or STEPS), force, Lake(ctx.lake), ctx.progress)).go()


@dataclass
class _Run:
    """One run under way."""

    ctx: TrainingContext
    steps: Chosen
    parts: dict[str, Part] = field(default_factory=dict)
    collections: list[CollectionCheck] = field(default_factory=list)

    def go(self) -> Trained:
        if transact_pipeline.MODEL in self.steps.wanted:  # a file at fault is told of before hours of work
            settings_of(self.ctx, Lake(self.ctx.lake).contract().vocabulary)
        publisher = Publisher(self.ctx)
        interval = run_interval(self.ctx)
        self.ctx.progress(f"training on {interval[0]:%Y-%m-%d} to {interval[1]:%Y-%m-%d} (end exclusive)")
        with Lanes(self.ctx) as lanes:
            features = None
            if self.steps.can_or_skip(FEATURES):
                features = lanes.start(FEATURES, _features, self.steps.forced(FEATURES))
            pins = self._content() if self.steps.reach(content_pipeline.MODEL) else None
            if features is not None:
                features.result()
            if pins is not None:
                self._from_content(publisher, lanes, pins)
        name = content_pipeline.MODEL
        if name in self.steps.skipped:
            self.steps.skip_after(name, f"it stands on the {name} space, which was skipped")
        return Trained(interval, self.parts, tuple(self.collections), self.steps.skipped)

    def _from_content(self, publisher: Publisher, lanes: Lanes, pins: Pins) -> None:
        """All that stands on the content space. Lanes are begun first, and published in turn; what this process
        learns itself comes before what only waits for them. Of what nothing waits for, the longest is first."""
        pinsage = self._begin_pinsage(lanes)
        retrieving = {name: self._begin_retriever(lanes, name) for name in RETRIEVERS}
        self._publish_content(publisher)
        self._lexical()
        rows = self._ranking_rows(publisher, pins)
        transact = self._begin_transact(lanes, rows, retrieving[PINNERFORMER])
        space = self._pinsage(publisher, pinsage) or self.parts[content_pipeline.MODEL]
        searching = self._begin_searchsage(lanes, space)
        ranking = self._begin_pinnability(lanes, rows) | transact
        ads = self._begin_ads(publisher, lanes, pins)
        self._pixie(pins)
        for name, learned in retrieving.items():
            self._retriever(publisher, name, learned)
        self._pinnersage(publisher, space)
        self._light(publisher, pins)
        self._searchsage(publisher, searching)
        self._rankers(ranking)
        self._ads(ads)
        publisher.online()

    def _content(self) -> Pins | None:
        """Every pin in the content space; None where there is no such space."""
        name = content_pipeline.MODEL
        if not self.steps.can_or_skip(name):
            return None
        part = self._content_part()
        pins = load_catalogue(self.ctx, part)
        if not pins.vectors.any():
            self.steps.skip(name, "no pin has a title, description, topic, link domain or embedding")
            return None
        self.parts[name] = part
        Registry(self.ctx.mlflow_uri, self.ctx.mlflow_artifacts).set_alias(name, TRAINED, part.version)
        return pins

    def _publish_content(self, publisher: Publisher) -> None:
        name = content_pipeline.MODEL
        if name in self.steps.wanted:
            self.collections.append(publisher.vectors(self.parts[name], self.steps.forced(name)))

    def _content_part(self) -> Part:
        """The content space: made anew where what it is made of changed, but for a warm start that does not ask
        for it, which goes on in the space there is."""
        name, registry = content_pipeline.MODEL, Registry(self.ctx.mlflow_uri, self.ctx.mlflow_artifacts)
        version = registry.trained(name) if self.ctx.warm_start and name not in self.steps.wanted else None
        if version is not None:
            return content_part(registry, version)
        return train_content(self.ctx, force=self.steps.forced(name))

    def _lexical(self) -> None:
        name = lexical_pipeline.MODEL
        if self.steps.take_or_skip(name):
            try:
                self.parts[name] = train_lexical(self.ctx, force=self.steps.forced(name))
            except NoWords as reason:
                self.steps.skip(name, str(reason))

    def _begin_pinsage(self, lanes: Lanes) -> Outcome[Part] | None:
        """PinSage where it is wanted, or what stands on it: PinnerSage and SearchSage."""
        name = pinsage_pipeline.MODEL
        if not {name, *INSIDE} & set(self.steps.wanted) or not self.steps.can_or_skip(name):
            return None
        content = self.parts[content_pipeline.MODEL]
        return lanes.start(name, train_pinsage, content, force=self.steps.forced(name))

    def _pinsage(self, publisher: Publisher, learned: Outcome[Part] | None) -> Part | None:
        """PinSage's space; None where data is too little for it, or for it to know more than content does."""
        name = pinsage_pipeline.MODEL
        if learned is None:
            return None
        try:
            part = learned.result()
        except TooFewPairs as reason:
            self.steps.skip(name, str(reason))
            return None
        self.parts[name] = part
        if reason := pinsage_pipeline.shortfall(part):
            self.steps.skip(name, reason)
            return None
        self.collections.append(publisher.vectors(part, self.steps.forced(name)))
        return part

    def _begin_searchsage(self, lanes: Lanes, space: Part) -> Outcome[Part] | None:
        """The query encoder, over the space that similar pins are served from."""
        name = searchsage_pipeline.MODEL
        if not self.steps.take_or_skip(name):
            return None
        return lanes.start(name, train_searchsage, space, force=self.steps.forced(name))

    def _searchsage(self, publisher: Publisher, learned: Outcome[Part] | None) -> None:
        """Search by meaning, its pins published where it learned enough to be served."""
        name = searchsage_pipeline.MODEL
        if learned is None:
            return
        try:
            part = self.parts[name] = learned.result()
        except (TooFewQueries, NothingHeldOut, TransformersMissing) as reason:
            self.steps.skip(name, str(reason))
            return
        if reason := searchsage_pipeline.shortfall(part):
            self.steps.skip(name, reason)
            return
        self.collections.append(publisher.vectors(part, self.steps.forced(name)))

    def _pixie(self, pins: Pins) -> None:
        name, content = pixie_pipeline.MODEL, self.parts[content_pipeline.MODEL]
        if self.steps.take_or_skip(name):
            try:
                self.parts[name] = train_pixie(self.ctx, content, pins, force=self.steps.forced(name))
            except NothingToWalk as reason:
                self.steps.skip(name, str(reason))

    def _begin_retriever(self, lanes: Lanes, name: str) -> Outcome[Part] | None:
        if not self.steps.take_or_skip(name):
            return None
        content = self.parts[content_pipeline.MODEL]
        return lanes.start(name, RETRIEVERS[name], content, force=self.steps.forced(name))

    def _retriever(self, publisher: Publisher, name: str, learned: Outcome[Part] | None) -> None:
        """A learned retriever in a space of its own, published where it learned enough to be served."""
        if learned is None:
            return
        try:
            part = learned.result()
        except (NothingHeldOut, NothingServed, TooFewLabels, NothingToPredict, TooFewEngagements) as reason:
            self.steps.skip(name, str(reason))
            return
        self.parts[name] = part
        if reason := retrievers.shortfall(part):
            self.steps.skip(name, reason)
            return
        self.collections.append(publisher.vectors(part, self.steps.forced(name)))
        if name == PINNERFORMER:
            publisher.users(part, self.steps.forced(name))

    def _pinnersage(self, publisher: Publisher, pins: Part) -> None:
        name = pinnersage_pipeline.MODEL
        if self.steps.take_or_skip(name):
            part = self.parts[name] = train_pinnersage(self.ctx, pins, force=self.steps.forced(name))
            publisher.interests(part, pins, self.steps.forced(name))

    def _ranking_rows(self, publisher: Publisher, pins: Pins) -> TrainingSet | None:
        """The rows of impressions that rankers learn from; None where none is to learn, or there are none."""
        steps = [name for name in RANKERS if self.steps.take_or_skip(name)]
        if not steps:
            return None
        try:
            return build_training_set(self.ctx, publisher.store, self.parts[content_pipeline.MODEL], pins)
        except NoTrainingRows as reason:
            for name in steps:
                self.steps.skip(name, str(reason))
            return None

    def _learns(self, name: str) -> bool:
        """Whether a ranker learns from the rows, which `_ranking_rows` has made."""
        return name in self.steps.wanted and name not in self.steps.skipped

    def _begin_pinnability(self, lanes: Lanes, rows: TrainingSet | None) -> dict[str, Outcome[Part]]:
        """The regression and the trees, by model."""
        if rows is None:
            return {}
        content = self.parts[content_pipeline.MODEL]
        return {
            kind.model: lanes.start(
                kind.model, train_pinnability, kind, rows, content, force=self.steps.forced(kind.model)
            )
            for kind in Kind
            if self._learns(kind.model)
        }

    def _begin_transact(
        self, lanes: Lanes, rows: TrainingSet | None, pinnerformer: Outcome[Part] | None
    ) -> dict[str, Outcome[Part]]:
        """TransAct by its model, once this run's PinnerFormer is there: it reads users' vectors by it."""
        name = transact_pipeline.MODEL
        if rows is None or not self._learns(name):
            return {}
        if pinnerformer is not None:
            with contextlib.suppress(Exception):  # what went wrong is said where it is published
                pinnerformer.result()
        content = self.parts[content_pipeline.MODEL]
        return {name: lanes.start(name, _ranker, train_transact, rows, content, self.steps.forced(name))}

    def _rankers(self, learned: dict[str, Outcome[Part]]) -> None:
        for name, ranker in learned.items():
            try:
                self.parts[name] = ranker.result()
            except (TooShort, NothingToLearn, NothingForTransAct) as reason:
                self.steps.skip(name, str(reason))

    def _light(self, publisher: Publisher, pins: Pins) -> None:
        """The light ranker over the sources of the release that these versions make."""
        name = light_pipeline.MODEL
        if not self.steps.take_or_skip(name):
            return
        try:
            sources = newest_sources(self.ctx)
            self.parts[name] = train_light(
                self.ctx, FeastPointInTime(publisher.store), sources, pins, force=self.steps.forced(name)
            )
        except (NothingHeldOut, NothingToLearn, NothingFetched) as reason:
            self.steps.skip(name, str(reason))

    def _begin_ads(self, publisher: Publisher, lanes: Lanes, pins: Pins) -> Outcome[Part] | None:
        name = ads_pipeline.MODEL
        if not self.steps.take_or_skip(name):
            return None
        content = self.parts[content_pipeline.MODEL]
        try:
            rows = build_ads_set(self.ctx, publisher.store, content, pins)
        except NoTrainingRows as reason:
            self.steps.skip(name, str(reason))
            return None
        return lanes.start(name, _ranker, train_ads, rows, content, self.steps.forced(name))

    def _ads(self, learned: Outcome[Part] | None) -> None:
        if learned is None:
            return
        try:
            self.parts[ads_pipeline.MODEL] = learned.result()
        except (TooShort, NothingClicked) as reason:
            self.steps.skip(ads_pipeline.MODEL, str(reason))


def _features(ctx: TrainingContext, force: bool) -> None:
    """Build the features and bring them online: in a lane, beside the content space."""
    Publisher(ctx).features(force)


class _TrainRanker(Protocol):
    """How a ranker over a catalogue's vectors is trained."""

    def __call__(
        self, ctx: TrainingContext, rows: TrainingSet, content: Part, pins: Pins, *, force: bool = False
    ) -> Part: ...


def _ranker(
    ctx: TrainingContext, train_it: _TrainRanker, rows: TrainingSet, content: Part, force: bool
) -> Part:
    """Train one in a lane, where the catalogue is read and not sent."""
    return train_it(ctx, rows, content, load_catalogue(ctx, content), force=force)
