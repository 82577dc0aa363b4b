"""Where a network's weights begin: as a logistic regression, and with attention that compares.

Ten thousands of rows are a few hundred steps: enough to learn what an answer is worth, not that the question
is what the user did with pins like the candidate. So the first head of the first layer begins with that:

    score(t, s) = sharpness cos(candidate, pin of s),   the candidate's own token: threshold

and writes the kinds of action that it finds where no token holds anything. All of it is learned on from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.models.transact import Head, TransAct, TransActConfig
from training.models.transact.config import Fusion, SequenceConfig
from training.models.transact.loss import label_matrix, row_weights
from training.models.transact.network import seeded
from training.pipelines.fitting import LogisticConfig, Rows, fit_logistic
from training.transact.examples import Examples

LOUDNESS = 2.0
"""Size of a kind of action beside the other numbers of a token, which have unit variance."""


class AttentionStart(BaseModel):
    """How the first layer begins to compare."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sharpness: float = Field(12.0, gt=0)
    """Score of a pin that is the candidate; one at a right angle has 0."""
    threshold: float = 5.0
    """Score of the candidate's own token, where it has one: below it an action is not alike."""


def begun(
    config: TransActConfig,
    examples: Examples,
    actions: Sequence[str],
    seed: int,
    attention: AttentionStart | None,
) -> TransAct:
    """A network drawn from `seed` that stands where learning begins; `actions` name the columns of the labels.

    With a wide part it says what a logistic regression a head says, fitted to the same rows.
    """
    network = seeded(config, examples.pins.content.shape[1], seed)
    network.learn_scale(torch.from_numpy(examples.features))
    if attention is not None:
        content = examples.pins.content[examples.pins.content.any(axis=1)]  # a pin without says nothing
        project_on_components(network, content)
        if config.sequence.encodes:
            compare(network, content, attention)
    if config.wide:
        learn_logistic(network, examples, actions)
    return network


def project_on_components(network: TransAct, content: NDArray[np.float32]) -> None:
    """Pins' vectors begin as the principal components of `content` (p, P), of unit mean square.

    Of as many columns, these keep most of what makes two pins alike. Pins that are all alike have none: their
    vectors stay as drawn.
    """
    content = content.astype(np.float64)
    if len(content) < 2:
        return
    _, axes = np.linalg.eigh(np.cov(content.T))
    axes = axes[:, ::-1][:, : network.config.sequence.pin_dim].T  # (pin_dim or P, P)
    size = np.sqrt(np.mean((content @ axes.T) ** 2) * network.content_dim)
    if not size > 1e-3:  # all alike, and what is left is rounding
        return
    with torch.no_grad():
        network.project.weight[: len(axes)] = torch.from_numpy(axes / size)


class _Columns(NamedTuple):
    """Where a token holds what the start reads and writes: first columns, and how many there are."""

    pin: int
    candidate: int
    dims: int
    """Components that are compared."""
    kinds: int
    found: int
    many: int
    """Kinds of action that are told apart."""
    free: int
    """Columns from `kinds` on, and from `found` on, that hold nothing else."""
    mark: int
    """The one that says which token is the candidate's own."""

    @classmethod
    def of(cls, config: SequenceConfig) -> _Columns:
        wide, pin_dim = config.width // config.heads, config.pin_dim
        candidate = config.width - pin_dim
        if config.tokens == "add":  # parts lie over each other: the last components of pins make room
            free = pin_dim // 3 if candidate else 0
            dims, many = min(pin_dim - free, wide - 1), min(free - 1, wide)
            return cls(0, candidate, dims, pin_dim - free, config.width - free, many, free, pin_dim - 1)
        half, pin = config.action_dim // 2, config.action_dim + config.surface_dim
        dims, many = min(pin_dim, wide - 1), min(half - 1, wide)
        return cls(pin, candidate, dims, 0, half, many, half, config.action_dim - 1)


