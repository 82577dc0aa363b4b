"""Long term x short term on the ads beside related pins: neither, PinnerFormer's vector, the sequence, both.

    python -m tests.benchmarks.ads_long_short --home COPY --json out.json

One network, TransAct's with its recipe but for the rows of a step, on the home's training set of ads. Every arm
reads what the ads model reads of the page: the ad's source, and how the ad lies to the pin it stands beside.
Interaction features that are made of the user's sequence are left out, but in an arm that has them all: with
them an arm without the sequence module has a sequence all the same. Three arms without either take one kind of
them each: cosines of content vectors, which the sequence module compares too, topics, and counts.
PinnerFormer's vector of a user is of the midnight before the row, by a network that knew only the days before
the first row. Scores are calibrated (Platt) on the days after training and measured on the last ones, at the
places that the ads were shown at.

CTR AUC and log loss are of the clicks logged, and *planted* those expected under the chances that the demo
world gave them: the sum over both outcomes of every row, each as likely as it was. A figure is the mean over
seeds with their deviation; a change is that to the first arm, with the 95 % interval of resampled users. The
ads model of `corkboard train` stands beside, on the same rows. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.home import Home
from infra.jobs import context
from tests.benchmarks.ads_quality import paired
from tests.benchmarks.ranking_planted import ad_clicks
from tests.benchmarks.ranking_runs import long_term
from tests.benchmarks.ranking_variants import WITHOUT_SEQUENCE
from training.ads.baselines import TOWERS, Scores, run_arm
from training.ads.examples import AdExamples, read_examples
from training.ads.trainer import HEADS, AdsTraining, layout_of
from training.cpu import tune_cpu
from training.data.splits import DAY, time_split
from training.data.training_rows import history_of
from training.data.training_set import TrainingSet
from training.evaluation import metrics
from training.models.ads.config import CONTEXT, DENSE, IDS
from training.models.ads.rows import SERVING_POSITION
from training.models.calibration import CalibrationConfig, fit
from training.models.interactions import INTERACTION_FEATURES
from training.models.pinnability import FeatureSpec
from training.models.transact import Head
from training.models.transact.config import Fusion
from training.pipelines.ads import SET
from training.pipelines.catalogues import catalogue_of, space_part
from training.registry import Registry
from training.transact.examples import Examples, Known, PinTable
from training.transact.fitting import TransActRecipe, config_of
from training.transact.starting import begun
from training.transact.trainer import predict, train_network
from validation.lake import Lake

NEITHER, LONG, SHORT, BOTH = "neither", "long term", "short term", "both"
ALL_FEATURES = "both, features made of the sequence too"


def _with(*prefixes: str) -> tuple[str, ...]:
    """WITHOUT_SEQUENCE and the features made of the sequence that begin so, in their order."""
    return tuple(n for n in INTERACTION_FEATURES if n in WITHOUT_SEQUENCE or n.startswith(prefixes))


ARMS: dict[str, tuple[bool, bool, tuple[str, ...]]] = {
    NEITHER: (False, False, WITHOUT_SEQUENCE),
    LONG: (True, False, WITHOUT_SEQUENCE),
    SHORT: (False, True, WITHOUT_SEQUENCE),
    BOTH: (True, True, WITHOUT_SEQUENCE),
    ALL_FEATURES: (True, True, INTERACTION_FEATURES),
    "neither, what cosines tell": (False, False, _with("cos_")),
    "neither, what topics tell": (False, False, _with("topic_", "hours_since_topic")),
    "neither, what counts tell": (
        False,
        False,
        _with("sequence_", "pin_", "hours_since_action"),
    ),
}
"""(whether the user's vector is read, whether the sequence is, interaction features), by arm."""


class AdSpec(FeatureSpec):
    """A ranker's features, and behind them those that only ads have."""

    beside: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return (*super().names, *self.beside)


@dataclass(frozen=True)
class Data:
    """Training, validation and test rows of ads: by each model's arrays, in that order."""

    rows: TrainingSet
    blocks: tuple[Any, Any, Any]
    ads: tuple[AdExamples, AdExamples, AdExamples]
    known: Known
    sources: tuple[str, ...]
    chances: NDArray[np.float64]
    """(n,) of a click on each test row."""

    @property
    def beside(self) -> tuple[str, ...]:
        return (*CONTEXT[:2], *(f"source_{name}" for name in self.sources))

    @property
    def clicks(self) -> NDArray[np.float32]:
        """(n,) of the test rows."""
        return self.ads[2].of(HEADS[:1])[:, 0]

    @property
    def users(self) -> NDArray[np.int64]:
        return self.ads[2].rows.ids[:, IDS.index("user")]

    def examples(self, spec: FeatureSpec) -> list[Examples]:
        """The three parts as a network reads them that has `spec` and `beside`."""
        made = []
        columns = [[f.name for f in DENSE].index(name) for name in CONTEXT[:2]]
        for block, ads in zip(self.blocks, self.ads, strict=True):
            part = Examples.of(block, self.known.log, self.known.pins, spec, self.known.users)
            own = (ads.sources[:, None] == np.array(self.sources)).astype(np.float32)
            more = np.nan_to_num(np.hstack([ads.rows.dense[:, columns], own]))
            made.append(replace(part, features=np.hstack([part.features, more]).astype(np.float32)))
        return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, required=True, help="home folder whose `train` ran the step ads")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, TOWERS], default=[*ARMS, TOWERS])
    parser.add_argument("--days", type=int, nargs=3, default=[14, 3, 7], help="of training, validation, test")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-rows", type=int, default=512, help="rows of a step; the recipe's are fewer")
    parser.add_argument("--rate", type=float, default=2e-3, help="largest learning rate")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    tune_cpu(threads=1)
    data = load(Home.at(args.home), tuple(args.days), any(ARMS[arm][0] for arm in args.arms if arm in ARMS))
    sizes = ", ".join(f"{len(block):,}" for block in data.blocks)
    print(f"{sizes} impressions train, calibrate, test; test clicks {int(data.clicks.sum())}", flush=True)
    print(f"order by the world's own chances: {expected(data.chances, data.chances)}\n", flush=True)
    runs: dict[str, list[Scores]] = {arm: [] for arm in args.arms}
    changed = {"epochs": args.epochs, "batch_rows": args.batch_rows, "learning_rate": args.rate}
    for seed in args.seeds:
        for arm in args.arms:
            made = _towers(data, seed) if arm == TOWERS else scores(data, arm, {"seed": seed, **changed})
            runs[arm].append(made)
            print(f"seed {seed}, {arm}: AUC {metrics.auc(data.clicks, made.after[:, 0]):.4f}", flush=True)
    found = {arm: measured(data, own, runs[args.arms[0]]) for arm, own in runs.items()}
    print(f"\n{table(found)}")
    out = {"days": args.days, "seeds": args.seeds, "batch_rows": args.batch_rows, "sizes": sizes, "arms": found}
    if args.json is not None:
        args.json.write_text(json.dumps(out, indent=1))
    print(json.dumps(out))


