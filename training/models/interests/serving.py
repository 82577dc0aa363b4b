"""The user's tower for one request: the same arithmetic on NumPy arrays.

A request crosses a handful of conditions with one user. Each product is tiny, so what a framework spends on
calling them is nearly all of the time; NumPy's calls cost a fifth. `towers.py` is what it is held against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from training.models.interests.towers import MaskBlock, UserTower

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Affine:
    """x W + b."""

    weight: Floats  # (in, out)
    bias: Floats  # (out,)

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor) -> Affine:
        return cls(np.ascontiguousarray(array_of(weight).T), array_of(bias))

    def __call__(self, x: Floats) -> Floats:
        return x @ self.weight + self.bias


@dataclass(frozen=True)
class Normed:
    """Layer normalisation over the last axis."""

    gain: Floats
    shift: Floats
    eps: np.float32

    @classmethod
    def of(cls, norm: nn.LayerNorm) -> Normed:
        return cls(array_of(norm.weight), array_of(norm.bias), np.float32(norm.eps))

    def __call__(self, x: Floats) -> Floats:
        share = np.float32(1 / x.shape[-1])
        centred = x - np.add.reduce(x, -1, keepdims=True) * share
        spread = np.add.reduce(centred * centred, -1, keepdims=True) * share
        return centred / np.sqrt(spread + self.eps) * self.gain + self.shift


@dataclass(frozen=True)
class Perceptron:
    """Linear, ReLU, linear."""

    first: Affine
    second: Affine

    @classmethod
    def of(cls, first: nn.Module, second: nn.Module) -> Perceptron:
        return cls(_linear(first), _linear(second))

    def __call__(self, x: Floats) -> Floats:
        return self.second(_relu(self.first(x)))


@dataclass(frozen=True)
class EncoderLayer:
    """A transformer layer that normalises first, in evaluation."""

    before_attention: Normed
    qkv: Affine
    out: Affine
    heads: int
    before_ffn: Normed
    ffn: Perceptron

    @classmethod
    def of(cls, layer: nn.TransformerEncoderLayer) -> EncoderLayer:
        attention = layer.self_attn
        return cls(
            Normed.of(layer.norm1),
            Affine.of(attention.in_proj_weight, attention.in_proj_bias),
            _linear(attention.out_proj),
            attention.num_heads,
            Normed.of(layer.norm2),
            Perceptron.of(layer.linear1, layer.linear2),
        )

    def __call__(self, x: Floats) -> Floats:
        """(K, T, E) -> (K, T, E)."""
        x = x + self._attend(self.before_attention(x))
        return x + self.ffn(self.before_ffn(x))

    def _attend(self, x: Floats) -> Floats:
        k, t, width = x.shape
        q, keys, values = self.qkv(x).reshape(k, t, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        scores = q @ keys.swapaxes(2, 3) * np.float32((width // self.heads) ** -0.5)
        weights = np.exp(scores - np.maximum.reduce(scores, -1, keepdims=True))
        weights /= np.add.reduce(weights, -1, keepdims=True)
        return self.out((weights @ values).swapaxes(1, 2).reshape(k, t, width))


@dataclass(frozen=True)
class Masked:
    """A `MaskBlock`."""

    norm: Normed
    mask: Perceptron
    out: Affine
    out_norm: Normed

    @classmethod
    def of(cls, block: MaskBlock) -> Masked:
        return cls(
            Normed.of(block.norm),
            Perceptron.of(block.mask[0], block.mask[2]),
            _linear(block.out[0]),
            Normed.of(block.out[1]),
        )

    def __call__(self, x: Floats) -> Floats:
        return _relu(self.out_norm(self.out(self.mask(x) * self.norm(x))))


@dataclass(frozen=True)
class ServedTower:
    """`UserTower` as of when it was made: what it learns later, this does not know."""

    condition: Affine
    transformer: Sequence[EncoderLayer]
    first: Perceptron
    first_norm: Normed
    masked: Sequence[Masked]
    second: Perceptron
    second_norm: Normed
    head: Affine
    residual: bool

    @classmethod
    def of(cls, tower: UserTower) -> ServedTower:
        return cls(
            _linear(tower.condition),
            tuple(map(EncoderLayer.of, tower.transformer.layers)),
            Perceptron.of(tower.first[0], tower.first[2]),
            Normed.of(tower.first_norm),
            tuple(map(Masked.of, tower.masked)),
            Perceptron.of(tower.second[0], tower.second[2]),
            Normed.of(tower.second_norm),
            _linear(tower.head),
            tower.config.residual,
        )

    def __call__(self, conditions: Floats, fields: Floats) -> Floats:
        """(K, dim) and one user's (FIELDS, token) -> (K, dim) float32, unit rows."""
        k = len(conditions)
        tokens = np.empty((k, 1 + len(fields), fields.shape[1]), np.float32)
        tokens[:, 0], tokens[:, 1:] = self.condition(conditions), fields
        encoded = tokens
        for layer in self.transformer:
            encoded = layer(encoded)
        x = self.first_norm(encoded.reshape(k, -1) + self.first(tokens.reshape(k, -1)))
        crossed = np.concatenate([block(x) for block in self.masked], axis=1)
        out = self.head(self.second_norm(crossed + self.second(x)))
        if self.residual:
            out = out + conditions
        return unit(out)


def unit(x: Floats) -> Floats:
    """Of length 1 over the last axis; zero stays zero."""
    return x / np.maximum(np.sqrt(np.add.reduce(x * x, -1, keepdims=True)), np.float32(1e-12))


def array_of(values: Tensor) -> Floats:
    """Weights as they are now, to be read only."""
    return values.detach().float().numpy()


def _linear(layer: nn.Module) -> Affine:
    return Affine.of(layer.weight, layer.bias)  # type: ignore[arg-type]


def _relu(x: Floats) -> Floats:
    return np.maximum(x, np.float32(0))
