"""The rankers that the quality tables compare: one network each, alike in all but what is asked about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from training.models.transact import Fusion, Lifelong, NextAction, Output
from training.transact.fitting import TransActRecipe

WITHOUT_SEQUENCE = ("topic_followed", "pin_age_days", "hour_sin", "hour_cos", "weekend", "has_vector")
"""Interaction features that do not read the user's sequence: with the others, a ranker without a sequence
module would have one all the same, made by hand."""

TRANSACT, NO_SEQUENCE, AVERAGE = "transact", "no sequence", "average pooling"
BST, BST_POSITIVE = "bst as published, all actions", "bst as published, positive actions"
BST_STARTED = "bst given transact's start, all actions"
BST_POSITIVE_STARTED = "bst given transact's start, positive actions"
TRANSACT_DRAWN = "transact, attention drawn"
NO_TYPES, NO_POSITION = "transact, no action types", "transact, no position"
EVERYTHING = "transact, all features"
LONG_TERM, BOTH = "pinnerformer alone", "transact + pinnerformer"
AS_PUBLISHED, MASKED = "transact, 100 actions, K 10, two layers", "transact, newest hours hidden (24 h)"
NEXT, LIFELONG = "transact, next-action loss", "transact v2, lifelong"


@dataclass(frozen=True)
class Variant:
    """A ranker and what it is given."""

    name: str
    sequence: dict[str, Any] = field(default_factory=dict)
    """Settings of the sequence module that differ from the recipe's."""
    network: dict[str, Any] = field(default_factory=dict)
    """The same of the whole network."""
    position: bool = True
    everything: bool = False
    """Interaction features that read the sequence are given as well."""
    positive_only: bool = False
    """Actions that are no positive ones are taken out of the sequence."""
    one_type: bool = False
    """Every action of the sequence is of one type: nothing but types is taken away, attention begins alike."""
    long_term: bool = False
    """PinnerFormer's vector of the user is read."""
    drawn: bool = False
    """Attention and the projection of pins begin as everything else is drawn, whatever the recipe says."""


def variants(positives: tuple[int, ...], recipe: TransActRecipe) -> dict[str, Variant]:
    """Every ranker by name; `positives` are action codes."""
    length = recipe.sequence.length
    part = length // 3
    lifelong = Lifelong(
        length=1_000,
        realtime=length,
        recent=part,
        nearest_lifelong=part,
        nearest_realtime=(length - 2 * part) // 2,
        nearest_impressions=(length - 2 * part) // 2,
    )
    next_action = NextAction(positives=positives, recent=max(2, part))
    v2 = {"tokens": "add", "surface_dim": 1, "positions": True, "causal": True}
    made = [
        Variant(TRANSACT),
        Variant(NO_SEQUENCE, {"fusion": Fusion.NONE}),
        Variant(AVERAGE, {"fusion": Fusion.AVERAGE}),
        Variant(TRANSACT_DRAWN, {"candidate_token": False}, drawn=True),
        Variant(BST, {"fusion": Fusion.APPEND}, drawn=True),
        Variant(BST_POSITIVE, {"fusion": Fusion.APPEND}, positive_only=True, drawn=True),
        Variant(BST_STARTED, {"fusion": Fusion.APPEND}),
        Variant(BST_POSITIVE_STARTED, {"fusion": Fusion.APPEND}, positive_only=True),
        Variant(NO_TYPES, one_type=True),
        Variant(NO_POSITION, position=False),
        Variant(EVERYTHING, everything=True),
        Variant(LONG_TERM, {"fusion": Fusion.NONE}, long_term=True),
        Variant(BOTH, long_term=True),
        Variant(AS_PUBLISHED, {"length": 100, "k": 10, "layers": 2}),
        Variant(MASKED, {"mask_hours": 24.0}),
        Variant(NEXT, {"causal": True}, {"next_action": next_action}),
        Variant(LIFELONG, v2, {"next_action": next_action, "lifelong": lifelong}),
    ]
    made += [Variant(name, {"output": output}) for name, output in OUTPUTS.items()]
    return {variant.name: variant for variant in made}


OUTPUTS = {f"output: {o}": o for o in Output if o is not Output.FIRST_K_MAX}

BSTS = (BST, BST_POSITIVE, BST_STARTED, BST_POSITIVE_STARTED)

PARTS: dict[str, tuple[str, ...]] = {
    "fusion": (TRANSACT, NO_SEQUENCE, AVERAGE, *BSTS),
    "attention start": (TRANSACT, TRANSACT_DRAWN, BST),
    "action types": (TRANSACT, NO_TYPES),
    "multi-task": (EVERYTHING,),
    "long and short term": (NO_SEQUENCE, LONG_TERM, TRANSACT, BOTH),
    "position": (TRANSACT, NO_POSITION),
    "sequence": (TRANSACT, AS_PUBLISHED, MASKED),
    "output": (TRANSACT, *OUTPUTS),
    "v2": (TRANSACT, NEXT, LIFELONG),
}
"""The tables and their rankers; the first of a table is what the others are compared with."""