def load(home: Home, days: tuple[int, int, int], with_users: bool) -> Data:
    """The home's ads: the last `days[2]` test, `days[1]` before them validate, `days[0]` train; PinnerFormer's
    vectors beside them where asked for."""
    ctx, rows, lake = context(home), TrainingSet(home.training_sets / SET), Lake(home.lake)
    split = time_split(rows.info.start, rows.info.end, validation=days[1] * DAY, test=days[2] * DAY)
    split = replace(split, train=replace(split.train, start=split.train.end - days[0] * DAY))
    parts = (split.train, split.validation, split.test)
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    pins = catalogue_of(ctx, space_part(registry, str(rows.info.space)))
    content = PinTable(pins.ids, np.ascontiguousarray(pins.vectors, np.float32))
    nights = [split.train.start + n * DAY for n in range((split.test.end - split.train.start).days)]
    users = long_term(lake, content, split.train.start, nights) if with_users else None
    blocks = tuple(rows.block(part) for part in parts)
    ads = tuple(read_examples(rows, lake, pins, part) for part in parts)
    known = Known(history_of(lake, split.test.end), content, users)
    chances = ad_clicks(home, blocks[2], ads[2].of(HEADS[:1])[:, 0])
    return Data(rows, blocks, ads, known, tuple(np.unique(ads[0].sources).tolist()), chances)


