"""The encoder layer is torch's own, without its fast path; the cross layers are the formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.models.transact.dcnv2 import CrossLayers
from training.models.transact.encoder import EncoderLayer


def torchs_own(layer: EncoderLayer, width: int, ffn: int) -> nn.TransformerEncoderLayer:
    """torch's layer with the same weights."""
    made = nn.TransformerEncoderLayer(width, layer.heads, ffn, layer.drop.p, batch_first=True)
    names = {
        "qkv.weight": "self_attn.in_proj_weight",
        "qkv.bias": "self_attn.in_proj_bias",
        "out": "self_attn.out_proj",
        "up": "linear1",
        "down": "linear2",
    }
    state = {}
    for name, value in layer.state_dict().items():
        first = name.split(".")[0]
        state[names.get(name) or name.replace(first, names.get(first, first))] = value
    made.load_state_dict(state)
    return made


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_layer_is_torchs(heads: int) -> None:
    torch.manual_seed(heads)
    layer = EncoderLayer(16, heads, 8, 0.0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    other = torchs_own(layer, 16, 8).train()  # training mode: no fast path
    x, lengths = torch.randn(5, 7, 16), torch.tensor([7, 1, 3, 7, 5])
    hidden = torch.arange(7) >= lengths[:, None]
    mask = torch.zeros(5, 1, 7).masked_fill(hidden[:, None], -torch.inf)
    wanted = other(x, src_key_padding_mask=hidden)
    torch.testing.assert_close(layer(x, mask), wanted, atol=1e-5, rtol=1e-5)


def test_dropout_is_drawn_where_torch_draws_it() -> None:
    torch.manual_seed(0)
    layer = EncoderLayer(16, 2, 8, 0.3)
    other = torchs_own(layer, 16, 8).train()
    x, mask = torch.randn(3, 6, 16), torch.zeros(1, 6, 6)
    draws, others = [], []
    for seed in range(200):
        torch.manual_seed(seed)
        draws.append(layer(x, mask))
        others.append(other(x))
    # the draws themselves differ in order; their spread does not
    ours, theirs = torch.stack(draws).std(dim=0).mean(), torch.stack(others).std(dim=0).mean()
    assert float((ours / theirs).detach()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_cross_layers_are_the_formula(layers: int) -> None:
    torch.manual_seed(layers)
    cross, x0 = CrossLayers(5, layers).double().requires_grad_(False), torch.randn(4, 5, dtype=torch.float64)
    made = cross(x0)
    for b in range(4):
        x = x0[b].clone()
        for layer in cross.layers:
            product = [
                sum(float(layer.weight[i, j]) * float(x[j]) for j in range(5)) + float(layer.bias[i])
                for i in range(5)
            ]
            x = torch.tensor(
                [float(x0[b, i]) * product[i] + float(x[i]) for i in range(5)], dtype=torch.float64
            )
        torch.testing.assert_close(made[b], x)
