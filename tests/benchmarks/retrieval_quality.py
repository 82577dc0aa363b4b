"""Are our retrieval models level with the best baseline, and is the blend above each of its sources?

    make bench NAME=retrieval_quality ARGS='--home H --runs DIR'

`corkboard evaluate --protocol temporal` on a home's lake. Every list is kept in `--runs` under the settings it
was made with, so that a run that was cut short goes on, and models may be fitted in several calls. Then the
differences that the question is about, user by user. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from infra.evaluation import lake_of, sentences_of
from infra.home import Home
from tests.benchmarks.differences import markdown, verdict
from tests.benchmarks.kept_lists import kept
from training.cpu import tune_cpu
from training.evaluation import temporal
from training.evaluation.report import Report
from training.evaluation.spread import Spread
from training.evaluation.temporal_models import BLENDED, SOURCES, models

BASELINES = ("popularity", "itemknn", "rp3beta", "ease", "ials", "sasrec")
METRICS = ("HR@100", "Recall@100", "NDCG@100")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--models", nargs="+", help="all if left out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--days", type=int)
    parser.add_argument("--max-users", type=int)
    parser.add_argument("--runs", type=Path, default=Path("retrieval-runs"))
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    args = parser.parse_args()
    home = Home.at(args.home)
    tune_cpu(threads=1)
    known = models(os.cpu_count() or 1, partial(sentences_of, home, _say))
    chosen = {name: kept(name, known[name], args.runs, str(args.home), _say) for name in args.models or known}
    report = temporal.evaluate(
        lake_of(home),
        chosen,
        days=args.days,
        seeds=range(args.seeds),
        max_users=args.max_users,
        progress=_say,
    )
    print(f"\n{report.table()}\n")
    if args.json is not None:
        args.json.write_text(report.to_json())
    differences = compared(report)
    print(markdown("HR, recall and NDCG of 100", differences.items()))
    print(json.dumps({name: [s.mean, s.error, s.seeds, verdict(s)] for name, s in differences.items()}))


def compared(report: Report) -> dict[str, Spread]:
    """Our best source less the best baseline, and the blend less every source, by metric."""
    there = {row.model for row in report.rows}
    out = {}
    for metric in METRICS:

        def best(names: Sequence[str], metric: str = metric) -> str | None:
            found = [name for name in names if name in there]
            return max(found, key=lambda name: report.row(name).mean(metric), default=None)

        pairs = [(best(SOURCES), best(BASELINES))]
        pairs += [(BLENDED, source) for source in SOURCES if {BLENDED, source} <= there]
        for upper, lower in pairs:
            if upper is not None and lower is not None:
                out[f"{upper} > {lower}, {metric}"] = report.difference(upper, lower, metric)
    return out


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
