"""How fast PinnerFormer trains and embeds users, over the same network in eager float32, measured in one run.

    python -m tests.benchmarks.pinnerformer             hidden 512, 5 layers, 256 tokens: some minutes
    python -m tests.benchmarks.pinnerformer --hidden 256 --layers 4

Both sides have the same weights, batches and heap settings, one thread, and take turns; times are process CPU
time, sums of training steps and medians of inference rounds, tokens are counted without padding. The eager side
is the module as it reads: float32 products as torch ships them (`highest`), torch's own attention and AdamW,
every position of the full length through every layer. Ours is what the trainer and the batch inference run;
choosing its precision (a probe of eight users, once a night) is not timed. `products_vs_eager` is what the
trunk's matrix products alone gain by precision and library on this CPU: what training gains beyond it is work
left out. `train_most_vs_eager` is what training at full length would gain if nothing but the products of all
blocks but the last were left of it. `infer_exact_vs_eager` is ours in float32, `infer_over_products` ours over
the products that every token needs, in the same precision. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.benchmarks.measuring import float32_products, in_turns, machine
from training.cpu import tune_cpu
from training.models.pinnerformer import ActionArrays, PinnerFormer, PinnerFormerConfig, Tokens, collate
from training.models.pinnerformer.attention import fused_attention
from training.models.pinnerformer.eight_bits import PRODUCTS
from training.models.pinnerformer.inference import fitting_precision, native_bfloat16, run
from training.models.pinnerformer.network import Block, seeded
from training.models.pinnerformer.products import Linear, product
from training.models.pinnerformer.sketch import CountMinSketch
from training.pinnerformer.batches import BatchPlan, Sampling
from training.pinnerformer.timelines import Timelines, first_times
from training.pinnerformer.trainer import Learner, PinnerFormerTraining, adamw, train_step

GOALS = {"train_vs_eager": 3.0, "infer_vs_eager": 5.0, "infer_cosine": 0.999}
SAME_LOSS = 0.01
PINS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--users", type=int, default=8, help="sequences a training step")
    parser.add_argument("--steps", type=int, default=25, help="training steps of both sides")
    parser.add_argument("--infer-users", type=int, default=32, help="users of each inference round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("training", "inference"))
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    settings = tune_cpu(threads=1)
    print(machine(settings, f"ours {settings.matmul}, training in bfloat16 {native_bfloat16()}"))
    config = PinnerFormerConfig(dim=args.dim, hidden=args.hidden, layers=args.layers, heads=8)
    lines, content = world(args.users * 8, config.length, args.dim, args.seed)
    print(f"hidden {args.hidden}, {args.layers} layers, {config.length} tokens, dim {args.dim}\n")
    print("| what | ours | eager float32 | ratio | note |\n|---|---|---|---|---|")
    products = products_alone(config, args.users * config.length)
    results: dict[str, Any] = {"products_vs_eager": round(products["eager"] / products["ours"], 2)}
    if args.only != "inference":
        floor = products["ours"] * (config.layers - 1)
        results |= training(config, lines, content, args.users, args.steps, args.seed, floor)
    if args.only != "training":
        results |= inference(config, lines, content, args.infer_users, args.rounds, args.seed)
    goals = {
        key: f">= {goal}: {'met' if results[key] >= goal else 'MISSED'}"
        for key, goal in GOALS.items()
        if key in results
    }
    if "loss_difference" in results:
        equal = results["loss_difference"] <= SAME_LOSS
        goals["loss"] = f"equal to {SAME_LOSS:.0%}: {'met' if equal else 'MISSED'}"
    results["goals"] = goals
    print(json.dumps(results))


def world(users: int, length: int, width: int, seed: int) -> tuple[Timelines, NDArray[np.float32]]:
    """Users with two of 50 interests and twice `length` actions each; pins of an interest lie together."""
    rng = np.random.default_rng(seed)
    interest = rng.integers(0, 50, PINS)
    content = rng.standard_normal((50, width))[interest] + rng.standard_normal((PINS, width))
    content = (content / np.linalg.norm(content, axis=1, keepdims=True)).astype(np.float32)
    members = [np.flatnonzero(interest == i) for i in range(50)]
    each = 2 * length
    rows = []
    for _ in range(users):
        wanted = rng.choice(50, 2, replace=False)[rng.integers(0, 2, each)]
        rows.append([rng.choice(members[i]) for i in wanted])
    count = users * each
    gaps = rng.exponential(6 * 3_600_000, (users, each)).astype(np.int64) + 1
    arrays = ActionArrays(
        np.array(rows, np.int32).ravel(),
        rng.integers(1, 6, count).astype(np.int8),
        rng.integers(1, 4, count).astype(np.int8),
        rng.exponential(10, count).astype(np.float32),
        (1_750_000_000_000 + gaps.cumsum(axis=1)).ravel(),
    )
    owners = np.repeat(np.arange(users), each)
    offsets = np.arange(users + 1) * each
    label = np.ones(count, np.bool_)
    return Timelines(np.arange(1, users + 1), offsets, arrays, label, first_times(owners, arrays)), content


def training(
    config: PinnerFormerConfig,
    lines: Timelines,
    content: NDArray[np.float32],
    users: int,
    steps: int,
    seed: int,
    floor: float,
) -> dict[str, float]:
    """Whole steps (batch, forward, loss, backward, clip, AdamW) of both sides on the same batches: of full
    length, and of lognormal lengths, which the eager side pads to the length of its tensors. `floor`: CPU
    seconds of the products of a step of full length.
    """
    full = _trained(config, lines, content, users, steps, seed)
    _training_row("training, full length", full, "")
    rng = np.random.default_rng(seed)
    drawn = np.clip(rng.lognormal(4.0, 1.1, len(lines)), 2, config.length).astype(np.int64)
    mixed = _trained(config, shortened(lines, drawn), content, users, steps, seed)
    longest = float(np.mean(rng.choice(drawn, (1000, users)).max(axis=1)))
    _training_row(
        "training, lognormal lengths",
        mixed,
        f"mean {drawn.mean():.0f}; eager pads to {config.length}, as long as a random batch's longest "
        f"({longest:.0f} on average) or longer; ours batches like lengths",
    )
    return {
        "train_vs_eager": round(full.ratio, 2),
        "train_most_vs_eager": round(full.spent["eager"] / (steps - 1) / floor, 2),
        "train_mixed_vs_eager": round(mixed.ratio, 2),
        "loss_difference": round(max(full.difference, mixed.difference), 5),
    }


@dataclass(frozen=True)
class Sides:
    """Steps of both sides on the same batches."""

    tokens: int
    """Real ones, padding not counted, of the timed steps."""
    spent: dict[str, float]
    """CPU seconds of the timed steps."""
    losses: dict[str, list[float]]

    @property
    def ratio(self) -> float:
        return self.spent["eager"] / self.spent["ours"]

    @property
    def difference(self) -> float:
        """Share by which the mean losses of the last third of the steps differ."""
        last = {
            name: statistics.mean(values[-max(1, len(values) // 3) :]) for name, values in self.losses.items()
        }
        return abs(last["ours"] / last["eager"] - 1)


def _trained(
    config: PinnerFormerConfig,
    lines: Timelines,
    content: NDArray[np.float32],
    users: int,
    steps: int,
    seed: int,
) -> Sides:
    sampling = Sampling(users=users, in_batch=256, random=2048, longest_share=1.0, sequences_per_user=1)
    settings = {
        "ours": PinnerFormerTraining(sampling=sampling, learning_rate=3e-4, seed=seed),
        "eager": PinnerFormerTraining(sampling=sampling, learning_rate=3e-4, seed=seed, bfloat16=False),
    }
    plan = BatchPlan(
        lines, content, np.arange(PINS, dtype=np.int32), sampling, config.length, config.days, seed
    )
    order = [(epoch, *one) for epoch in range(-(-steps // plan.steps)) for one in enumerate(plan.order(epoch))]
    sides = {}
    for name, chosen in settings.items():
        network = seeded(config, content.shape[1], 0, seed)
        learner = Learner(network if name == "ours" else eager_network(network), CountMinSketch())
        optimiser = adamw(learner, chosen)
        if name == "eager":
            optimiser = torch.optim.AdamW(learner.parameters(), lr=chosen.learning_rate)
        sides[name] = (learner.train(), optimiser, chosen)
    spent, tokens = dict.fromkeys(sides, 0.0), 0
    losses: dict[str, list[float]] = {name: [] for name in sides}
    for at, (epoch, step, chosen_rows) in enumerate(order[:steps]):
        batch = plan.batch(epoch, step, chosen_rows)
        wide = collate(lines.arrays, *chosen_rows[1:], content, config.length)
        seen = {"ours": batch, "eager": replace(batch, tokens=wide)}
        tokens += int(batch.tokens.lengths.sum()) if at else 0  # the first step is not timed
        for name, (learner, optimiser, chosen) in sides.items():
            with float32_products("medium" if name == "ours" else "highest"):
                begin = time.process_time()
                losses[name].append(train_step(learner, optimiser, seen[name], plan, chosen))
                spent[name] += time.process_time() - begin if at else 0.0
    return Sides(tokens, spent, losses)


def shortened(lines: Timelines, lengths: NDArray[np.int64]) -> Timelines:
    """Each user's first `lengths` actions (U,), and the one that follows them, as a label."""
    place = np.arange(len(lines.arrays)) - lines.offsets[:-1][lines.owners]
    kept = place <= lengths[lines.owners]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(lines.owners[kept], minlength=len(lines)))])
    return Timelines(lines.users, offsets, lines.arrays.take(kept), lines.label[kept], lines.first_ms[kept])


