"""The network against the paper's algorithm written as loops, one pin and one neighbour at a time."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.models.pinsage.graphs import random_inputs, random_neighbourhoods, small_network
from training.models.pinsage import Neighbourhoods, PinSage, Pooling, embed_pins
from training.models.pinsage.blocks import BlockBuilder, whole_graph
from training.models.pinsage.inference import pooled_graph
from training.models.pinsage.pooling import pool, weighted_sum


def naive(network: PinSage, inputs: np.ndarray, graph: Neighbourhoods) -> np.ndarray:
    """Algorithms 1 and 2 as they read, in float64, over the whole catalogue."""
    hidden = torch.from_numpy(inputs).double()
    for convolution in network.convolutions:
        rows = []
        for pin in range(len(graph)):
            pooled = _naive_pool(convolution, hidden, graph, pin, network.config)
            w = torch.cat([convolution.own.weight, convolution.neighbours.weight], 1).double()
            z = torch.relu(w @ torch.cat([hidden[pin], pooled]) + convolution.own.bias.double())
            rows.append(z / z.norm().clamp(min=1e-12))
        hidden = torch.stack(rows)
    lifted = torch.relu(hidden @ network.lift.weight.double().T + network.lift.bias.double())
    out = lifted @ network.head.weight.double().T
    power = network.config.length_power
    return torch.stack([z / z.norm() * z.norm() ** power for z in out]).detach().numpy()


def _naive_pool(convolution, hidden: Tensor, graph: Neighbourhoods, pin: int, config) -> Tensor:
    start, end = graph.offsets[pin], graph.offsets[pin + 1]
    if start == end:
        return torch.zeros(config.hidden, dtype=torch.float64)
    q, bias = convolution.project.weight.double(), convolution.project.bias.double()
    said = [torch.relu(q @ hidden[neighbour] + bias) for neighbour in graph.ids[start:end]]
    if config.pooling is Pooling.MAX:
        return torch.stack(said).max(0).values
    if config.pooling is Pooling.MEAN:
        return torch.stack(said).mean(0)
    alpha = graph.weights[start:end]
    return sum(float(a) * s for a, s in zip(alpha, said, strict=True))


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize("length_power", [0.0, 0.25, 1.0])
def test_network_is_the_papers_algorithm(pooling: Pooling, layers: int, length_power: float) -> None:
    network, graph = small_network(pooling, layers, length_power), random_neighbourhoods(40, 6)
    inputs = random_inputs(40, network)
    seeds = np.array([3, 39, 0, 14, 1])
    got = embed_pins(network, inputs, graph, seeds)
    np.testing.assert_allclose(got, naive(network, inputs, graph)[seeds], atol=2e-6)


@pytest.mark.parametrize("pooling", list(Pooling))
def test_pooling_gradient_is_torchs_own(pooling: Pooling) -> None:
    graph = pooled_graph(random_neighbourhoods(30, 5), pooling)
    adjacency = whole_graph(graph)
    said = torch.randn(30, 7, generator=torch.Generator().manual_seed(1), requires_grad=True)
    gradient = torch.randn(30, 7, generator=torch.Generator().manual_seed(2))
    (got,) = torch.autograd.grad(pool(said, adjacency, pooling), said, gradient)

    rows = []
    for pin in range(30):
        start, end = int(graph.offsets[pin]), int(graph.offsets[pin + 1])
        near = said[torch.from_numpy(graph.ids[start:end]).long()]
        if start == end:
            rows.append(torch.zeros(7))
        elif pooling is Pooling.MAX:
            rows.append(near.max(0).values)
        else:
            rows.append((near * torch.from_numpy(graph.weights[start:end])[:, None]).sum(0))
    (expected,) = torch.autograd.grad(torch.stack(rows), said, gradient)
    torch.testing.assert_close(got, expected)


def test_gradcheck_of_the_weighted_sum_by_hand() -> None:
    # pin 0 hears 0.25 of pin 1 and 0.75 of pin 2; pin 1 hears pin 2; pin 2 nobody
    graph = Neighbourhoods(
        np.array([0, 2, 3, 3]), np.array([1, 2, 2], np.int32), np.array([0.25, 0.75, 1.0], np.float32)
    )
    said = torch.tensor([[1.0], [2.0], [4.0]], requires_grad=True)
    out = weighted_sum(said, whole_graph(graph))
    assert out.detach().flatten().tolist() == [3.5, 4.0, 0.0]
    (back,) = torch.autograd.grad(out, said, torch.tensor([[1.0], [10.0], [100.0]]))
    assert back.flatten().tolist() == [0.0, 0.25, 10.75]


def test_a_block_holds_every_pin_once_and_layers_as_prefixes() -> None:
    graph = random_neighbourhoods(60, 5)
    builder = BlockBuilder(graph)
    seeds = np.array([8, 2, 50])
    block = builder.build(seeds, 2)
    assert block.nodes[:3].tolist() == seeds.tolist()
    assert len(np.unique(block.nodes)) == len(block.nodes)
    first, last = block.layers
    assert last.rows == 3 and first.rows == last.sources and first.sources == len(block.nodes)
    for row in range(first.rows):
        pin = block.nodes[row]
        near = block.nodes[first.indices[first.offsets[row] : first.offsets[row + 1]].numpy()]
        assert near.tolist() == graph.ids[graph.offsets[pin] : graph.offsets[pin + 1]].tolist()
    again = builder.build(seeds, 2)
    np.testing.assert_array_equal(again.nodes, block.nodes)


@pytest.mark.parametrize(("seeds", "error"), [([1, 1], ValueError), ([-1], IndexError), ([60], IndexError)])
def test_bad_seeds_are_refused_and_leave_the_builder_usable(seeds: list[int], error: type[Exception]) -> None:
    builder = BlockBuilder(random_neighbourhoods(60, 5))
    with pytest.raises(error):
        builder.build(np.array(seeds), 2)
    assert builder.build(np.array([1, 2]), 2).nodes[:2].tolist() == [1, 2]


def test_hub_of_many_edges() -> None:
    pins = 100_001
    offsets = np.concatenate([[0], np.full(pins, pins - 1)]).astype(np.int64)
    hub = Neighbourhoods(
        offsets, np.arange(1, pins, dtype=np.int32), np.full(pins - 1, 1 / (pins - 1), np.float32)
    )
    network = small_network()
    inputs = random_inputs(pins, network)
    vector = embed_pins(network, inputs, hub, np.array([0]))
    assert np.isfinite(vector).all() and vector.any()
