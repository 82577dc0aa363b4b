"""How many requests the TransAct sequence module answers a CPU second, over the reference form, in one run.

    python -m tests.benchmarks.ranking                     one user, 100 actions, 500 candidates: a minute
    python -m tests.benchmarks.ranking --actions 30        a shorter history; the reference pads it to 100

The reference is the published arithmetic in plain eager float32: the user repeated a candidate, the candidate
beside every action, two of torch's PostNorm encoder layers, the maximum through a linear layer and the ten
first columns. Ours is what `Scorer` runs, the user's part counted in each request. Both have the same weights,
inputs, heap and float32 precision settings and one thread, and take turns; times are process CPU time, medians.
Ratios are given under `medium` and under `highest`, since the reference is faster under one and ours under the
other on some CPUs; `*_vs_best` is over the faster of the two references. The floor is the matrix products of
our form alone (`ranking_products.py`): torch's of some candidates at a time, or in float32 our own of one,
whichever are faster. The last line is one JSON object; goals of bfloat16 are null where
the CPU has none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.benchmarks.measuring import float32_products, in_turns, machine
from tests.benchmarks.ranking_products import products, tile_products
from tests.benchmarks.ranking_request import stages_and_request
from training.cpu import tune_cpu
from training.models.pinnerformer.inference import native_bfloat16
from training.models.ranker import Candidates, Request
from training.models.transact import Head, SequenceConfig, TransActConfig
from training.models.transact.network import TransAct, probabilities, seeded
from training.models.transact.sequence import SequenceEncoder
from training.models.transact.serving import Scorer, as_rows, drift
from training.models.transact.shared import SharedEncoder
from training.transact.fitting import TransActRecipe

GOALS = {
    "transact_fp32_vs_reference": (">=", 4.5),
    "transact_bf16_vs_reference": (">=", 7.5),
    "fp32_max_diff": ("<=", 1e-5),
    "over_gemm_floor": ("<=", 2.0),
}
CONTENT = 64
NOW = 1_760_000_000_000
HEADS = tuple(Head(action=action) for action in ("click", "closeup", "save", "hide"))


class Reference(nn.Module):
    """The published module's arithmetic over one user and N candidates, the weights those of `ours`."""

    def __init__(self, ours: SequenceEncoder) -> None:
        super().__init__()
        config = ours.config
        self.action, self.k, self.pool = ours.action, config.k, ours.pool
        layer = nn.TransformerEncoderLayer(config.width, config.heads, config.ffn, batch_first=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one head: torch says that it has no nested tensors for it
            self.encoder = nn.TransformerEncoder(layer, config.layers)
        names = {"qkv.": "self_attn.in_proj_", "out": "self_attn.out_proj", "up": "linear1", "down": "linear2"}
        for own, other in zip(ours.layers, self.encoder.layers, strict=True):
            state = own.state_dict()
            for name, renamed in names.items():
                state = {k.replace(name, renamed) if k.startswith(name) else k: v for k, v in state.items()}
            other.load_state_dict(state)

    def forward(self, actions: Tensor, pins: Tensor, hidden: Tensor, candidates: Tensor) -> Tensor:
        """(L,) codes, (L, 32), (L,) bool padding, (N, 32) -> (N, 1056)."""
        count, length = len(candidates), len(actions)
        user = torch.cat([self.action(actions), pins], dim=1).expand(count, -1, -1)
        x = torch.cat([user, candidates[:, None].expand(-1, length, -1)], dim=2)
        x = self.encoder(x, src_key_padding_mask=hidden.expand(count, -1))
        most = x.masked_fill(hidden[None, :, None], -torch.inf).amax(dim=1)
        return torch.cat([self.pool(most), x[:, : self.k].flatten(1)], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--actions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    settings = tune_cpu(threads=1)
    print(machine(settings, f"float32 {settings.matmul} faithful, bfloat16 {native_bfloat16()}"))
    network, request, candidates = world(args.actions, args.candidates, args.seed)
    shape = network.config.sequence
    print(
        f"{args.candidates} candidates, {args.actions} actions of {shape.length}, width {shape.width}, "
        f"{shape.layers} layers, {shape.heads} head, FFN {shape.ffn}\n"
    )
    results = sequence_module(network, request, candidates, args.rounds)
    results |= whole_ranker(network, request, candidates, max(3, args.rounds // 2))
    results |= additions(network, request, candidates, 3 * args.rounds)
    results |= stages_and_request(network, request, candidates)
    results = dict.fromkeys(GOALS) | results
    results["goals"] = {
        key: f"{sign} {goal}: {'met' if (results[key] >= goal) == (sign == '>=') else 'MISSED'}"
        for key, (sign, goal) in GOALS.items()
        if results[key] is not None
    }
    print(json.dumps(results))


def world(actions: int, count: int, seed: int) -> tuple[TransAct, Request, Candidates]:
    """A ranker with weights as training leaves them in size, a user with `actions` actions, and candidates."""
    config = TransActConfig(heads=HEADS, sequence=SequenceConfig())
    network = seeded(config, CONTENT, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((actions + count, CONTENT))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    request = Request(
        history=vectors[:actions],
        actions=rng.integers(1, 20, actions),
        surfaces=np.zeros(actions, np.int64),
        times_ms=NOW - 60_000 * np.arange(1, actions + 1),
        request_ms=NOW,
        user=np.zeros(0, np.float32),
    )
    features = rng.exponential(5, (count, len(config.spec.names))).astype(np.float32)
    return network, request, Candidates(vectors[actions:], features)


def sequence_module(network: TransAct, request: Request, candidates: Candidates, rounds: int) -> dict[str, Any]:
    """Projected pins in, the 1056 numbers of every candidate out."""
    module = network.sequence.requires_grad_(False)
    length, count, limit = len(request.actions), len(candidates), module.config.length
    plain = Reference(module).eval()
    with torch.inference_mode():
        pins = network.pins(torch.from_numpy(candidates.content))
        history = network.pins(torch.from_numpy(request.history))
        padded = F.pad(history, (0, 0, 0, limit - length))
        codes = torch.from_numpy(request.actions)
        hidden = torch.arange(limit) >= length
        rows = as_rows(request, candidates)
        everything = network.pins(rows.content)
        wanted = network.sequence(rows, everything, everything[rows.candidates]).flat
    kinds = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if native_bfloat16() else {})
    encoders = {name: SharedEncoder(module, dtype) for name, dtype in kinds.items()}
    sides: dict[str, tuple[str, Callable[[], Any]]] = {}
    for precision in ("medium", "highest"):
        sides[f"reference {precision}"] = (
            precision,
            lambda: plain(F.pad(codes, (0, limit - length)), padded, hidden, pins),
        )
        for name, encoder in encoders.items():

            def ours(encoder: SharedEncoder = encoder) -> Tensor:
                tokens = module.user_tokens(torch.arange(length), codes, codes * 0, history)
                return encoder.candidates(encoder.user(tokens), pins)

            sides[f"{name} {precision}"] = (precision, ours)
            sides[f"floor {name} {precision}"] = (
                precision,
                products(length, count, module.config, kinds[name]),
            )
    sides["floor in registers"] = ("highest", tile_products(length, count, module.config))
    cost, made = _medians(sides, rounds)
    best = min(cost["reference medium"], cost["reference highest"])
    out: dict[str, Any] = {}
    print("| sequence module | ours, ms | reference, ms | ratio | products alone, ms | over them |")
    print("|---|---|---|---|---|---|")
    for name in kinds:
        for precision in ("medium", "highest"):
            ours_s, floor = cost[f"{name} {precision}"], cost[f"floor {name} {precision}"]
            if name == "fp32":
                floor = min(floor, cost["floor in registers"])
            reference = cost[f"reference {precision}"]
            suffix = "" if precision == "medium" else "_highest"
            out[f"transact_{name}_vs_reference{suffix}"] = round(reference / ours_s, 2)
            over = "over_gemm_floor" if name == "fp32" else f"over_gemm_floor_{name}"
            out[f"{over}{suffix}"] = round(ours_s / floor, 2)
            times = f"{1e3 * ours_s:.1f} | {1e3 * reference:.1f} | {reference / ours_s:.2f}"
            print(f"| {name}, {precision} | {times} | {1e3 * floor:.1f} | {ours_s / floor:.2f} |")
        fastest = min(cost[f"{name} medium"], cost[f"{name} highest"])
        out[f"transact_{name}_vs_best"] = round(best / fastest, 2)
    there = wanted if length < module.config.k else made["reference medium"]
    out["fp32_max_diff"] = float(
        max((made["fp32 medium"] - wanted).abs().max(), (made["fp32 medium"] - there).abs().max())
    )
    return out


def whole_ranker(network: TransAct, request: Request, candidates: Candidates, rounds: int) -> dict[str, Any]:
    """A request as the service asks it, DCNv2 and heads included, over the training forward (eager float32)."""
    exact = Scorer(network)
    plain = exact.network

    def reference() -> Tensor:
        return probabilities(plain(as_rows(request, candidates)))

    scorers = {"fp32": exact} | ({"bf16": Scorer(network, torch.bfloat16)} if native_bfloat16() else {})
    sides: dict[str, tuple[str, Callable[[], Any]]] = {"reference": ("medium", reference)}
    for name, scorer in scorers.items():
        sides[name] = ("medium", lambda scorer=scorer: torch.from_numpy(scorer.score(request, candidates)))
    cost, made = _medians(sides, rounds)
    out: dict[str, Any] = {}
    print("\n| whole ranker | ours, ms | training forward, ms | ratio | largest change of a probability |")
    print("|---|---|---|---|---|")
    for name in scorers:
        gap = float((made[name] - made["reference"]).abs().max())
        out[f"ranker_{name}_vs_reference"] = round(cost["reference"] / cost[name], 2)
        out[f"ranker_{name}_max_diff"] = gap
        print(
            f"| {name} | {1e3 * cost[name]:.1f} | {1e3 * cost['reference']:.1f} "
            f"| {cost['reference'] / cost[name]:.2f} | {gap:.1e} |"
        )
    if "bf16" in scorers:
        out["bf16_logit_drift"] = round(drift(exact, scorers["bf16"], [(request, candidates)]), 4)
    return out


def additions(network: TransAct, request: Request, candidates: Candidates, rounds: int) -> dict[str, Any]:
    """What a request costs with what the recipe adds to the paper's form, over the same without."""
    config, recipe = network.config.model_copy(update={"wide": True}), TransActRecipe()
    token = config.sequence.model_copy(update={"candidate_token": True})
    forms = {
        "plain": config,
        "candidate_token": config.model_copy(update={"sequence": token}),
        "pieces": config.model_copy(update={"pieces": recipe.pieces}),
    }
    scorers = {name: Scorer(seeded(form, CONTENT, 0)) for name, form in forms.items()}
    cost, _ = _medians(
        {n: ("medium", lambda s=scorer: s.score(request, candidates)) for n, scorer in scorers.items()}, rounds
    )
    out = {f"{name}_over_plain": round(cost[name] / cost["plain"], 3) for name in list(forms)[1:]}
    print("\n" + "; ".join(f"{name.replace('_', ' ')}: {ratio}" for name, ratio in out.items()))
    return out


def _medians(
    sides: dict[str, tuple[str, Callable[[], Any]]], rounds: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Median CPU seconds of each side, and what each made; a side's first word is its float32 precision."""

    def under(precision: str, side: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with float32_products(precision), torch.inference_mode():
                return side()

        return run

    spent, made = in_turns({name: under(*side) for name, side in sides.items()}, rounds)
    return {name: statistics.median(times) for name, times in spent.items()}, made


if __name__ == "__main__":
    main()
