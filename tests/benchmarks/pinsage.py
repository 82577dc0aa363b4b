"""How fast PinSage trains, pools and embeds, as ratios to plainer forms, all measured in one run.

    python -m tests.benchmarks.pinsage                    200k pins, about 4 minutes and 6 GiB
    python -m tests.benchmarks.pinsage --pins 20000       a quick look

Both sides have the same weights, blocks and settings (heap kept, matmul precision), one thread, and run
interleaved, round by round; times are process CPU time, the best round of each. The graph has lognormal degrees
and no communities. torch_geometric is optional (`pip install --no-deps torch_geometric xxhash`), or its key is
null. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tests.benchmarks.measuring import in_turns, machine
from tests.benchmarks.pixie import random_graph
from training.cpu import CpuSettings, tune_cpu
from training.models.pinsage import Neighbourhoods, PinSageConfig, embed_catalogue, embed_pins, pin_inputs
from training.models.pinsage.blocks import Adjacency, BlockBuilder
from training.models.pinsage.loss import max_margin_loss
from training.models.pinsage.network import PinSage, seeded
from training.models.pinsage.pooling import weighted_sum
from training.models.pixie import importance_neighbours
from training.pinsage.batches import Batch, BatchPlan, Snapshot
from training.pinsage.pairs import Pairs
from training.pinsage.trainer import PinSageTraining, batch_loss

GOALS = {"layerwise_vs_recursion": 20.0, "train_vs_plain": 1.8, "pooling_vs_pyg": 3.0}
SAME_LOSS = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pins", type=int, default=200_000)
    parser.add_argument("--neighbours", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    settings = tune_cpu(threads=1)
    print(machine(settings, _products(settings)))
    snapshot, config = _catalogue(args.pins, args.neighbours, args.seed)
    edges = snapshot.neighbourhoods.edges
    print(f"{args.pins:,} pins, {edges / args.pins:.1f} neighbours a pin; {config}\n")
    print("| what | ours, CPU ms | other, CPU ms | ratio | note |\n|---|---|---|---|---|")
    results: dict[str, Any] = {
        "pooling_vs_pyg": pooling(args.rounds, args.seed),
        "train_vs_plain": training_step(snapshot, config, 128, 128, args.rounds, "default widths"),
        "layerwise_vs_recursion": inference(snapshot, config, args.rounds),
    }
    wide = PinSageConfig(dim=256, hidden=256, neighbours=args.neighbours)
    content = np.random.default_rng(args.seed).standard_normal((args.pins, 256), np.float32)
    inputs = _inputs(content, snapshot.neighbourhoods, wide)
    snapshot = Snapshot(inputs, snapshot.neighbourhoods, snapshot.pairs)
    results["train_vs_plain_256"] = training_step(snapshot, wide, 64, 32, args.rounds, "all widths 256")
    results["goals"] = {
        key: f">= {goal}: {'met' if (results[key] or 0) >= goal else 'NOT met'}" for key, goal in GOALS.items()
    }
    print(json.dumps(results))


def pooling(rounds: int, seed: int, edges: int = 83_000, width: int = 256) -> float | None:
    """Forward and backward of one importance pooling, over torch_geometric's message passing."""
    rng = np.random.default_rng(seed)
    sources, rows = edges // 2, edges // 50
    offsets = np.arange(rows + 1, dtype=np.int32) * 50
    indices = rng.integers(0, sources, rows * 50).astype(np.int32)
    weights = rng.random(rows * 50, np.float32)
    edge_arrays = (torch.from_numpy(array) for array in (indices, offsets, weights))
    adjacency = Adjacency(*edge_arrays, sources)
    said = torch.randn(sources, width, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    gradient = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed + 1))

    def ours() -> Tensor:
        adjacency.__dict__.pop("transposed", None)  # the transpose is part of the price
        return _there_and_back(weighted_sum(said, adjacency), said, gradient)

    target = torch.from_numpy(np.repeat(np.arange(rows), 50))
    source = torch.from_numpy(indices.astype(np.int64))
    weight = torch.from_numpy(weights)

    def gather() -> Tensor:
        messages = (said[source] * weight[:, None]).view(rows, 50, width)
        return _there_and_back(messages.sum(1), said, gradient)

    def scatter() -> Tensor:
        out = torch.zeros(rows, width).index_add(0, target, said[source] * weight[:, None])
        return _there_and_back(out, said, gradient)

    def bag() -> Tensor:
        out = F.embedding_bag(
            adjacency.indices,
            said,
            adjacency.offsets,
            mode="sum",
            per_sample_weights=weight,
            include_last_offset=True,
        )
        return _there_and_back(out, said, gradient)

    sides: dict[str, Callable[[], Tensor]] = {"ours": ours, "gather": gather, "scatter": scatter, "bag": bag}
    names = {
        "gather": "pooling: torch gather * w, sum",
        "scatter": "pooling: torch index_add",
        "bag": "pooling: embedding_bag with torch's own backward",
        "pyg": "pooling: torch_geometric MessagePassing",
    }
    message_passing = _message_passing()
    if message_passing is not None:
        edge_index = torch.stack([source, target])

        def pyg() -> Tensor:
            out = message_passing(said, edge_index, weight, rows)
            return _there_and_back(out, said, gradient)

        sides["pyg"] = pyg
    outputs = {name: side() for name, side in sides.items()}
    for name, output in outputs.items():
        torch.testing.assert_close(output, outputs["ours"], rtol=1e-4, atol=1e-4, msg=f"{name} pools otherwise")
    times = _best(sides, rounds * 4)
    for name, text in names.items():
        if name in times:
            _row(text, times["ours"], times[name], f"{rows * 50:,} edges, width {width}, forward and backward")
    if message_passing is None:
        print("| pooling: torch_geometric is not installed | | | | |")
        return None
    return round(times["pyg"] / times["ours"], 2)


