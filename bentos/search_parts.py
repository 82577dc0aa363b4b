"""The parts of a release that search runs on: words, popular queries, and the query encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from bentos.query_vectors import QueryVectors
from bentos.release import ServingRelease
from bentos.serving import ReleaseRejected
from bentos.shared_parts import SharedParts
from bentos.sources import lexical, searchsage
from training.models.lexical import LexicalIndex, PopularQueries
from training.models.search_fusion import SearchFusion
from validation.manifest import ReleaseManifest


def with_words(release: ServingRelease, shared: SharedParts) -> ServingRelease:
    """The release with its index of words, where it has one. Every process holds it: one searches, one ranks by
    it, one says how a query was read. Raises ReleaseRejected for files that cannot be read."""
    part = release.manifest.parts.get(lexical.NAME)
    if part is None:
        return release
    index, popular = shared.of(part, LexicalIndex.load), shared.of(part, PopularQueries.load)
    return replace(release, lexical=index, popular_queries=popular)


def with_fusion(release: ServingRelease, shared: SharedParts) -> ServingRelease:
    """The release with the weights that its query encoder is blended with words by. Raises ReleaseRejected for
    a file that cannot be read."""
    part = release.manifest.parts.get(searchsage.NAME)
    if part is None:
        return release
    return replace(release, fusion=shared.of(part, SearchFusion.load))


def query_vectors(manifest: ReleaseManifest, shared: SharedParts) -> QueryVectors | None:
    """SearchSage's query tower on one thread, where the release has one.

    Raises ReleaseRejected for files that cannot be read, and where the package that runs them is not installed.
    """
    part = manifest.parts.get(searchsage.NAME)
    return None if part is None else shared.of(part, _load_query_vectors)


def _load_query_vectors(folder: Path) -> QueryVectors:
    import torch

    from training.models.searchsage import QueryEncoder

    torch.set_num_threads(1)
    return QueryVectors(QueryEncoder.load(folder))


def check_queries(release: ServingRelease, queries: QueryVectors) -> None:
    """Encode a query. Raises ReleaseRejected where it lands in another space than the release's pins.

    A version has a space of its own, joined from one of the release's; older ones lived in that one itself.
    """
    part, made = release.manifest.parts[searchsage.NAME], queries.encoder
    name, held = part.name, release.dim(part.space)
    own = part.space in (name, made.stands_on)
    if not own or made.stands_on not in release.spaces or made.dimension != held:
        raise ReleaseRejected(
            f"{name} maps queries among the pins of {made.stands_on}, {made.dimension}-d; the release searches"
            f" {part.space}, {held}-d, of {', '.join(release.spaces)}; train searchsage on this release's pins"
        )
    vector = queries.of("a pin")
    if vector.shape != (held,) or not np.isfinite(vector).all():
        raise ReleaseRejected(f"{name} makes vectors that are none; train it again")
