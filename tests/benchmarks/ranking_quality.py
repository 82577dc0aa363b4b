"""Which of TransAct's published directions a home's data shows: fusion, action types, outputs, positions, V2.

    python -m tests.benchmarks.ranking_quality --home COPY --runs DIR --json out.json

Every ranker is trained on the same rows of the training set that `corkboard train` left in the home, under each
seed, calibrated on the days after (Platt), and measured on the last days: HIT@3 of the list ordered by utility,
and each head's AUC and ECE. Few hides are logged among the first three of a list: where the home's demo world
tells its truth, *planted* HIT@3 adds up the chances of the answers instead, each pin looked at. Rows that
nothing answered are thinned in training alone. A difference is *shown* where it is outside both its 95 %
interval over users (paired) and the spread of its seeds. Sizes are smaller than the paper's, so that a run
takes a minute of one core; they are printed. PinnerFormer's vectors come from a network that knew the days
before the training rows, made anew as of the first row of each part. Trees teach the ranker of the part
`multi-task` alone (`training/transact/teacher.py`): elsewhere it is asked what a network finds by itself.
Finished runs are kept in `--runs`, so that a run cut short goes on. The part `sequence` compares the recipe
with the published form. With `--surface` the same runs are measured on that surface's test rows alone, and with
`--card` the tables go into the card of the home's newest TransAct. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from infra.home import Home
from infra.ranking_evaluation import card_of
from tests.benchmarks import ranking_variants as rv
from tests.benchmarks.ranking_runs import Data, Run, Runs, load
from training.cpu import tune_cpu
from training.data.world_rows import HOMEFEED
from training.evaluation import metrics
from training.evaluation.spread import Spread, difference
from training.transact.fitting import TransActRecipe
from validation.tables import SEARCH

K = 3
MANY = 1_000
"""Positives from which on a head's calibration is judged."""
ECE = 0.01
GBDT, LOGISTIC = "pinnability, gbdt", "pinnability, logistic"


def main() -> None:
    parser, usual = argparse.ArgumentParser(description=__doc__.splitlines()[0]), TransActRecipe()
    parser.add_argument("--home", required=True)
    parser.add_argument("--runs", type=Path, default=Path("ranking-runs"))
    parser.add_argument("--parts", nargs="+", default=list(rv.PARTS), choices=list(rv.PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--days", type=int, nargs=3, default=[14, 3, 7], help="of training, validation, test")
    parser.add_argument("--kept", type=float, default=0.05, help="share of unanswered rows in training")
    parser.add_argument("--requests", type=float, default=0.4, help="share of validation and test requests")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=2e-3, help="largest learning rate")
    parser.add_argument("--batch-rows", type=int, default=256)
    parser.add_argument("--average", type=float, default=usual.training.average, help="share of steps; 0: last")
    parser.add_argument(
        "--pieces", type=int, default=usual.pieces, help="of a feature in the wide part; 0: none"
    )
    parser.add_argument("--attention", choices=["compares", "drawn"], default="compares", help="how it begins")
    parser.add_argument("--surface", choices=[HOMEFEED, SEARCH], help="whose test rows are measured; all")
    parser.add_argument("--card", action="store_true", help="put the tables into TransAct's card")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    tune_cpu(threads=1)
    put = card_of(Home.at(args.home)) if args.card else None
    recipe = TransActRecipe(max_epochs=args.epochs, pieces=args.pieces)
    changed = {"batch_rows": args.batch_rows, "learning_rate": args.rate, "average": args.average}
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=changed)})
    if args.attention == "drawn":
        sequence = recipe.sequence.model_copy(update={"candidate_token": False})
        recipe = recipe.model_copy(update={"sequence": sequence, "attention_start": None})
    with_users = "long and short term" in args.parts
    data = load(Home.at(args.home), tuple(args.days), args.kept, args.requests, with_users)
    known = rv.variants(data.positives, recipe)
    print(f"{data.facts()}\n{recipe}\nutility {data.utility}\n", flush=True)
    if data.chances is not None:
        best = dict(zip(data.heads, data.best().round(3).tolist(), strict=True))
        print(f"planted HIT@{K} of the order by the world's own chances: {best}\n", flush=True)
    runs = Runs(args.runs, data, recipe, args.surface)
    names = list(dict.fromkeys(name for part in args.parts for name in rv.PARTS[part]))
    found: dict[str, list[Run]] = {name: [] for name in names}
    for seed in args.seeds:
        for name in names:
            found[name].append(runs.network(known[name], seed))
    if "multi-task" in args.parts:
        found[LOGISTIC] = [runs.baseline(LOGISTIC, args.seeds[0])]
        found[GBDT] = [runs.baseline(GBDT, seed) for seed in args.seeds]
    data = runs.shown[0]
    result: dict[str, Any] = {"facts": data.facts(), "recipe": recipe.model_dump(mode="json"), "tables": {}}
    tables = []
    for part in args.parts:
        members = [*rv.PARTS[part], *([LOGISTIC, GBDT] if part == "multi-task" else [])]
        table = {name: measured(data, found[name], found[members[0]]) for name in members}
        result["tables"][part] = table
        tables.append(f"### {part}\n\n{markdown(data, table)}")
        print(f"\n{tables[-1]}", flush=True)
    result["goals"] = goals(data, result["tables"])
    print("\n" + "\n".join(f"{met:<9} {name}" for name, met in result["goals"].items()))
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1))
    if put is not None:
        seeds = ", ".join(map(str, args.seeds))
        said = f"By `tests.benchmarks.ranking_quality`, seeds {seeds}, `±` over users.\n\n{data.facts()}"
        put("Published directions", "\n\n".join([said, *tables]))
    print(json.dumps({"goals": result["goals"]}))