def scores(data: Data, arm: str, changed: dict[str, float]) -> Scores:
    """One arm, trained as the recipe says but for `changed`: its probabilities of the test rows, before and
    after calibration."""
    long, short, interactions = ARMS[arm]
    recipe = TransActRecipe()
    if not short:
        sequence = recipe.sequence.model_copy(update={"fusion": Fusion.NONE, "candidate_token": False})
        recipe = recipe.model_copy(update={"sequence": sequence})
    spec = FeatureSpec(interactions=interactions, space=data.rows.info.space, serving_position=SERVING_POSITION)
    train, validation, test = data.examples(spec)
    heads = tuple(Head(action=head) for head in HEADS)
    known = data.known if long else replace(data.known, users=None)
    config = config_of(heads, AdSpec(**spec.model_dump(), beside=data.beside), recipe, known)
    actions = data.rows.info.action_names
    training = recipe.training.model_copy(update=changed)
    start = begun(config, train, actions, training.seed, recipe.attention_start)
    network = train_network(config, train, actions, training, start=start).network
    curve = fit(
        predict(network, validation),
        data.ads[1].of(HEADS),
        HEADS,
        ranker=arm,
        config=CalibrationConfig(min_positives=30),
    )
    raw = predict(network, test)
    return Scores(raw, curve.calibrate(raw))


def _towers(data: Data, seed: int) -> Scores:
    training = AdsTraining(seed=seed)
    return run_arm(TOWERS, *data.ads, training, layout_of(data.ads[0], training))


def expected(chances: NDArray[np.float64], p: NDArray) -> dict[str, float]:
    """AUC and log loss of `p` (n,) to be expected where row i is clicked with chance `chances` i."""
    outcomes = np.repeat([1.0, 0.0], len(p))
    weights, twice = np.concatenate([chances, 1 - chances]), np.tile(p, 2)
    return {name: of(outcomes, twice, weights) for name, of in METRICS.items()}


METRICS: dict[str, Callable[..., float]] = {"auc": metrics.auc, "log_loss": metrics.log_loss}


def measured(data: Data, runs: list[Scores], against: list[Scores]) -> dict[str, dict[str, Any]]:
    """Each figure over seeds, and its change to `against` with an interval over users."""
    logged = np.arange(len(data.clicks))
    out = {}
    for name, of in METRICS.items():
        for kind, label, metric in (
            ("", data.clicks, of),
            ("planted ", data.chances, lambda c, p, name=name: expected(c, p)[name]),
        ):
            values, others = (np.array([metric(label, r.after[:, 0]) for r in own]) for own in (runs, against))
            seeds = float(np.hypot(*(v.std(ddof=1) if len(v) > 1 else 0.0 for v in (values, others))))
            change = paired(runs, against, label, data.users, logged, metric) if runs is not against else None
            out[kind + name] = {
                "mean": float(values.mean()),
                "seeds": float(values.std(ddof=1)) if len(values) > 1 else None,
                "change": change,
                "shown": change is not None and abs(change[0]) > seeds and (change[1] > 0) == (change[2] > 0),
            }
    out["calibration"] = {"mean": float(np.mean([_missed(data.clicks, r.after[:, 0]) for r in runs]))}
    return out


def _missed(clicks: NDArray, p: NDArray) -> float:
    """|sum of probabilities / clicks - 1|."""
    return abs(metrics.calibration_error(clicks, p))


def table(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    names = ("auc", "planted auc", "log_loss", "planted log_loss")
    lines = ["| arm | " + " | ".join(f"{name.replace('_', ' ')} | change" for name in names) + " |"]
    lines.append("|---" * (1 + 2 * len(names)) + "|")
    for arm, own in found.items():
        cells = [arm]
        for name in names:
            of = own[name]
            seeds = "" if of["seeds"] is None else f" ({of['seeds']:.4f})"
            cells.append(f"{of['mean']:.4f}{seeds}")
            c = of["change"]
            mark = " *" if of["shown"] else ""
            cells.append("" if c is None else f"{c[0]:+.4f} [{c[1]:+.4f}, {c[2]:+.4f}]{mark}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
