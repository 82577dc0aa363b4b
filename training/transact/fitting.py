"""From rows of a training set to a ranker: which heads they can teach, which rows are kept, the network.

Rows that no action answered are most of them and say the least: they are thinned until the run reads no more
rows than its budget, at a rate that whoever calibrates undoes (`restore_rate`). Positions are a feature of
training rows; scores are those of serving, where every pin has the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from feature_repo.schema import HISTORY_LENGTH, SEQUENCE_LENGTH
from training.data.training_set import Block
from training.models.pinnability import FeatureSpec
from training.models.ranker import ENGAGE
from training.models.transact import Head, Lifelong, NextAction, SequenceConfig, TransAct, TransActConfig
from training.models.transact.ranker import TransActRanker
from training.transact.examples import Examples, Known
from training.transact.starting import AttentionStart, begun
from training.transact.teacher import Teacher, taught
from training.transact.trainer import NothingToLearn, TransActTraining, train_network

MIN_SHARE = 0.1
"""Of the rows without an action, kept at least: fewer would leave out whole kinds of them."""


class LabelWeights(BaseModel):
    """A row of the label-weight matrix: how much a row counts for one head, by what answered it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: dict[str, float] = {}
    other: float = Field(1.0, ge=0)
    base: float = Field(1.0, ge=0)
    """Of rows that no action answered."""


class TransActRecipe(BaseModel):
    """What a TransAct ranker is made with. Defaults learn the demo world in two to three CPU minutes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sequence: SequenceConfig = SequenceConfig(
        length=32,
        action_dim=16,
        pin_dim=24,
        layers=1,
        ffn=64,
        k=2,
        dropout=0.0,
        mask_hours=0.0,
        candidate_token=True,
    )
    cross_layers: int = Field(2, ge=0)
    deep: tuple[int, ...] = (128, 64)
    wide: bool = True
    """Begin as the logistic regression of every head, and learn what it misses."""
    pieces: int = Field(5, ge=0)
    """Of every feature, in the wide part where there is one."""
    attention_start: AttentionStart | None = AttentionStart()
    """Begin with attention that compares pins with the candidate; None draws it as everything else."""
    teacher: Teacher | None = Teacher()
    """Trees whose answers weights that start afresh learn from beside the labels; None: labels alone."""
    next_action: NextAction | None = None
    """TransAct V2's loss beside the heads'; it needs `sequence.causal`."""
    lifelong: Lifelong | None = None
    """TransAct V2's selection from a history, as far as the feature store keeps it (`user_history`)."""
    training: TransActTraining = TransActTraining(
        batch_rows=128, learning_rate=1e-3, weight_decay=0.01, average=0.25
    )
    """Its epochs follow from `max_reads`, its seed is the run's."""
    label_weights: dict[str, LabelWeights] = {}
    """By head; heads that are not named count every row alike."""
    min_positives: int = Field(100, ge=1)
    """An action with fewer among the training rows gets no head."""
    max_reads: int = Field(300_000, ge=1)
    """Rows read in all, those of every epoch together."""
    max_epochs: int = Field(2, ge=1)
    """Epochs at most; fewer where another would leave too few of the rows without an action."""

    @model_validator(mode="after")
    def _is_stored(self) -> Self:
        asked = self.lifelong
        if asked is not None and (asked.length > HISTORY_LENGTH or asked.realtime > SEQUENCE_LENGTH):
            raise ValueError(
                f"lifelong.length {asked.length} and lifelong.realtime {asked.realtime}: the feature store"
                f" keeps {HISTORY_LENGTH} actions of a history and {SEQUENCE_LENGTH} of a sequence "
                "(feature_repo/schema.py)"
            )
        return self

    @classmethod
    def v2(cls, positives: tuple[int, ...]) -> Self:
        """TransAct V2: lifelong selection and the next-action loss, whose positives are these action codes."""
        lifelong = Lifelong(
            length=HISTORY_LENGTH,
            realtime=SEQUENCE_LENGTH,
            recent=12,
            nearest_lifelong=10,
            nearest_realtime=5,
            nearest_impressions=5,
        )
        sequence = cls.model_fields["sequence"].default.model_copy(
            update={
                "length": lifelong.tokens,
                "tokens": "add",
                "surface_dim": 1,
                "pin_dim": 32,
                "positions": True,
                "causal": True,
            }
        )
        next_action = NextAction(positives=positives, recent=lifelong.recent)
        return cls(sequence=sequence, lifelong=lifelong, next_action=next_action)


