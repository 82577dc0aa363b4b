"""The catalogue in any space that a model of ours makes, as of a time."""

from __future__ import annotations

from datetime import datetime

from training.context import TrainingContext
from training.models.interactions import Pins
from training.pipelines import content, pinsage, searchsage
from training.pipelines.interests import interests_catalogue
from training.pipelines.pinnerformer import pinnerformer_catalogue
from training.pipelines.retrievers import (
    CONDITIONAL,
    DCM,
    LEARNED,
    PINNERFORMER,
    TWO_TOWER,
    retriever_part,
)
from training.pipelines.search_space import searchsage_catalogue
from training.pipelines.two_tower import two_tower_catalogue
from training.registry import Registry
from validation.manifest import Part, Space


class UnknownSpace(ValueError):
    """A space that no model here makes vectors of pins for."""


def catalogue_of(ctx: TrainingContext, part: Part, as_of: datetime | None = None) -> Pins:
    """Every pin of the lake in the space that `part` makes, ascending by id.

    `as_of` (UTC, default the run's end) bounds what vectors may know of what people did: a measurement on later
    days must not read vectors that have seen them. Content vectors know nothing of it, those of PinnerFormer
    nothing but what their weights were learned from. Raises UnknownSpace.
    """
    if part.model == content.MODEL:
        return content.load_catalogue(ctx, part)
    if part.model == pinsage.MODEL:
        return pinsage.pinsage_catalogue(ctx, part, as_of)
    if part.model == PINNERFORMER:
        return pinnerformer_catalogue(ctx, part)
    if part.model in (DCM, CONDITIONAL):
        return interests_catalogue(ctx, part, as_of)
    if part.model == TWO_TOWER:
        return two_tower_catalogue(ctx, part, as_of)
    if part.model == searchsage.MODEL:
        return searchsage_catalogue(ctx, part, as_of)
    raise UnknownSpace(f"{part.model}@{part.version} makes no vectors of pins")


def space_part(registry: Registry, space: str) -> Part:
    """The part that makes `space`, `pinsage@7`. Raises UnknownSpace, KeyError for a version not registered."""
    named = Space.parse(space)
    if named.model == content.MODEL:
        return content.content_part(registry, named.version)
    if named.model == pinsage.MODEL:
        return pinsage.pinsage_part(registry, named.version)
    if named.model in LEARNED:
        return retriever_part(registry, named.model, named.version)
    if named.model == searchsage.MODEL:
        return searchsage.searchsage_part(registry, named.version)
    raise UnknownSpace(f"{space}: no model makes vectors of pins under that name")