def measured(data: Data, runs: Sequence[Run], against: Sequence[Run]) -> dict[str, Any]:
    """HIT@K of each head, its change against another ranker's, and each head's AUC and ECE over seeds."""
    out: dict[str, Any] = {}
    for h, head in enumerate(data.heads):
        own = np.stack([run.hits[:, h] for run in runs])
        other = np.stack([run.hits[:, h] for run in against])
        gap = difference(own, other)
        labels = data.test_labels[:, h]
        aucs = [metrics.auc(labels, run.raw[:, h]) for run in runs]
        out[head] = {
            "hit": asdict(Spread.of(own)),
            "change": asdict(gap),
            "shown": runs is not against and _shown(gap),
            "auc": float(np.mean(aucs)),
            "auc_seeds": float(np.std(aucs, ddof=1)) if len(aucs) > 1 else None,
            "ece": float(np.mean([metrics.ece(labels, run.raw[:, h]) for run in runs])),
            "ece_calibrated": float(np.mean([metrics.ece(labels, run.made[:, h]) for run in runs])),
            "positives": int(labels.sum()),
            **_planted(runs, against, h),
        }
    return out


def _planted(runs: Sequence[Run], against: Sequence[Run], h: int) -> dict[str, Any]:
    """HIT@K of head `h` in chances by the world's laws, and its change; nothing where they are not known."""
    own, other = ([run.planted[:, h] for run in r if run.planted is not None] for r in (runs, against))
    if not own:
        return {}
    gap = difference(np.stack(own), np.stack(other))
    return {
        "planted": {
            "hit": asdict(Spread.of(np.stack(own))),
            "change": asdict(gap),
            "shown": runs is not against and _shown(gap),
        }
    }


def _shown(gap: Spread) -> bool:
    return abs(gap.mean) > max(gap.error or 0.0, gap.seeds or 0.0)


