"""Train SearchSage: pairs from a lake, a query tower over frozen pins, its evaluation and registration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import training.searchsage as searchsage_training
from feature_repo.schema import SEARCHSAGE_SERVICE
from training.context import TrainingContext
from training.cpu import tune_cpu
from training.digests import digest_files, digest_of
from training.evaluation import blending as blending_module
from training.evaluation import judged_queries as judged_module
from training.evaluation.blending import LISTED
from training.evaluation.judged_queries import engaged_queries
from training.model_log import FLAVOURS, Dataset, ModelLog, pinned
from training.models import lexical as lexical_model
from training.models import search_fusion as search_fusion_module
from training.models import searchsage as searchsage_model
from training.models import sentence as sentence_model
from training.models import weights as weights_module
from training.models.content import AUTO, open_text_encoder
from training.models.search_fusion import SearchFusion
from training.models.searchsage import QueryEncoder
from training.models.searchsage.network import start
from training.models.searchsage.pins import PinSpace
from training.pipelines import content as content_pipeline
from training.pipelines import search_measures as search_measures_module
from training.pipelines import search_space as search_space_module
from training.pipelines import search_world as search_world_module
from training.pipelines.clock import run_end
from training.pipelines.content import content_space_of
from training.pipelines.registering import Kept, flat_params, kept_weights, register, space_part, unchanged
from training.pipelines.search_measures import MODEL, measure
from training.pipelines.search_space import PIN_SPACE_TAG
from training.pipelines.search_world import Learning, SearchSagePipeline, SearchWorld
from training.registry import LEARNED_UNTIL_TAG, Registry
from training.searchsage.evaluation import nearest_pins, word_pins
from training.searchsage.fusing import chosen_fusion
from training.searchsage.pairs import SplitPairs
from training.searchsage.trainer import train
from validation.gate_bounds import GateBounds
from validation.lake import Lake
from validation.manifest import Part
from validation.tables import QUERY_JUDGEMENTS

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

CHECKED_TOGETHER = "hybrid/checked_recall_at_10"
TABLES = ("pins", "topics", "actions")
CODE = (
    Path(searchsage_model.__file__).parent,
    Path(searchsage_training.__file__).parent,
    Path(blending_module.__file__),
    Path(judged_module.__file__),
    Path(lexical_model.__file__).parent,
    Path(search_fusion_module.__file__),
    Path(search_measures_module.__file__),
    Path(search_space_module.__file__),
    Path(search_world_module.__file__),
    Path(sentence_model.__file__),
    Path(weights_module.__file__),
    Path(__file__),
)

PAIRS_TAG = "pairs"
SEARCHES, TITLES = "searches", "titles"
"""What a version's pairs were made of."""

POPULARITY_Z = 2.33
"""Standard errors of recall that queries may lie below popularity: one-sided, 1 %."""