def _training_row(what: str, made: Sides, note: str) -> None:
    steps, begin = len(made.losses["ours"]), made.losses["eager"][0]
    _row(
        f"{what}, tokens a CPU second",
        made.tokens / made.spent["ours"],
        made.tokens / made.spent["eager"],
        f"{steps - 1} steps of {made.tokens / (steps - 1):.0f} tokens; loss {begin:.3f} to "
        f"{made.losses['ours'][-1]:.4f} and {made.losses['eager'][-1]:.4f}, last third "
        f"{made.difference:.2%} apart{'; ' + note if note else ''}",
    )


def products_alone(config: PinnerFormerConfig, tokens: int) -> dict[str, float]:
    """CPU seconds of a block's products with `tokens` rows, forward and backward, by side."""
    width, low = config.hidden, native_bfloat16()
    spent: dict[str, list[float]] = {"ours": [], "eager": []}
    for _ in range(6):
        for side, times in spent.items():
            dtype = torch.bfloat16 if low and side == "ours" else torch.float32
            total = 0.0
            for wide, out in ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)):
                x, weight = (torch.ones(n, wide, dtype=dtype, requires_grad=True) for n in (tokens, out))
                y = torch.ones(tokens, out, dtype=dtype)
                with float32_products("medium" if side == "ours" else "highest"):
                    begin = time.process_time()
                    (product if side == "ours" else F.linear)(x, weight).backward(y)
                    total += time.process_time() - begin
            times.append(total)
    found = {side: statistics.median(times[1:]) for side, times in spent.items()}
    _row(
        "a block's matrix products alone, a CPU second",
        *(1 / found[side] for side in spent),
        f"{tokens} tokens, forward and backward",
    )
    return found