@dataclass(frozen=True)
class Fitted:
    """A trained ranker and how it came to be."""

    ranker: TransActRanker
    left_out: Mapping[str, str]
    """Actions without a head, with the reason."""
    untaught: Mapping[str, str]
    """Heads that a recipe's teacher did not teach, with the reason."""
    negative_rate: float
    """Share of the rows without an action that were kept."""
    rows: int
    """Rows learned from."""
    epochs: int
    loss: float
    """Mean of the last epoch."""


def heads_of(
    labels: NDArray[np.int8], actions: Sequence[str], recipe: TransActRecipe
) -> tuple[tuple[Head, ...], dict[str, str]]:
    """A head an action with enough positives among `labels` (n, A), and ENGAGE; actions left out and why.

    Raises NothingToLearn where no action has enough, ValueError as `every_head` does.
    """
    positives = labels.sum(axis=0, dtype=np.int64)
    few = {a: int(n) for a, n in zip(actions, positives, strict=True) if n < recipe.min_positives}
    left_out = {a: f"{n} positives, {recipe.min_positives} are needed" for a, n in few.items()}
    if len(few) == len(actions):
        raise NothingToLearn(
            "no action has enough positives: " + "; ".join(f"{a}: {why}" for a, why in left_out.items())
        )
    return tuple(head for head in every_head(actions, recipe) if head.action not in few), left_out


def every_head(actions: Sequence[str], recipe: TransActRecipe) -> tuple[Head, ...]:
    """A head for each of `actions` and for ENGAGE, weighted as the recipe says.

    Raises ValueError for label weights that name another action or are negative.
    """
    known = (*actions, ENGAGE)
    named = {
        *recipe.label_weights,
        *(action for own in recipe.label_weights.values() for action in own.weights),
    }
    unknown = sorted(named - set(known))
    if unknown:
        raise ValueError(f"label weights name {', '.join(unknown)}; heads are {', '.join(known)}")
    return tuple(_head(name, recipe) for name in known)