def _message_passing() -> Callable[[Tensor, Tensor, Tensor, int], Tensor] | None:
    try:
        from torch_geometric.nn import MessagePassing
    except ImportError:  # optional: the row and the key say that it is absent
        return None

    class ImportancePooling(MessagePassing):
        def __init__(self) -> None:
            super().__init__(aggr="add")

        def forward(self, said: Tensor, edge_index: Tensor, weight: Tensor, rows: int) -> Tensor:
            return self.propagate(edge_index, x=(said, None), weight=weight, size=(len(said), rows))

        def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
            return x_j * weight[:, None]

    return ImportancePooling()


def _there_and_back(out: Tensor, leaf: Tensor, gradient: Tensor) -> Tensor:
    (back,) = torch.autograd.grad(out, leaf, gradient)
    return back


def training_step(
    snapshot: Snapshot, config: PinSageConfig, pairs: int, uniform: int, rounds: int, note: str
) -> float:
    """One step (forward, backward, Adam) over the same step with pooling by gather, on the same block."""
    training = PinSageTraining(batch=pairs, uniform_negatives=uniform, in_batch_negatives=pairs)
    plan = BatchPlan((snapshot,), pairs, uniform, pairs, training.seed, config.layers)
    batch = plan.batch(0, 0, 0, plan.order(0)[0], [BlockBuilder(snapshot.neighbourhoods)])
    padded = [_padded(adjacency) for adjacency in batch.block.layers]

    def side(loss_of: Callable[[PinSage], Tensor]) -> Callable[[], float]:
        network = seeded(config, snapshot.inputs.shape[1] - int(config.degree), 1)
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)

        def step() -> float:
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(network)
            loss.backward()
            optimiser.step()
            return loss.item()

        return step

    def ours(network: PinSage) -> Tensor:
        for adjacency in batch.block.layers:
            adjacency.__dict__.pop("transposed", None)  # the transpose is part of the price
        return batch_loss(network, batch, training)

    sides = {"ours": side(ours), "plain": side(lambda network: _plain_loss(network, batch, padded, training))}
    for step in range(3):
        first, second = sides["ours"](), sides["plain"]()
        if abs(first - second) > SAME_LOSS:
            raise SystemExit(f"step {step}: losses {first} and {second} differ by more than {SAME_LOSS}")
    times = _best(sides, rounds)
    edges = len(batch.block.layers[0].indices)
    _row(
        "training step: gather on unique nodes",
        times["ours"],
        times["plain"],
        f"{note}: {pairs} pairs, {len(batch.block.nodes):,} nodes, {edges:,} edges, loss equal to {SAME_LOSS}",
    )
    return round(times["plain"] / times["ours"], 2)


def _padded(adjacency: Adjacency) -> tuple[Tensor, Tensor]:
    """(rows, T) indices and weights, padded with weight 0."""
    offsets = adjacency.offsets.numpy()
    counts = np.diff(offsets)
    shape = (len(counts), int(counts.max()))
    inside = np.arange(shape[1]) < counts[:, None]
    indices, weights = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    indices[inside], weights[inside] = adjacency.indices.numpy(), adjacency.weights.numpy()
    return torch.from_numpy(indices), torch.from_numpy(weights)