@torch.no_grad()
def compare(network: TransAct, content: NDArray[np.float32], start: AttentionStart) -> None:
    """The first head of the first layer begins to compare pins, as long as those of `content` (p, P), which
    all have a vector, are on average; see the module.

    No kinds are written, and the candidate's own token has no threshold, where there is no room for them: with
    fewer than four action columns, or where parts are added, six of a pin's or the candidate not beside them.
    """
    config, layer = network.config.sequence, network.sequence.layers[0]
    at, wide = _Columns.of(config), config.width // config.heads
    written = network.sequence.action is not None and at.many > 0
    if written and config.tokens == "add":
        _make_room(network, at)
    query, key, _ = layer.qkv.weight.split(config.width)
    pins, dims = network.pins(torch.from_numpy(content)), at.dims
    length = float((pins[:, :dims] ** 2).sum(dim=1).mean())
    if not length > 0:  # no pin has a vector, or a head no room for one
        return
    same = (start.sharpness * wide**0.5 / length) ** 0.5 * torch.eye(dims)
    query[: dims + 1], key[: dims + 1] = 0.0, 0.0
    query[:dims, at.candidate : at.candidate + dims] = same
    key[:dims, at.pin : at.pin + dims] = same
    if not written:
        return
    _write_kinds(network, at)
    if network.sequence.lead is not None:
        score = start.threshold - start.sharpness * (config.fusion is Fusion.APPEND)  # it is like itself
        root = abs(score * wide**0.5) ** 0.5
        for first in (at.kinds, at.found):
            network.sequence.lead[first : first + at.free] = 0.0
        network.sequence.lead[at.mark] = 1.0
        key[dims, at.mark] = root
        layer.qkv.bias[dims] = float(np.copysign(root, score))


def _make_room(network: TransAct, at: _Columns) -> None:
    """Take pins, surfaces and places out of the columns that are kept free; surfaces are as quiet as places, or
    pins could not be told by what is added to them."""
    module = network.sequence
    network.project.weight[at.kinds :] = 0.0
    parts = [module.position] if module.position is not None else []
    if module.surface is not None:
        module.surface.weight *= 0.02
        parts.append(module.surface.weight)
    for part in parts:
        part[:, at.kinds : at.candidate] = 0.0
        part[:, at.found :] = 0.0


def _write_kinds(network: TransAct, at: _Columns) -> None:
    """Kinds of action stand in columns of their own, and what attention finds of them in others. Kinds beyond
    the columns, or the first head's width, share them."""
    config, layer, many = network.config.sequence, network.sequence.layers[0], at.many
    value, weight = layer.qkv.weight[2 * config.width :], network.sequence.action.weight
    codes, columns = torch.arange(1, len(weight)), slice(at.kinds, at.kinds + many)  # 0 is padding
    drawn = 0.1 * weight[1:, columns]
    weight[1:] = 0.0
    weight[1:, columns] = drawn
    weight[codes, at.kinds + (codes - 1) % many] += LOUDNESS
    value[:many] = 0.0
    value[:many, columns] = torch.eye(many)
    layer.out.weight[:, :many] = 0.0
    layer.out.weight[at.found : at.found + many] = 0.0
    layer.out.weight[at.found : at.found + many, :many] = LOUDNESS * torch.eye(many)


def learn_logistic(network: TransAct, examples: Examples, actions: Sequence[str]) -> None:
    """Let the network say what a logistic regression a head says.

    Newton's method finds in seconds what a gradient takes epochs to: what is linear in the features.
    """
    spec = network.config.spec
    rows = head_rows(network.config.heads, examples, actions)
    fits = [fit_logistic(own, spec, LogisticConfig()) for own in rows]
    scale, mean = network.scale.numpy(), network.mean.numpy()
    # the same features, standardised by other moments: what the weights are per unit must not change
    slopes = np.stack([f.weights / f.scale for f in fits])
    constants = np.array([f.bias for f in fits]) + (slopes * (mean - np.stack([f.mean for f in fits]))).sum(1)
    network.learn_linear(torch.from_numpy((slopes * scale).astype(np.float32)), torch.from_numpy(constants))


def head_rows(heads: Sequence[Head], examples: Examples, actions: Sequence[str]) -> Iterator[Rows]:
    """The features under each head's labels, a row weighing what the head's loss has it weigh; `actions` name
    the columns of the labels."""
    matrix, base, columns = label_matrix(heads, actions)
    weights = row_weights(torch.from_numpy(examples.labels), matrix, base).numpy() * examples.weights[:, None]
    for head, column in enumerate(columns.tolist()):
        label = examples.labels[:, column].astype(np.float32)
        yield Rows(examples.features, label, weights[:, head])
