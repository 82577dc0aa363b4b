"""The rankers that the quality tables compare: one network each, alike in all but what is asked about."""

from __future__ import annotations

from dataclasses import dataclass

from training.models.pinnability import FeatureSpec
from training.models.transact import (
    Fusion,
    Head,
    Lifelong,
    NextAction,
    Output,
    SequenceConfig,
    TransActConfig,
)

WITHOUT_SEQUENCE = ("topic_followed", "pin_age_days", "hour_sin", "hour_cos", "weekend", "has_vector")
"""Interaction features that do not read the user's sequence: with the others, a ranker without a sequence
module would have one all the same, made by hand."""

TRANSACT, NO_SEQUENCE, AVERAGE = "transact", "no sequence", "average pooling"
BST, BST_POSITIVE = "bst, all actions", "bst, positive actions"
NO_TYPES, NO_POSITION = "transact, no action types", "transact, no position"
EVERYTHING = "transact, all features"
LONG_TERM, BOTH = "pinnerformer alone", "transact + pinnerformer"
NEXT, LIFELONG = "transact, next-action loss", "transact v2, lifelong"


@dataclass(frozen=True)
class Variant:
    """A ranker and what it is given."""

    name: str
    config: TransActConfig
    positive_only: bool = False
    """Actions that are no positive ones are taken out of the sequence."""
    long_term: bool = False
    """PinnerFormer's vector of the user is read."""


@dataclass(frozen=True)
class Sizes:
    """Sizes that all variants share."""

    length: int = 24
    pin_dim: int = 12
    action_dim: int = 12
    deep: tuple[int, ...] = (64, 32)


def variants(
    heads: tuple[str, ...], positives: tuple[int, ...], space: str | None, user_dim: int, sizes: Sizes
) -> dict[str, Variant]:
    """Every ranker by name; `positives` are action codes, `user_dim` the width of long-term vectors."""
    spec = FeatureSpec(space=space, interactions=WITHOUT_SEQUENCE)
    base = SequenceConfig(length=sizes.length, pin_dim=sizes.pin_dim, action_dim=sizes.action_dim)

    def config(sequence: dict[str, object] | None = None, **more: object) -> TransActConfig:
        settings: dict[str, object] = {
            "spec": spec,
            "sequence": SequenceConfig.model_validate(base.model_dump() | (sequence or {})),
            "heads": tuple(Head(action=head) for head in heads),
            "deep": sizes.deep,
        }
        return TransActConfig.model_validate(settings | more)

    next_action = NextAction(positives=positives, recent=max(2, sizes.length // 2))
    part = sizes.length // 3
    lifelong = Lifelong(
        length=1_000,
        realtime=sizes.length,
        recent=part,
        nearest_lifelong=part,
        nearest_realtime=(sizes.length - 2 * part) // 2,
        nearest_impressions=(sizes.length - 2 * part) // 2,
    )
    v2 = TransActConfig.v2(config().heads, positives, lifelong=lifelong, spec=spec, deep=sizes.deep)
    v2_sequence = v2.sequence.model_copy(update={"pin_dim": sizes.pin_dim + sizes.action_dim // 2})
    made = [
        Variant(TRANSACT, config()),
        Variant(NO_SEQUENCE, config({"fusion": Fusion.NONE})),
        Variant(AVERAGE, config({"fusion": Fusion.AVERAGE})),
        Variant(BST, config({"fusion": Fusion.APPEND})),
        Variant(BST_POSITIVE, config({"fusion": Fusion.APPEND}), positive_only=True),
        Variant(NO_TYPES, config({"action_dim": 0})),
        Variant(NO_POSITION, config(spec=spec.model_copy(update={"position": False}))),
        Variant(EVERYTHING, config(spec=FeatureSpec(space=space))),
        Variant(LONG_TERM, config({"fusion": Fusion.NONE}, user_dim=user_dim), long_term=True),
        Variant(BOTH, config(user_dim=user_dim), long_term=True),
        Variant(NEXT, config({"causal": True}, next_action=next_action)),
        Variant(LIFELONG, v2.model_copy(update={"sequence": v2_sequence})),
    ]
    made += [Variant(f"output: {o}", config({"output": o})) for o in Output if o is not base.output]
    return {variant.name: variant for variant in made}


OUTPUTS = tuple(f"output: {o}" for o in Output if o is not Output.FIRST_K_MAX)

PARTS: dict[str, tuple[str, ...]] = {
    "fusion": (TRANSACT, NO_SEQUENCE, AVERAGE, BST, BST_POSITIVE),
    "action types": (TRANSACT, NO_TYPES),
    "long and short term": (NO_SEQUENCE, LONG_TERM, TRANSACT, BOTH),
    "multi-task": (EVERYTHING,),
    "position": (TRANSACT, NO_POSITION),
    "output": (TRANSACT, *OUTPUTS),
    "v2": (TRANSACT, NEXT, LIFELONG),
}
"""The tables and their rankers; the first of a table is what the others are compared with."""
