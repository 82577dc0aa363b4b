"""The encoder's weights as serving multiplies them: two projections a layer instead of four.

The output projection is multiplied into the values (weights that sum to one carry biases through), and the
keys' into the queries. The bias of `down` would cost a pass of its own, and moves into the norm before it.
Nothing here is an approximation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from training.models.transact.config import Fusion, SequenceConfig
from training.models.transact.encoder import EncoderLayer


def shareable(config: SequenceConfig) -> bool:
    """Whether the algebra holds for this configuration; the network's own forward serves the others."""
    return config.fusion is Fusion.CONCAT and config.heads == 1 and not config.causal


@dataclass(frozen=True)
class FoldedLayer:
    """One layer, float64; matrices are (out, in)."""

    query: Tensor  # (d, d): x_s (query x_t + query_bias) is the score of t and s, but for what all s share
    query_bias: Tensor  # (d,)
    value: Tensor  # (d, d) values through the output projection
    value_bias: Tensor  # (d,)
    up: Tensor  # (ffn, d)
    up_bias: Tensor  # (ffn,)
    down: Tensor  # (d, ffn)
    gain1: Tensor  # (d,)
    shift1: Tensor  # (d,) with the bias of `down`
    gain2: Tensor  # (d,)
    shift2: Tensor  # (d,)
    eps: float

    @classmethod
    def of(cls, layer: EncoderLayer) -> FoldedLayer:
        """A score is scaled by d^-0.5 within `query`."""
        state = {name: t.detach().double() for name, t in layer.state_dict().items()}
        q, k, v = state["qkv.weight"].chunk(3)
        qb, _, vb = state["qkv.bias"].chunk(3)
        out, scale, down_bias = state["out.weight"], len(q) ** -0.5, state["down.bias"]
        return cls(
            query=k.t() @ q * scale,
            query_bias=k.t() @ qb * scale,
            value=out @ v,
            value_bias=out @ vb + state["out.bias"],
            up=state["up.weight"],
            up_bias=state["up.bias"] - state["up.weight"] @ down_bias,
            down=state["down.weight"],
            gain1=state["norm1.weight"],
            shift1=state["norm1.bias"] + down_bias,
            gain2=state["norm2.weight"],
            shift2=state["norm2.bias"],
            eps=layer.norm1.eps,
        )


def centred(layers: Sequence[FoldedLayer]) -> list[FoldedLayer]:
    """The same layers of tokens without their mean, for kernels that take a norm apart.

    A norm takes off the mean of what it is given, so whatever is added up before one may come without it:
    values, `down` and shifts are centred. A token then lacks what a norm's shift adds to every number alike;
    the biases of what reads it have it, and the last layer's tokens are whole.
    """
    made, mean = [], 0.0
    for n, layer in enumerate(layers):
        last = n == len(layers) - 1
        made.append(
            replace(
                layer,
                query_bias=layer.query_bias + mean * layer.query.sum(dim=1),
                value=_centred(layer.value),
                value_bias=_centred(layer.value_bias + mean * layer.value.sum(dim=1)),
                up_bias=layer.up_bias + layer.shift1.mean() * layer.up.sum(dim=1),
                down=_centred(layer.down),
                shift1=_centred(layer.shift1),
                shift2=layer.shift2 if last else _centred(layer.shift2),
            )
        )
        mean = float(layer.shift2.mean())
    return made


def _centred(x: Tensor) -> Tensor:
    """(d, ...) without its mean over d."""
    return x - x.mean(dim=0)
