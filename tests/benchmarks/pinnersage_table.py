"""PinnerSage's offline table on the lake of a home: lifts over the last pin, and what they show.

    python -m tests.benchmarks.pinnersage_table --home H
    python -m tests.benchmarks.pinnersage_table --home H --figure table.png --novel

Pins are placed by the content encoder, fitted on the catalogue as training does. Only the home's lake is read.
Intervals are 95 %, by bootstrap over users, every method on the same users and draws. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from training.data.splits import midnight
from training.evaluation.pinnersage_protocol import METRICS, TableConfig
from training.evaluation.pinnersage_table import DIRECTIONS, LAST_PIN, WARD, Table, pinnersage_table
from training.models.content import AUTO, ContentConfig, ContentEncoder, open_text_encoder
from training.models.interactions import Pins
from training.models.pinnersage import PinnerSageConfig
from training.pipelines.content import catalogue, pin_frames, topic_parents
from training.pipelines.user_actions import UserActions
from training.text_vectors import FILE, KeptSentences
from validation.lake import Lake


def read_pins(home: Path, reader: str, seed: int = ContentConfig().seed) -> Pins:
    """The catalogue in a content space fitted on it; texts the home has read before are not read again."""
    lake, encoder = Lake(home / "lake"), open_text_encoder(reader)
    sentences = KeptSentences(encoder, home / "training_sets" / FILE) if encoder else None
    config = ContentConfig(seed=seed).read_by(sentences)
    return catalogue(lake, ContentEncoder.fit(pin_frames(lake), config, topic_parents(lake), sentences))


def add_reader(parser: argparse.ArgumentParser) -> None:
    """`--text-encoder`, for `read_pins`."""
    parser.add_argument(
        "--text-encoder", default=AUTO, help="who reads words: auto, ngrams, a package, a folder"
    )


def read_impressions(lake: Lake, pins: Pins, start: datetime, end: datetime) -> UserActions | None:
    """What was shown in [start, end), or None where the lake has no impressions."""
    if not lake.has("impressions"):
        return None
    return UserActions.of(lake.read("impressions", ["user_id", "pin_id", "timestamp"], start, end), pins)


def last_days(home: Path, config: TableConfig, reader: str) -> tuple[Pins, UserActions, datetime, datetime]:
    """The catalogue, what was done until the end of the lake's last whole day and in the window before the days
    to predict, and the first and the end of these."""
    lake = Lake(home / "lake")
    pins = read_pins(home, reader, config.seed)
    end = min(midnight(lake.interval()[1]), midnight(datetime.now(UTC)))
    first = end - timedelta(days=config.days)
    known = UserActions.read(lake, pins, first - timedelta(days=PinnerSageConfig().window_days), end)
    print(f"{lake.contract().name}: {len(pins.ids):,} pins, {pins.vectors.shape[1]} dimensions; ", end="")
    print(f"{len(known):,} users, {len(known.pin_rows):,} positive actions; days {first:%F} to {end:%F}")
    return pins, known, first, end


def measure(home: Path, config: TableConfig, reader: str) -> Table:
    """The table over the last whole days of the home's lake."""
    pins, known, first, end = last_days(home, config, reader)
    shown = read_impressions(Lake(home / "lake"), pins, first, end)
    return pinnersage_table(pins, known, shown, int(end.timestamp() * 1000), config)


def show(table: Table) -> dict[str, Any]:
    """Print the lifts; as JSON by method and metric: value, lift, and the interval of the lift."""
    values = table.values()
    lift, low, high = table.lifts()
    print(
        f"{len(table.users):,} users, {table.counts[0].sum():,.0f} action pins; alpha {table.alpha:g}, ", end=""
    )
    print(f"{table.interests:.1f} clusters a user; complete linkage to {table.widest:g}; ", end="")
    print(f"{table.impressions:.1f} impressions ranked against an action\n")
    print("lift over the last pin, % [95 % interval]")
    print(f"{'':<26}" + "".join(f"{metric.replace('_', ' '):>24}" for metric in METRICS))
    rows: dict[str, Any] = {}
    for m, method in enumerate(table.methods):
        cells = [
            f"{100 * lift[m, k]:+7.1f} [{100 * low[m, k]:+6.1f}, {100 * high[m, k]:+6.1f}]"
            if method != LAST_PIN
            else f"{values[m, k]:.4f}"
            for k in range(len(METRICS))
        ]
        print(f"{method:<26}" + "".join(f"{cell:>24}" for cell in cells))
        rows[method] = {
            metric: [number(x) for x in (values[m, k], lift[m, k], low[m, k], high[m, k])]
            for k, metric in enumerate(METRICS)
        }
    return rows


def directions(table: Table) -> dict[str, Any]:
    """Print which of the paper's directions the data shows; as JSON by direction and metric."""
    base = table.values()[table.methods.index(LAST_PIN)]
    print(
        "\ndirection, in % of the last pin's value [95 % interval]: + shown, - the other way, ? not told apart"
    )
    rows: dict[str, Any] = {}
    for name, weights in DIRECTIONS:
        cells, found = [], {}
        for k, metric in enumerate(METRICS):
            value, low, high = (x / base[k] for x in table.difference(weights, metric))
            sign = "+" if low > 0 else "-" if high < 0 else "?"
            cells.append(f"{100 * value:+6.1f} [{100 * low:+6.1f}, {100 * high:+6.1f}] {sign}")
            found[metric] = [number(value), number(low), number(high)]
        print(f"  {name:<42}" + "".join(f"{cell:>28}" for cell in cells))
        rows[name] = found
    return rows


def number(value: float) -> float | None:
    """Four digits, None for NaN."""
    return round(float(value), 4) if np.isfinite(value) else None


def draw(table: Table, path: Path) -> None:
    """The lifts with their intervals, one panel a metric."""
    from matplotlib.figure import Figure

    lift, low, high = table.lifts()
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, len(METRICS), sharey=True)
    places = np.arange(len(table.methods))[::-1]
    for k, (metric, axes) in enumerate(zip(METRICS, panels, strict=True)):
        colours = ["#c8102e" if method == WARD else "#4a6fa5" for method in table.methods]
        spread = 100 * np.abs(np.stack([lift[:, k] - low[:, k], high[:, k] - lift[:, k]]))
        axes.barh(places, 100 * lift[:, k], xerr=spread, color=colours, ecolor="#333333", capsize=2)
        axes.set(title=metric.replace("_", " "), xlabel="lift over the last pin, %")
    panels[0].set_yticks(places, table.methods)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    add_reader(parser)
    parser.add_argument("--novel", action="store_true", help="leave out pins the user had acted on before")
    parser.add_argument("--days", type=int, default=TableConfig().days)
    parser.add_argument("--users", type=int, default=TableConfig().users)
    parser.add_argument("--draws", type=int, default=TableConfig().draws)
    parser.add_argument("--seed", type=int, default=TableConfig().seed)
    options = parser.parse_args()
    chosen = {name: getattr(options, name) for name in TableConfig.model_fields if hasattr(options, name)}
    config = TableConfig(**chosen)
    with threadpool_limits(1):
        table = measure(options.home, config, options.text_encoder)
    rows, found = show(table), directions(table)
    if options.figure:
        draw(table, options.figure)
    about = {"home": options.home.name, "users": len(table.users), "alpha": table.alpha, "widest": table.widest}
    print(json.dumps({**about, **config.model_dump(), "table": rows, "directions": found}))


if __name__ == "__main__":
    main()