def train_searchsage(
    ctx: TrainingContext, pins: Part, config: SearchSagePipeline | None = None, *, force: bool = False
) -> Part:
    """Train, measure and register a query encoder and the space of pins that it maps into; the part whose space
    is `searchsage@<version>`. `pins` is the newest space that theirs is joined from: PinSage's or content.

    The version already made from the same tables, pins, configuration, text encoder and code is returned as it
    is, unless `force`; a run that was cut short goes on from its last checkpoint. With `ctx.keep_weights`,
    where `pins` has the weights that the newest version was learned on, nothing is learned: the next version
    has the pins of today. Raises TooFewQueries, NothingHeldOut, TransformersMissing, SentenceEncoderMissing,
    and LakeError where pins or actions are missing.
    """
    lake, registry = Lake(ctx.lake), Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    config, end = configured(ctx, config), run_end(ctx)
    kept = kept_weights(registry, MODEL, pins, tag=PIN_SPACE_TAG) if ctx.keep_weights else None
    tables = (*TABLES, QUERY_JUDGEMENTS.name)
    data, reader = lake.digest(tables), _reader(config)
    learned = (config.model_dump_json(), reader) if kept is None else kept.learned_at
    inputs = digest_of(MODEL, data, end, pins.space, learned, digest_files(CODE))
    if version := unchanged(ctx, MODEL, inputs, force=force):
        return searchsage_part(registry, version)
    tune_cpu()
    if kept is None:
        world = SearchWorld.read(ctx, pins, config)
        encoder, fusion, metrics = _learn(ctx, world, pins, config, ctx.training_sets / f"{MODEL}-{inputs}")
    else:
        files = registry.download(MODEL, kept.version)
        world = SearchWorld.read(ctx, pins, config, since=kept.learned_until, space=PinSpace.load(files))
        encoder, fusion, metrics = _kept(ctx, files, kept, pins), SearchFusion.load(files), {}
    metrics |= measure(world, encoder, fusion)
    pairs = TITLES if world.split.of_titles else SEARCHES
    tags = {LEARNED_UNTIL_TAG: world.split.cut.isoformat()} if kept is None else kept.tags
    log = ModelLog(
        name=MODEL,
        flavour=FLAVOURS / "searchsage.py",
        description=f"A query among frozen pins, joined from what they say and from {pins.space}: "
        f"{encoder.origin} fine-tuned end to end, one linear readout (SearchSage, Pinterest Engineering 2021).",
        params=flat_params(config) | {PIN_SPACE_TAG: pins.space, "text_encoder": encoder.origin},
        metrics=metrics,
        interval=(lake.interval()[0], end),
        datasets=(Dataset(", ".join(tables), str(ctx.lake), data),),
        signature=_signature(encoder.dimension),
        requirements=pinned("numpy", "pydantic", "safetensors", "tokenizers", "torch", "transformers"),
        inputs=inputs,
        tags=_stands_on(registry, pins) | {"feature_service": SEARCHSAGE_SERVICE, PAIRS_TAG: pairs} | tags,
        notes=_notes(world.split, tags[LEARNED_UNTIL_TAG]) + _weighs(fusion, metrics) + lake.contract().notes,
    )

    def save(folder: Path) -> None:
        encoder.save(folder)
        world.space.save(folder)
        fusion.save(folder)

    return searchsage_part(registry, register(ctx, log, save))


def searchsage_part(registry: Registry, version: int) -> Part:
    """The release part of one version."""
    return space_part(registry, MODEL, version, SEARCHSAGE_SERVICE)


def shortfall(part: Part) -> str | None:
    """Why a version is not to be served; None where it is.

    It is where it finds more than chance by the factor that gates hold retrievers to and, beyond the spread
    over queries, no less than the pins that most people engaged with after any search; and where a search by
    words and meaning together, as it is served, finds no less than one by words alone.
    """
    recall, chance, popular = (part.metrics[f"{name}/recall_at_10"] for name in (MODEL, "chance", "popularity"))
    floor = min(GateBounds().min_recall_over_chance * chance, (1 + chance) / 2)
    spread = POPULARITY_Z * part.metrics[f"{MODEL}/recall_error_at_10"]
    gain, error = (part.metrics.get(f"hybrid/recall_{name}_at_10", 0.0) for name in ("gain", "gain_error"))
    if gain + POPULARITY_Z * error < 0:
        return (
            f"{part.model}@{part.version} takes from search: recall@10 of held-out pairs is {-gain:.4f} lower "
            "by words and meaning together than by words alone"
        )
    if recall + spread >= max(floor, popular):
        return None
    return (
        f"{part.model}@{part.version} learned too little from this data: recall@10 of held-out pairs is "
        f"{recall:.4f}, popularity's {popular:.4f}, and the floor over chance {floor:.4f}"
    )


def fit(
    world: SearchWorld, config: SearchSagePipeline, space: str, **how: object
) -> tuple[QueryEncoder, SearchFusion, dict[str, float]]:
    """(encoder, how it is fused with words, what it says of its training) of the pairs before the cut; `how` is
    as in `trainer.train`.

    Titles are what pins say and not how people ask: an encoder that has read more than them, and reads the
    pins' own texts, keeps its weights.
    """
    width = world.pins.vectors.shape[1]
    tower, tokens, origin = start(config.network, width, world.texts(), config.training.seed)
    own_words = world.space.sentences is not None and str(world.space.sentences) == origin
    text = world.space.rotation if own_words and config.network.reads_as_sentences else None
    learning, training = world.learning(config.checked_share), config.training
    if world.split.of_titles and text is not None:
        training = training.model_copy(update={"epochs": 0})
    trained = train(
        tower,
        tokens,
        learning.pairs,
        learning.pins,
        training,
        checked=learning.checked,
        text=text,
        **how,  # type: ignore[arg-type]
    )
    own = {"learned_pairs": float(trained.pairs)}
    own |= {f"checked_recall_at_10/{share:g}": recall for share, recall in trained.recall.items()}
    if trained.losses:
        own["final_loss"] = trained.losses[-1]
    encoder = QueryEncoder(tower, tokens, space, longest=config.network.max_tokens, origin=origin)
    fusion, found = _fusion(world, learning, encoder)
    return encoder, fusion, own | found