def markdown(data: Data, table: dict[str, dict[str, Any]]) -> str:
    """HIT@3 of saves and hides with their changes, the same by the world's laws where they are known, then each
    head's AUC and ECE before and after."""
    lines = _hits(data, table, f"HIT@{K}", lambda head: head)
    if data.chances is not None:
        lines += ["", *_hits(data, table, f"planted HIT@{K}", lambda head: head["planted"])]
    lines += ["", "| ranker | " + " | ".join(f"{head} AUC | ECE" for head in data.heads) + " |"]
    lines.append("|---" * (1 + 2 * len(data.heads)) + "|")
    for name, heads in table.items():
        cells = [name]
        for head in data.heads:
            own = heads[head]
            deviation = "" if own["auc_seeds"] is None else f" ({own['auc_seeds']:.4f})"
            cells += [f"{own['auc']:.4f}{deviation}", f"{own['ece']:.4f} -> {own['ece_calibrated']:.4f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _hits(
    data: Data, table: dict[str, dict[str, Any]], title: str, of: Callable[[dict[str, Any]], dict[str, Any]]
) -> list[str]:
    """A table of HIT@K, as `of` finds it among what was measured of a head; its first ranker has no change."""
    judged = [head for head in ("save", "hide") if head in data.heads]
    lines = [
        "| ranker | " + " | ".join(f"{title}/{head} | change" for head in judged) + " |",
        "|---" * (1 + 2 * len(judged)) + "|",
    ]
    for place, (name, heads) in enumerate(table.items()):
        found = [of(heads[head]) for head in judged]
        cells = [c for own in found for c in (_spread(own["hit"], "{:.3f}"), _change(own) if place else "")]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return lines


def goals(data: Data, tables: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Each direction: met, level (inside the spread) or missed."""
    found: dict[str, str] = {}
    fusion = tables.get("fusion", {})
    for name in (rv.NO_SEQUENCE, rv.AVERAGE, *rv.BSTS):
        for head, sign in (("save", -1), ("hide", 1)):
            if name in fusion and head in data.heads:
                found |= _verdicts(f"{name} is worse than transact on {head}", fusion[name][head], sign)
    if "action types" in tables and "hide" in data.heads:
        own = tables["action types"][rv.NO_TYPES]["hide"]
        found |= _verdicts("without action types hides rise", own, 1)
    multi = tables.get("multi-task")
    if multi is not None:
        for head in data.heads:
            own = multi[rv.EVERYTHING][head]
            for rival in (LOGISTIC, GBDT):
                other = multi[rival][head]
                apart = own["auc"] - other["auc"]
                level = abs(apart) <= max(own["auc_seeds"] or 0.0, other["auc_seeds"] or 0.0)
                found[f"multi-task AUC of {head} over {rival} ({apart:+.4f})"] = (
                    "level" if level else "met" if apart > 0 else "MISSED"
                )
            if own["positives"] >= MANY:
                met = own["ece_calibrated"] < ECE
                found[f"ECE of {head} after calibration ({own['ece_calibrated']:.4f})"] = (
                    "met" if met else "MISSED"
                )
    return found


def _verdicts(name: str, own: dict[str, Any], sign: int) -> dict[str, str]:
    """By what was logged, and by the world's laws where they are known."""
    found = {name: _verdict(own, sign)}
    if "planted" in own:
        found[f"{name}, planted"] = _verdict(own["planted"], sign)
    return found


def _verdict(own: dict[str, Any], sign: int) -> str:
    if not own["shown"]:
        return "level"
    return "met" if own["change"]["mean"] * sign > 0 else "MISSED"


def _spread(value: dict[str, float | None], form: str) -> str:
    error = value["error"]
    return form.format(value["mean"]) + ("" if error is None else " ± " + form.format(error))


def _change(own: dict[str, Any]) -> str:
    """Percent of the other's value, its interval over users, and the deviation of seeds."""
    change = own["change"]
    base = own["hit"]["mean"] - change["mean"]
    if not base or change["error"] is None:
        return "-"
    seeds = "" if change["seeds"] is None else f", seeds {100 * change['seeds'] / base:.1f}"
    mark = " *" if own["shown"] else ""
    return f"{100 * change['mean'] / base:+.1f} % ± {100 * change['error'] / base:.1f}{seeds}{mark}"


if __name__ == "__main__":
    main()