def fit_transact(
    train: Block,
    known: Known,
    actions: Sequence[str],
    spec: FeatureSpec,
    recipe: TransActRecipe,
    *,
    seed: int,
    start: TransAct | None = None,
    checkpoints: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Fitted:
    """Train a ranker on `train`, whose label columns `actions` name.

    With `start`, which fits (`misfit`), its weights are gone on from, under its heads, by labels alone: trees
    of the few rows since would unlearn what it knows. Raises NothingToLearn.
    """
    if start is None:
        heads, left_out = heads_of(train.labels, actions, recipe)
        config = config_of(heads, spec, recipe, known)
    else:
        config = start.config
        missing = [action for action in actions if action not in config.actions]
        left_out = dict.fromkeys(missing, "the version gone on from has no head for it")
    epochs, rate = plan_reads(train.labels, recipe)
    kept = train.take(thinned(train.labels, rate, seed))
    users = known.users if config.user_dim else None
    examples = Examples.of(kept, known.log, known.pins, spec, users, shown=known.shown)
    examples = with_engage(examples, kept.label)
    training = recipe.training.model_copy(update={"epochs": epochs, "seed": seed})
    labelled = (*actions, ENGAGE)
    untaught: dict[str, str] = {}
    if start is None:
        start = begun(config, examples, labelled, seed, recipe.attention_start)
        if recipe.teacher is not None:
            targets, untaught = taught(recipe.teacher, config, examples, labelled, seed)
            examples = replace(examples, targets=targets)
    trained = train_network(
        config,
        examples,
        labelled,
        training,
        start=start,
        checkpoints=checkpoints,
        progress=progress,
    )
    ranker = TransActRanker(trained.network, known.user_space if users is not None else None)
    return Fitted(ranker, left_out, untaught, rate, len(kept), epochs, trained.losses[-1])


def config_of(
    heads: tuple[Head, ...], spec: FeatureSpec, recipe: TransActRecipe, known: Known | None = None
) -> TransActConfig:
    """The network that the recipe asks for; it reads users' vectors where they are known. Raises
    ValidationError where parts of the recipe do not fit each other."""
    return TransActConfig(
        spec=spec,
        sequence=recipe.sequence,
        heads=heads,
        user_dim=0 if known is None or known.users is None else known.users.dim,
        cross_layers=recipe.cross_layers,
        deep=recipe.deep,
        wide=recipe.wide,
        pieces=recipe.pieces if recipe.wide else 0,
        next_action=recipe.next_action,
        lifelong=recipe.lifelong,
    )


def misfit(start: TransAct, spec: FeatureSpec, recipe: TransActRecipe, known: Known) -> str | None:
    """Why a network's weights cannot be gone on from for these rows, None where they can. It keeps the pieces
    that its features have."""
    asked = config_of(start.config.heads, spec, recipe, known)
    asked = asked.model_copy(update={"pieces": start.config.pieces})
    differs = [n for n in type(asked).model_fields if getattr(asked, n) != getattr(start.config, n)]
    if start.content_dim != known.pins.content.shape[1]:
        differs.append("width of content vectors")
    return f"it differs in {', '.join(differs)}" if differs else None


def plan_reads(labels: NDArray[np.int8], recipe: TransActRecipe) -> tuple[int, float]:
    """(epochs, share of the rows without an action to keep) that read about `max_reads` rows of `labels`.

    Rows that an action answered are read once an epoch: of those epochs that leave MIN_SHARE of the others, the
    most.
    """
    answered = int(labels.any(axis=1).sum())
    silent = len(labels) - answered
    shares = {n: (recipe.max_reads / n - answered) / max(1, silent) for n in range(1, recipe.max_epochs + 1)}
    epochs = max((n for n, share in shares.items() if share >= MIN_SHARE), default=1)
    return epochs, round(float(np.clip(shares[epochs], MIN_SHARE, 1.0)), 4)


def thinned(labels: NDArray[np.int8], rate: float, seed: int) -> NDArray[np.int64]:
    """Rows kept: every answered one, and a share `rate` of the others, drawn evenly."""
    drawn = np.random.default_rng([seed, 1]).random(len(labels)) < rate
    return np.flatnonzero(labels.any(axis=1) | drawn)


def with_engage(examples: Examples, engaged: NDArray[np.int8]) -> Examples:
    """The same rows with ENGAGE's label as one more column.

    The matrix adds up the weights of every action that answered a row; dividing by their number makes it their
    mean, so that a row which was clicked and saved counts as one row.
    """
    answers = np.maximum(examples.labels.sum(axis=1), 1)
    return replace(
        examples,
        labels=np.column_stack([examples.labels, (engaged > 0).astype(np.int8)]),
        weights=(examples.weights / answers).astype(np.float32),
    )


def in_space(network: TransAct, space: str | None) -> TransAct:
    """The same weights under the name that the space they read bears by now."""
    spec = network.config.spec.model_copy(update={"space": space})
    made = TransAct(network.config.model_copy(update={"spec": spec}), network.content_dim)
    made.load_state_dict(network.state_dict())
    return made.eval()


def _head(name: str, recipe: TransActRecipe) -> Head:
    own = recipe.label_weights.get(name, LabelWeights())
    # ENGAGE is no action that answers a row: what answered it is in the columns beside
    return Head(action=name, weights={**own.weights, ENGAGE: 0.0}, other=own.other, base=own.base)
