"""What meaning and words count in search, chosen on pairs that nothing was learned from.

A catalogue whose titles say what people call things is found by words, another is not; which, its own searches
say. The damping is chosen with the weight: a small one lets the first places of one list stand, a large one
asks both lists (Bruch, Gai and Ingber, ACM TOIS 2023, on how much fusion depends on it).
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from training.evaluation.blending import fused
from training.evaluation.judged_queries import RECALL, JudgedQueries, K, query_metrics
from training.models.search_fusion import SearchFusion

Ints = NDArray[np.int64]

MEANINGS = tuple(tenth / 10 for tenth in range(1, 10))
"""Neither list is left out: each finds what the other has no idea of."""
DAMPINGS = (5, 20, 60)


def chosen_fusion(meaning: Ints, words: Ints, asked: JudgedQueries) -> tuple[SearchFusion, float]:
    """Of MEANINGS and DAMPINGS the pair with the highest recall@10 of `asked`, and that recall; of equals the
    nearest to the default. `meaning` and `words` are pin ids (q, LISTED), best first, zero-padded."""
    default = SearchFusion()

    def worth(fusion: SearchFusion) -> tuple[float, float, int]:
        found = fused((meaning, words), fusion.weights, K, fusion.damping)
        recall = float(query_metrics(found, asked)[RECALL].mean())
        return recall, -abs(fusion.meaning - default.meaning), fusion.damping

    tried = [SearchFusion(meaning=m, damping=d) for m, d in product(MEANINGS, DAMPINGS)]
    found = {fusion: worth(fusion) for fusion in tried}
    best = max(tried, key=found.__getitem__)
    return best, found[best][0]
