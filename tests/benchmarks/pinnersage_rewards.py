"""Do query rewards help PinnerSage: clusters drawn by importance times the engagement of what lies near them?

    make bench NAME=pinnersage_rewards ARGS='--home H'

The days and retrieval of PinnerSage's table, Ward clusters at the alpha chosen for it. A user's record is made
of what the lake's impressions had shown before the day: the medoid nearest to each pin shown stands for the one
that brought it, since the impressions of a data set name none. Beside importance and importance times reward:
every cluster alike, and the counts of the day's own pins nearest to each, which no weights can know. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tests.benchmarks.pinnersage_table import add_reader, last_days
from training.data.labels import attribute
from training.evaluation.pinnersage_alpha import choose_alpha
from training.evaluation.pinnersage_protocol import (
    METRICS,
    Day,
    Sums,
    TableConfig,
    days_to_predict,
    retrieved,
)
from training.models.interactions import Pins
from training.models.pinnersage import (
    MS_PER_DAY,
    Interests,
    PinnerSageConfig,
    sample_medoids,
    user_interests,
)
from training.models.query_rewards import Record, RewardConfig, nearest_anchor, rewarded, tally
from training.pipelines.query_records import ANSWER_WINDOW
from validation.lake import Lake
from validation.tables import ACTIONS, IMPRESSIONS, Polarity

Ints = NDArray[np.int64]
IMPORTANCE, REWARDED, ALIKE, BOUND = "importance", "importance x reward", "every cluster alike", "the day's own"
WAYS = (IMPORTANCE, REWARDED, ALIKE, BOUND)


@dataclass(frozen=True)
class Shown:
    """Impressions of pins that have a vector, by user and time; parallel arrays."""

    users: Ints  # (n,) ids, ascending
    rows: Ints  # (n,) of the pin
    times_ms: Ints  # (n,)
    answered_ms: Ints  # (n,) of the first positive action that answers it; the largest int64 where none does

    @classmethod
    def read(cls, lake: Lake, pins: Pins, start: datetime, end: datetime) -> Shown:
        """All in [start, end), answered as the records of a release count it."""
        shown = lake.read(IMPRESSIONS.name, ["request_id", "user_id", "pin_id", "timestamp"], start, end)
        acted = lake.read(ACTIONS.name, ["request_id", "user_id", "pin_id", "timestamp", "action"], start, end)
        acted = acted[acted["action"].isin(lake.contract().vocabulary.codes(Polarity.POSITIVE))]
        place = attribute(shown, acted, ANSWER_WINDOW)
        answered = np.full(len(shown), np.iinfo(np.int64).max)
        known = place >= 0
        np.minimum.at(answered, place[known], _ms(acted["timestamp"])[known])
        ids = shown["pin_id"].to_numpy(np.int64)
        rows = np.minimum(np.searchsorted(pins.ids, ids), len(pins.ids) - 1)
        users, times = shown["user_id"].to_numpy(np.int64), _ms(shown["timestamp"])
        order = np.lexsort((times, users))
        order = order[((pins.ids[rows] == ids) & pins.vectors[rows].any(axis=1))[order]]
        return cls(users[order], rows[order], times[order], answered[order])

    def record(self, user_id: int, interests: Interests, pins: Pins, midnight_ms: int) -> Record:
        """What had come of what the user was shown by then, by the medoid nearest to it."""
        low, high = np.searchsorted(self.users, (user_id, user_id + 1))
        high = low + np.searchsorted(self.times_ms[low:high], midnight_ms)
        anchors = nearest_anchor(pins.vectors[self.rows[low:high]], interests)
        return tally(anchors, self.answered_ms[low:high] < midnight_ms)


def _ms(times) -> Ints:
    return times.dt.as_unit("ms").astype("int64").to_numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--days", type=int, default=TableConfig().days)
    parser.add_argument("--users", type=int, default=TableConfig().users)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--sampled", type=int, default=PinnerSageConfig().sampled, help="medoids drawn")
    parser.add_argument("--seed", type=int, default=TableConfig().seed)
    add_reader(parser)
    options = parser.parse_args()
    config = TableConfig(days=options.days, users=options.users, draws=options.draws, seed=options.seed)
    with threadpool_limits(1):
        pins, known, first, end = last_days(options.home, config, options.text_encoder)
        start = first - timedelta(days=PinnerSageConfig().window_days)
        shown = Shown.read(Lake(options.home / "lake"), pins, start, end)
        alpha = choose_alpha(known, _at(first), PinnerSageConfig(), search=config.tuned, seed=config.seed).alpha
        days = list(days_to_predict(pins, known, None, _at(end), config))
        base = PinnerSageConfig(alpha=alpha, sampled=options.sampled)
        interests = [user_interests(day.past, day.midnight_ms, base) for day in days]
        records = [
            shown.record(int(known.users[day.user]), of, pins, day.midnight_ms)
            for day, of in zip(days, interests, strict=True)
        ]
        sums = measure(pins, days, interests, records, known.users, config, options.sampled)
    print(json.dumps({"home": options.home.name, "alpha": alpha, **show(sums, days, interests, records)}))


def _at(time: datetime) -> int:
    return int(time.astimezone(UTC).timestamp() * 1000)


def measure(
    pins: Pins,
    days: Sequence[Day],
    interests: Sequence[Interests],
    records: Sequence[Record],
    users: Ints,
    config: TableConfig,
    count: int,
) -> Sums:
    """Relevance and recall of each of `WAYS`, `count` medoids drawn. The usual rate is that of all records."""
    rewards = RewardConfig(base_rate=rate_of(records) or RewardConfig().base_rate)
    hits, held = np.zeros((len(WAYS), 2, len(users))), np.zeros((2, len(users)))
    for day, of, record in zip(days, interests, records, strict=True):
        if not len(of):
            continue
        seed = config.seed + 7919 * day.user + day.midnight_ms // MS_PER_DAY
        nearest = (pins.vectors[day.held] @ of.vectors.T).argmax(axis=1)
        weighed = (
            of,
            rewarded(of, record, rewards),
            replace(of, importances=np.ones(len(of), np.float32)),
            replace(of, importances=np.bincount(nearest, minlength=len(of)).astype(np.float32)),
        )
        sampled = [
            [
                way.vectors[sample_medoids(way, count, seed=1_000_003 * draw + seed)]
                for draw in range(config.draws)
            ]
            for way in weighed
        ]
        hits[:, :, day.user] += retrieved(pins, day, sampled, config)
        held[:, day.user] += len(day.held)
    kept = held[0] > 0
    return Sums(WAYS, users[kept], hits[:, :, kept], held[:, kept], config.resamples, config.seed)


def rate_of(records: Sequence[Record]) -> float:
    """Engagements an impression over all records; 0 where nothing was shown."""
    shown = sum(record.impressions.sum() for record in records)
    return float(sum(record.engagements.sum() for record in records) / max(shown, 1))


def show(
    sums: Sums, days: Sequence[Day], interests: Sequence[Interests], records: Sequence[Record]
) -> dict[str, object]:
    """Print the ways and what each has over importance; both as JSON."""
    clusters = np.mean([len(of) for of in interests])
    recorded = np.mean([len(record.medoid_pin_ids) for record in records])
    impressions = np.mean([record.impressions.sum() for record in records])
    print(f"{len(days):,} user days, {len(sums.users):,} users; {clusters:.1f} clusters, of which ", end="")
    print(f"{recorded:.1f} have a record; {impressions:.0f} impressions, {rate_of(records):.3f} engaged\n")
    print(f"| drawn by | {METRICS[0]} | {METRICS[1]} | less {IMPORTANCE} | |\n|---|---|---|---|---|")
    values = dict(zip(sums.methods, sums.values().tolist(), strict=True))
    found: dict[str, object] = {"user_days": len(days), "rate": rate_of(records), "values": values}
    for way in WAYS:
        less = [sums.difference({way: 1, IMPORTANCE: -1}, metric) for metric in METRICS[:2]]
        cells = [f"{value:.4f}" for value in values[way]]
        if way != IMPORTANCE:
            cells += [f"{v:+.4f} [{low:+.4f}, {high:+.4f}]" for v, low, high in less]
            found[f"{way} less {IMPORTANCE}"] = less
        print(f"| {way} | " + " | ".join(cells) + " |")
    return found


if __name__ == "__main__":
    main()