def inference(
    config: PinnerFormerConfig,
    lines: Timelines,
    content: NDArray[np.float32],
    users: int,
    rounds: int,
    seed: int,
) -> dict[str, float]:
    """Users a CPU second: of lognormal lengths, as in a population, and every one of full length."""
    network = seeded(config, content.shape[1], 0, seed).eval()
    plain = eager_network(network)
    rng = np.random.default_rng(seed)
    who = np.arange(users) % len(lines)
    starts = lines.offsets[:-1][who]
    runner = fitting_precision(network, lines.arrays, starts, starts + config.length, content)
    drawn = np.clip(rng.lognormal(4.0, 1.1, users), 1, config.length).astype(np.int64)
    out: dict[str, float] = {}
    for key, lengths, note in (
        ("infer_full_vs_eager", np.full(users, config.length), "every user of full length"),
        (
            "infer_vs_eager",
            drawn,
            f"lognormal lengths, mean {drawn.mean():.0f}; eager pads to the longest",
        ),
    ):
        ends = starts + lengths

        def eager(ends: NDArray[np.int64] = ends) -> NDArray[np.float32]:
            with float32_products("highest"), torch.inference_mode():
                parts = [_plain(plain, lines, starts, ends, content, at) for at in range(0, users, 16)]
            return np.concatenate(parts)

        def ours(network: PinnerFormer, ends: NDArray[np.int64] = ends) -> NDArray[np.float32]:
            with float32_products("medium"):
                return run(network, lines.arrays, starts, ends, content)

        sides = {
            "ours": partial(ours, runner),
            "exact": partial(ours, network),
            "products": partial(products_of_tokens, runner, int(lengths.sum())),
            "eager": eager,
        }
        spent, made = in_turns(sides, rounds)
        cost = {name: statistics.median(times) for name, times in spent.items()}
        cosine = float((made["ours"] * made["eager"]).sum(axis=1).min())
        out[key] = round(cost["eager"] / cost["ours"], 2)
        out[key.replace("_vs", "_exact_vs")] = round(cost["eager"] / cost["exact"], 2)
        out[key.replace("_vs_eager", "_over_products")] = round(cost["ours"] / cost["products"], 2)
        out["infer_cosine"] = min(out.get("infer_cosine", 1.0), round(cosine, 5))
        _row(
            "inference, users a CPU second",
            users / cost["ours"],
            users / cost["eager"],
            f"{note}; least cosine {cosine:.5f}; in float32 {users / cost['exact']:,.1f}; products alone "
            f"{users / cost['products']:,.1f}",
        )
    return out


