"""SearchSage as a registered version: learned before the cut, kept, declared, and evaluated beside others."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("transformers", reason="the text extra is not installed")

from tests.training.data.lakes import write_lake
from tests.training.pipelines.conftest import GiveRegistry, context
from training.context import TrainingContext
from training.evaluation.search import Known, evaluate
from training.evaluation.search_models import models
from training.models.search_fusion import SearchFusion
from training.models.searchsage import QueryEncoder, ScratchConfig, SearchSageConfig
from training.pipelines.catalogues import catalogue_of, space_part
from training.pipelines.content import content_part, load_catalogue, load_encoder, train_content
from training.pipelines.search_space import PIN_SPACE_TAG
from training.pipelines.search_world import SearchSagePipeline, SearchWorld
from training.pipelines.searchsage import (
    configured,
    searchsage_part,
    shortfall,
    train_searchsage,
)
from training.registry import LEARNED_UNTIL_TAG, WEIGHTS_TAG, Registry
from training.release_parts import similar_pins
from training.searchsage.trainer import SearchSageTraining
from validation.manifest import Part
from validation.tables import Contract

END = datetime(2026, 3, 10, tzinfo=UTC)
TOPICS = ("bread oven flour", "trail boots hike", "jazz vinyl horn", "sofa lamp rug", "tulip spade soil")
EACH, SEARCHES = 30, 600
SAVE = Contract().vocabulary.code("save")
CONFIG = SearchSagePipeline(
    network=SearchSageConfig(
        scratch=ScratchConfig(width=32, layers=1, heads=2, feed_forward=32, vocabulary=128)
    ),
    training=SearchSageTraining(
        epochs=3, batch=64, learning_rate=2e-4, temperature=0.07, random_negatives=0, log_q=False
    ),
    held_out_days=2,
)


def frames(searched: bool = True, days: float = 10.0) -> dict[str, pd.DataFrame]:
    """Pins say two words of their topic, and searches for its third word are answered by them."""
    rng = np.random.default_rng(4)
    topic = np.repeat(np.arange(len(TOPICS)), EACH)
    about = [TOPICS[t].split()[:2] for t in topic]
    asked = rng.integers(0, len(TOPICS), SEARCHES)
    return {
        "pins": pd.DataFrame(
            {
                "pin_id": np.arange(1, len(topic) + 1),
                "created_at": pd.Series([END - timedelta(days=40 + i / 100) for i in range(len(topic))]),
                "title": [f"{two[i % 2]} {two[1 - i % 2]}" for i, two in enumerate(about)],
                "topics": [[int(t) + 1] for t in topic],
            }
        ),
        "actions": pd.DataFrame(
            {
                "event_id": np.arange(SEARCHES),
                "user_id": np.arange(SEARCHES),
                "pin_id": asked * EACH + rng.integers(0, EACH, SEARCHES) + 1,
                "action": SAVE,
                "timestamp": pd.Series(
                    [END - timedelta(days=days * (i + 1) / SEARCHES) for i in range(SEARCHES)]
                ),
                "query": [TOPICS[t].split()[2] if searched else None for t in asked],
            }
        ),
        "query_judgements": pd.DataFrame(
            {
                "query": np.repeat([t.split()[2] for t in TOPICS], EACH),
                "pin_id": np.arange(1, len(topic) + 1),
                "relevance": 1.0,
            }
        ),
    }


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory, give_registry: GiveRegistry) -> TrainingContext:
    root = tmp_path_factory.mktemp("searchsage")
    give_registry(root)
    write_lake(root / "lake", frames())
    return context(root)


@pytest.fixture(scope="module")
def content(ctx: TrainingContext) -> Part:
    part = train_content(ctx)
    Registry(ctx.mlflow_uri).set_alias("content", "trained", part.version)
    return part


@pytest.fixture(scope="module")
def part(ctx: TrainingContext, content: Part) -> Part:
    return train_searchsage(ctx, content, CONFIG)


def test_a_version_maps_words_that_no_pin_says_to_their_pins(ctx: TrainingContext, part: Part) -> None:
    assert (part.space, part.collection) == ("searchsage@1", "pins__searchsage__1")
    assert part.metrics["searchsage/recall_at_10"] > 2 * part.metrics["chance/recall_at_10"]
    assert part.metrics["searchsage/judged_ndcg_at_10"] > 0.4  # chance is a fifth
    assert shortfall(part) is None
    files = Registry(ctx.mlflow_uri).download("searchsage", part.version)
    encoder = QueryEncoder.load(files)
    assert (encoder.stands_on, encoder.origin) == ("content@1", "scratch")
    pins = catalogue_of(ctx, part)
    assert encoder.dimension == pins.vectors.shape[1] == 64 + 1  # content, and what people did
    assert space_part(Registry(ctx.mlflow_uri), str(part.space)) == part


def test_weights_and_metrics_stand_on_two_sides_of_the_cut(ctx: TrainingContext, part: Part) -> None:
    version = Registry(ctx.mlflow_uri).version("searchsage", part.version)
    cut = END - timedelta(days=2)
    assert version.tags[LEARNED_UNTIL_TAG] == cut.isoformat()
    assert "Learned from saves and long clicks" in version.description
    assert part.metrics["held_out_pairs"] == pytest.approx(SEARCHES / 5, abs=2)
    assert part.metrics["learned_pairs"] == pytest.approx(SEARCHES * 4 / 5 * 0.85, abs=2)


def test_what_meaning_counts_beside_words_is_chosen_and_kept(ctx: TrainingContext, part: Part) -> None:
    registry = Registry(ctx.mlflow_uri)
    kept = SearchFusion.load(registry.download("searchsage", part.version))
    assert part.metrics["hybrid/meaning_weight"] == kept.meaning
    assert "hybrid/checked_recall_at_10" in part.metrics
    said = f"In search meaning counts {kept.meaning:g} and words {1 - kept.meaning:g}, damping {kept.damping}"
    assert f"{said}, chosen on its checked pairs" in registry.version("searchsage", part.version).description


def test_the_same_inputs_are_done_once(ctx: TrainingContext, content: Part, part: Part) -> None:
    said: list[str] = []
    again = train_searchsage(replace(ctx, progress=said.append), content, CONFIG)
    assert again == part and said == [f"searchsage: unchanged, searchsage@{part.version}"]


def test_kept_weights_say_the_new_space(
    ctx: TrainingContext, content: Part, part: Part, tmp_path: Path
) -> None:
    lake = write_lake(tmp_path / "lake", frames(days=9.9))
    later = replace(ctx, lake=lake.path, keep_weights=True)
    moved = train_content(later, force=True)
    assert moved.version == content.version + 1
    kept = train_searchsage(later, moved, CONFIG)
    registry = Registry(ctx.mlflow_uri)
    assert kept.space == f"searchsage@{kept.version}"
    assert registry.version("searchsage", kept.version).tags[PIN_SPACE_TAG] == f"content@{moved.version}"
    assert registry.version("searchsage", kept.version).tags[WEIGHTS_TAG] == str(part.version)
    old, new = (QueryEncoder.load(registry.download("searchsage", p.version)) for p in (part, kept))
    assert new.stands_on == moved.space and np.array_equal(old.encode(["flour"]), new.encode(["flour"]))
    assert searchsage_part(registry, part.version) == part


def test_too_little_to_be_served_says_why(part: Part) -> None:
    worse = part.metrics | {"searchsage/recall_at_10": 0.01, "searchsage/recall_error_at_10": 0.001}
    reason = shortfall(part.model_copy(update={"metrics": worse}))
    assert reason is not None and "learned too little" in reason


def test_search_is_no_worse_for_it_than_by_words_alone(part: Part) -> None:
    assert part.metrics["hybrid/recall_at_10"] == pytest.approx(
        part.metrics["words/recall_at_10"] + part.metrics["hybrid/recall_gain_at_10"]
    )
    worse = part.metrics | {"hybrid/recall_gain_at_10": -0.02, "hybrid/recall_gain_error_at_10": 0.005}
    reason = shortfall(part.model_copy(update={"metrics": worse}))
    assert reason is not None and "0.0200 lower by words and meaning together" in reason
    noise = worse | {"hybrid/recall_gain_error_at_10": 0.02}
    assert shortfall(part.model_copy(update={"metrics": noise})) is None


def test_titles_are_declared(
    tmp_path: Path, give_registry: GiveRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.pipelines import search_world
    from training.searchsage import pairs

    monkeypatch.setattr(pairs, "LEAST_PAIRS", 100)
    monkeypatch.setattr(search_world, "MOST_TITLES", 80)
    give_registry(tmp_path)
    write_lake(tmp_path / "lake", frames(searched=False))
    mine = context(tmp_path)
    made = train_searchsage(mine, train_content(mine), CONFIG)
    version = Registry(mine.mlflow_uri).version("searchsage", made.version)
    assert made.metrics["learned_pairs"] == 80
    assert version.tags["pairs"] == "titles" and "titles stand for queries" in version.description
    assert SearchFusion.load(Registry(mine.mlflow_uri).download("searchsage", made.version)) == SearchFusion()
    assert "damping 60, by default, for nothing was there to choose by" in version.description


def test_the_evaluation_asks_both_questions_of_every_model(
    ctx: TrainingContext, content: Part, part: Part
) -> None:
    registry = Registry(ctx.mlflow_uri)
    assert similar_pins(registry)[1].model == "content"
    space = content_part(registry, content.version)
    known = Known(
        SearchWorld.read(ctx, space, configured(ctx, CONFIG)),
        load_catalogue(ctx, space),
        load_encoder(ctx, registry, content.version),
        None,
    )
    report = evaluate(known, models(configured(ctx, CONFIG)), seeds=(0, 1), against="bm25")
    assert "off_the_shelf" in report.skipped  # nothing reads texts here
    assert set(report.rankings) == {"later", "judged"}  # five queries are too few for slices
    assert report.columns("judged") == ("NDCG@10", "MRR@10")
    assert report.row("searchsage", "judged").mean("NDCG@10") > 0.4
    assert report.row("bm25", "judged").mean("NDCG@10") == 0  # no pin says what is asked
    assert report.row("content_two_tower", "judged").mean("NDCG@10") >= 0
    assert report.row("searchsage").seeds == report.row("hybrid").seeds == (0, 1)
    assert report.row("bm25").seeds == report.row("popularity").seeds == ()
    # words find nothing, so that both together are what meaning finds
    assert report.row("hybrid", "judged").mean("MRR@10") == report.row("searchsage", "judged").mean("MRR@10")
    assert "less bm25, query by query" in report.table() and "95 % interval over queries" in report.table()
