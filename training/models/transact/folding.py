"""The encoder's weights as serving multiplies them: two projections a layer instead of four.

The output projection is multiplied into the values (weights that sum to one carry biases through), and the
keys' into the queries. The bias of `down` would cost a pass of its own, and moves into the norm before it.
Nothing here is an approximation.
"""

from __future__ import annotations

from dataclasses import dataclass

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