def _fusion(
    world: SearchWorld, learning: Learning, encoder: QueryEncoder
) -> tuple[SearchFusion, dict[str, float]]:
    """Chosen on the checked pairs, with its recall of them; titles, whose words are the pin's own, choose
    nothing."""
    ids = learning.pins.ids[learning.pins.candidates]
    asked = engaged_queries(learning.checked, ids)
    if world.split.of_titles or not len(asked):
        return SearchFusion(), {}
    words = word_pins(world.words(ids), asked.queries, LISTED)
    meaning = nearest_pins(encoder.encode(asked.queries), learning.pins, LISTED)
    fusion, recall = chosen_fusion(meaning, words, asked)
    return fusion, {CHECKED_TOGETHER: recall}


def _learn(
    ctx: TrainingContext, world: SearchWorld, pins: Part, config: SearchSagePipeline, checkpoints: Path
) -> tuple[QueryEncoder, SearchFusion, dict[str, float]]:
    split = world.split
    of = "titles, for nobody searched" if split.of_titles else "searches"
    ctx.progress(f"{MODEL}: learning from {len(split.train)} pairs of {of}, {len(split.train.queries)} queries")
    identity = f"{pins.space} {split.cut} {checkpoints.name}"
    return fit(
        world, config, pins.space or "", identity=identity, checkpoints=checkpoints, progress=ctx.progress
    )


def _kept(ctx: TrainingContext, files: Path, kept: Kept, pins: Part) -> QueryEncoder:
    ctx.progress(f"{MODEL}: pins joined from {pins.space}, queries by the weights of {MODEL}@{kept.learned_at}")
    encoder = QueryEncoder.load(files)
    encoder.stands_on = pins.space or ""
    return encoder


def _stands_on(registry: Registry, pins: Part) -> dict[str, str]:
    """Tags of the spaces that pins are joined from."""
    content = pins.space if pins.model == content_pipeline.MODEL else content_space_of(registry, pins)
    return {PIN_SPACE_TAG: pins.space or "", "content_space": content or ""}


def configured(ctx: TrainingContext, config: SearchSagePipeline | None = None) -> SearchSagePipeline:
    """With the run's seed, and its text encoder where the configuration leaves that open."""
    config = config or SearchSagePipeline()
    network = config.network
    if network.text_encoder == AUTO:
        network = network.model_copy(update={"text_encoder": ctx.text_encoder})
    training = config.training.model_copy(update={"seed": ctx.seed})
    return config.model_copy(update={"network": network, "training": training})


def _reader(config: SearchSagePipeline) -> str:
    """The very transformer that would be started from."""
    encoder = open_text_encoder(config.network.text_encoder)
    return "" if encoder is None else str(encoder.model)


def _notes(split: SplitPairs, learned_until: str) -> str:
    if split.of_titles:
        return (
            "Nobody searches in this data: **titles stand for queries**, each answered by its own pin. They "
            "say what pins are called, not how people ask: an encoder that comes with language keeps it, and "
            "maps queries among the pins' texts; a small one from scratch learns from titles. Metrics are of "
            "the newest pins' titles. "
        )
    return (
        f"Learned from saves and long clicks after searches before {learned_until}; metrics are of those from "
        f"{split.cut:%Y-%m-%d} on, on pins made before, by vectors that know nothing later. "
    )


def _weighs(fusion: SearchFusion, metrics: dict[str, float]) -> str:
    by_default = CHECKED_TOGETHER not in metrics and fusion == SearchFusion()
    chosen = "by default, for nothing was there to choose by" if by_default else "chosen on its checked pairs"
    said = f"meaning counts {fusion.meaning:g} and words {1 - fusion.meaning:g}, damping {fusion.damping}"
    return f"In search {said}, {chosen}. "


def _signature(dimension: int) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, DataType, Schema, TensorSpec

    query = Schema([ColSpec(DataType.string, "query")])
    return ModelSignature(query, Schema([TensorSpec(np.dtype(np.float32), (-1, dimension))]))
