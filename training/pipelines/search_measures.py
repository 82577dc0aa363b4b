"""What a SearchSage version is measured by: held-out pairs, beside popularity, chance and words, and judges."""

from __future__ import annotations

import numpy as np

from training.evaluation.blending import LISTED, fused
from training.evaluation.judged_queries import (
    MRR,
    NDCG,
    RECALL,
    JudgedQueries,
    engaged_queries,
    query_metrics,
    read_judgements,
)
from training.evaluation.retrieval import NothingHeldOut
from training.models.search_fusion import SearchFusion
from training.models.searchsage import QueryEncoder
from training.pipelines.search_world import SearchWorld
from training.searchsage.evaluation import nearest_pins, popular_pins, word_pins

MODEL = "searchsage"


def measure(world: SearchWorld, encoder: QueryEncoder, fusion: SearchFusion) -> dict[str, float]:
    """Recall of the held-out pairs beside popularity and chance, that of queries nobody made before, and what
    judges say where there are judgements."""
    held, seen = engaged_queries(world.split.held, world.candidates), set(world.split.train.queries)
    if not len(held):
        raise NothingHeldOut(f"no held-out pair from {world.split.cut} on is of a pin with a vector")
    popular = popular_pins(world.split.train, world.candidates, 10)
    meaning = nearest_pins(encoder.encode(held.queries), world.pins, LISTED)
    found = query_metrics(meaning[:, :10], held)
    base = query_metrics(np.tile(popular, (len(held), 1)), held)[RECALL]
    unseen = np.array([query not in seen for query in held.queries])
    error = found[RECALL].std(ddof=1) / np.sqrt(len(held)) if len(held) > 1 else 0.0
    out = {
        f"{MODEL}/recall_at_10": found[RECALL].mean(),
        f"{MODEL}/recall_error_at_10": error,
        f"{MODEL}/ndcg_at_10": found[NDCG].mean(),
        f"{MODEL}/queries": len(held),
        "popularity/recall_at_10": base.mean(),
        "chance/recall_at_10": min(1.0, 10 / len(world.candidates)),
        "held_out_pairs": len(world.split.held),
        "hybrid/meaning_weight": fusion.meaning,
        "hybrid/damping": fusion.damping,
    }
    if not world.split.of_titles:  # whose words are the pin's own
        out |= _beside_words(world, meaning, held, fusion)
    if unseen.any():
        out[f"{MODEL}/recall_at_10/unseen"] = found[RECALL][unseen].mean()
        out[f"{MODEL}/queries/unseen"] = unseen.sum()
    if (judged := read_judgements(world.lake, world.candidates)) is not None:
        out |= _judged(judged, nearest_pins(encoder.encode(judged.queries), world.pins, 10))
    return {name: float(value) for name, value in out.items()}


def _beside_words(
    world: SearchWorld, meaning: np.ndarray, held: JudgedQueries, fusion: SearchFusion
) -> dict[str, float]:
    """Recall of held-out pairs by words, by words and `meaning` (q, LISTED) as they are served together, and
    what that gains query by query."""
    words = word_pins(world.words(world.candidates), held.queries, LISTED)
    together = query_metrics(fused((meaning, words), fusion.weights, 10, fusion.damping), held)[RECALL]
    alone = query_metrics(words[:, :10], held)[RECALL]
    gain = together - alone
    return {
        "words/recall_at_10": alone.mean(),
        "hybrid/recall_at_10": together.mean(),
        "hybrid/recall_gain_at_10": gain.mean(),
        "hybrid/recall_gain_error_at_10": gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0.0,
    }


def _judged(judged: JudgedQueries, ranked: np.ndarray) -> dict[str, float]:
    found = query_metrics(ranked, judged)
    return {
        f"{MODEL}/judged_ndcg_at_10": float(found[NDCG].mean()),
        f"{MODEL}/judged_mrr_at_10": float(found[MRR].mean()),
        f"{MODEL}/judged_queries": float(len(judged)),
    }