def products_of_tokens(runner: PinnerFormer, tokens: int) -> None:
    """The products that every token goes through, whichever others are left out."""
    config = runner.config
    with float32_products("medium"), torch.inference_mode():
        runner.token(torch.ones(tokens, runner.token.in_features, dtype=runner.token.weight.dtype))
        inputs = {
            width: torch.ones(tokens, width, dtype=runner.token.weight.dtype)
            for width in (config.hidden, 4 * config.hidden)
        }
        for block in runner.blocks[:-1]:
            for name in PRODUCTS:
                getattr(block, name)(inputs[4 * config.hidden if name == "down" else config.hidden])


def _plain(
    network: PinnerFormer,
    lines: Timelines,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    content: NDArray[np.float32],
    at: int,
) -> NDArray[np.float32]:
    """Sixteen users, padded to their longest, as the formulas read: every position, then the newest one."""
    part = slice(at, at + 16)
    tokens = collate(lines.arrays, starts[part], ends[part], content)
    return network(tokens)[torch.arange(len(tokens.lengths)), tokens.lengths - 1].numpy()


class PlainBlock(Block):
    """The block with torch's own attention."""

    def attend(self, qkv: Tensor) -> Tensor:
        return fused_attention(qkv, self.heads)


class PlainNetwork(PinnerFormer):
    """Plain blocks, every one at every token."""

    def hidden_at(self, tokens: Tokens, places: Tensor) -> Tensor:
        return self.hidden(tokens)[torch.arange(len(places))[:, None], places]


def eager_network(network: PinnerFormer) -> PinnerFormer:
    """The same weights in plain blocks, every product torch's."""
    made = PlainNetwork(network.config, network.content_dim, network.pin_count)
    made.blocks = nn.ModuleList(PlainBlock(network.config) for _ in network.blocks)
    for part in list(made.modules()):
        for name, linear in part.named_children():
            if isinstance(linear, Linear):
                plain = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)
                setattr(part, name, plain)
    made.load_state_dict(network.state_dict())
    return made.train(network.training)


def _row(what: str, ours: float, other: float, note: str) -> None:
    print(f"| {what} | {ours:,.1f} | {other:,.1f} | {ours / other:.2f} | {note} |", flush=True)


if __name__ == "__main__":
    main()