def _plain_loss(
    network: PinSage, batch: Batch, padded: list[tuple[Tensor, Tensor]], training: PinSageTraining
) -> Tensor:
    """The forward pass as the paper's algorithm reads: gather neighbours, weigh, sum, concatenate."""
    hidden = batch.inputs
    for convolution, (indices, weights) in zip(network.convolutions, padded, strict=True):
        said = F.relu(convolution.project(hidden))
        pooled = (said[indices] * weights[:, :, None]).sum(1)
        both = torch.cat([hidden[: len(indices)], pooled], 1)
        w = torch.cat([convolution.own.weight, convolution.neighbours.weight], 1)
        hidden = F.normalize(F.relu(F.linear(both, w, convolution.own.bias)), dim=1)
    vectors = network.answers(hidden)
    queries, positives = vectors[batch.queries], vectors[batch.positives]
    return max_margin_loss(queries, positives, vectors[batch.negatives], batch.allowed, training.margin)


def inference(snapshot: Snapshot, config: PinSageConfig, rounds: int, batch: int = 256) -> float:
    """Nodes per CPU second, layer by layer over per-seed recursion in batches."""
    network = seeded(config, snapshot.inputs.shape[1] - int(config.degree), 1).eval()
    rng = np.random.default_rng(3)
    seeds: NDArray[np.int64] = np.sort(rng.choice(len(snapshot.inputs), batch, replace=False))
    whole = embed_catalogue(network, snapshot.inputs, snapshot.neighbourhoods)
    some = embed_pins(network, snapshot.inputs, snapshot.neighbourhoods, seeds)
    difference = float(np.abs(whole[seeds] - some).max())
    if difference > 1e-5:
        raise SystemExit(f"layer-wise and recursive vectors differ by {difference}")
    times = _best(
        {
            "layers": lambda: embed_catalogue(network, snapshot.inputs, snapshot.neighbourhoods),
            "recursion": lambda: embed_pins(network, snapshot.inputs, snapshot.neighbourhoods, seeds),
        },
        max(2, rounds // 2),
    )
    fast, slow = len(snapshot.inputs) / times["layers"], batch / times["recursion"]
    _row(
        "inference: recursion, per 1000 nodes",
        1 / fast * 1000,
        1 / slow * 1000,
        f"{fast:,.0f} against {slow:,.0f} nodes a CPU second, greatest difference {difference:.1e}",
    )
    return round(fast / slow, 2)


def _catalogue(pins: int, neighbours: int, seed: int) -> tuple[Snapshot, PinSageConfig]:
    config = PinSageConfig(neighbours=neighbours)
    graph = random_graph(10 * pins, seed)
    ids, weights = importance_neighbours(graph, np.arange(pins), walks=200, hops=2, top=neighbours, seed=seed)
    neighbourhoods = Neighbourhoods.from_padded(ids, weights)
    rng = np.random.default_rng(seed)
    content = rng.standard_normal((pins, 64), np.float32)
    queries, positives = rng.integers(0, pins, (2, 20_000)).astype(np.int32)
    pairs = Pairs(queries, positives, np.arange(20_000, dtype=np.int64))
    return Snapshot(_inputs(content, neighbourhoods, config), neighbourhoods, pairs), config


def _inputs(
    content: NDArray[np.float32], neighbourhoods: Neighbourhoods, config: PinSageConfig
) -> NDArray[np.float32]:
    unit = content / np.linalg.norm(content, axis=1, keepdims=True)
    return pin_inputs(unit, np.diff(neighbourhoods.offsets), config)


def _row(what: str, ours: float, other: float, note: str) -> None:
    print(f"| {what} | {ours * 1000:.1f} | {other * 1000:.1f} | {other / ours:.2f} | {note} |", flush=True)


def _products(settings: CpuSettings) -> str:
    a = torch.randn(1024, 1024)
    begin = time.process_time()
    statistics.mean(float((a @ a)[0, 0]) for _ in range(10))
    speed = 10 * 2 * 1024**3 / (time.process_time() - begin) / 1e9
    return f"matmul {settings.matmul} ({speed:.0f} GFLOP/s)"


def _best(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    return {name: min(times) for name, times in in_turns(sides, rounds)[0].items()}


if __name__ == "__main__":
    main()
