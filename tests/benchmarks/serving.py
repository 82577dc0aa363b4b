"""The whole home feed under load: the real service process of a home, and requests over HTTP.

    python -m tests.benchmarks.serving --home HOME                       about five minutes with 4 swaps
    python -m tests.benchmarks.serving --home HOME --soak-minutes 10     then steady load with swaps

HOME is a home with a champion that nothing else runs on: work on a copy. The service starts as `corkboard up`
starts it, following an alias of the benchmark's own. Load comes from locust, in a process of its own on
the same machine; single requests from this process:

    unloaded    one request at a time                          p50_ms, request_cpu_ms
    open loop   8 a second at random, whatever the answers do  p99_ms_at_8rps, from when a request was due
    closed      eight clients, each asks again at once         rps_saturated, rps_per_core
    events      eight clients with batches of 20               events_per_s, each fsynced before its answer
    freshness   new users, one save each                       event_visible_ms, from the acknowledgement to the
                                                               answer that knows of it, 95th percentile
    swaps       two clients while the alias moves: feeds,      swap_p99_ratio; to the home's challenger, the
                related pins, searches, events in turns        champion before, or a copy (`swapped` says)

`over_kernels` is the service's CPU a request over that of the kernels alone (`serving_kernels.py`), which are
recorded in this process from feeds of the same users and run again by themselves, in turns with the unloaded
requests. `errors` counts every request of every load that was not answered, refusals by overload too;
`mixed_releases` every answer that names a space or a ranker that the manifest of its release does not.
`rss_growth_mb` is from after the second swap on: the release before is kept in memory by policy, and what the
first two swaps add is `rss_first_growth_mb`. A soak tells memory at the end of each quarter, before its swap:
`soak_rss_mb`; pages that processes share counted once, `soak_pss_mb`; and of these what is no file's,
`soak_anonymous_mb`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from infra import jobs, local
from infra.home import Home
from tests.benchmarks.serving_kernels import Kernels, kernels_of
from tests.benchmarks.serving_load import (
    LIMIT,
    Asked,
    Client,
    Kind,
    Load,
    Named,
    Refused,
    Seen,
    loaded,
    one_at_a_time,
)
from tests.benchmarks.serving_process import Memory, Service
from training.release import load_manifest

GOALS = {
    "over_kernels": 1.5,
    "p50_ms": 60.0,
    "p99_ms_at_8rps": 150.0,
    "swap_p99_ratio": 2.0,
    "event_visible_ms": 100.0,
    "errors": 0.0,
    "mixed_releases": 0.0,
}
"""At most; `events_per_s` at least EVENTS_GOAL."""
EVENTS_GOAL = 500
ALIAS = "serving-benchmark"
RATE = 8.0
BASE = 2
"""Swaps after which memory is to stay as it is."""
MAKERS = 2
"""Processes that make answers where the goals are held; `--makers 1` is what a home does by default."""
SHORTLIST = 200
"""Candidates that are ranked where the goals are held; `--shortlist 500` is what a home does by default."""
STEADY_S = 40.0
"""Mixed requests without a swap: some thousand, for their 99th percentile."""
UNDER_WAY = 64
"""Requests of an open load at a time; one that is due later waits, and its time counts."""


def visible_ms(client: Client, asked: Asked, users: list[Any]) -> float:
    """From an acknowledgement to the first answer that knows of it: a new user is a stranger until then.
    Raises Refused."""
    found = []
    for user in users:
        event = {"user_id": user, "pin_id": asked.pins[0], "action": asked.action}
        client.post("/events", {"events": [event]})
        began = time.perf_counter()
        while True:
            answer = client.post("/homefeed", {"user_id": user, "limit": LIMIT})
            took = (time.perf_counter() - began) * 1000
            if answer.get("fallback") is None:
                break
            if took > 10_000:
                raise RuntimeError(f"a save of user {user} is not in the feed after 10 s")
        found.append(took)
    return round(float(np.percentile(found, 95)), 2)


@dataclass(frozen=True)
class Bench:
    """The running service of a home, and the loads that are sent to it."""

    home: Home
    client: Client
    service: Service
    asked: Asked
    releases: dict[int, Named]

    @classmethod
    def of(cls, home: Home, kernels: Kernels) -> Bench:
        """Raises FileNotFoundError where the service does not run."""
        pid = json.loads((home.run / "homefeed.json").read_text())["pid"]
        client = Client(f"http://127.0.0.1:{home.ports()['homefeed']}")
        asked = Asked(
            users=kernels.users, pins=kernels.pins, action=_positive_action(client), queries=_queries(client)
        )
        _, _, versions = _releases(home)
        releases = {version: Named.of(load_manifest(jobs.context(home), version)) for version in versions}
        return cls(home, client, Service(pid), asked, releases)

    def load(self, kind: Kind, clients: int, seconds: float | None = None, rate: float | None = None) -> Load:
        return Load(
            url=self.client.url,
            pid=self.service.pid,
            kind=kind,
            clients=clients,
            seconds=seconds,
            rate=rate,
            asked=self.asked,
            releases=self.releases,
        )

    def alone(self, requests: int, between: Callable[[], None] = lambda: None) -> Seen:
        """Feeds one at a time, in turns with something else."""
        return one_at_a_time(self.client, self.service, self.asked, self.releases, requests, between)

    def arriving(self, rate: float, seconds: float) -> Seen:
        return loaded(self.load(Kind.OPEN, UNDER_WAY, seconds, rate))

    def swapping(self, swaps: int) -> Swapped:
        """Two clients, steady and then while the alias moves; each move waits until the service answers
        with it."""
        steady = loaded(self.load(Kind.MIXED, 2, STEADY_S))
        sizes = list[float]()

        def moving() -> None:
            for _ in range(swaps):
                self._follow(_move(self.home))
                sizes.append(self.service.rss_mb())

        return Swapped(steady, loaded(self.load(Kind.MIXED, 2), moving), sizes)

    def _follow(self, wanted: int) -> None:
        end = time.monotonic() + 240
        while time.monotonic() < end:
            time.sleep(0.2)
            answer = self.client.post("/homefeed", {"user_id": self.asked.users[0], "limit": 1})
            if answer.get("release") == wanted:
                return
        raise RuntimeError(f"release {wanted} is not served four minutes after the alias moved")

    def soak(self, minutes: float) -> tuple[list[Seen], list[Memory]]:
        """Four requests a second and a swap after each quarter but the last; what was seen, and memory before
        and after each."""
        seen, sizes = [], [Memory.of(self.service)]
        for quarter in range(4):
            seen.append(self.arriving(4.0, minutes * 15))
            sizes.append(Memory.of(self.service))
            if quarter < 3:
                _move(self.home)
        return seen, sizes


@dataclass(frozen=True)
class Swapped:
    """Mixed requests of two clients, steady, and while the alias moved."""

    steady: Seen
    loaded: Seen
    rss_mb: list[float]
    """Memory of the service after each move."""


def measured(home: Home, args: argparse.Namespace, kernels: Kernels) -> dict[str, Any]:
    """Every load in turn on the running service."""
    bench = Bench.of(home, kernels)
    service, seconds = bench.service, args.seconds
    first = bench.alone(30)  # what is compiled or cached at first use
    service.settle()
    rss = service.rss_mb()
    alone = bench.alone(args.requests, kernels.run)
    opened = bench.arriving(RATE, seconds)
    full = loaded(bench.load(Kind.CLOSED, 8, seconds))
    events = loaded(bench.load(Kind.EVENTS, 8, seconds / 2))
    fresh = visible_ms(bench.client, bench.asked, _new_users(kernels.users, 20))
    found = {
        "p50_ms": alone.percentile(50),
        "p95_ms": alone.percentile(95),
        "p99_ms": alone.percentile(99),
        "request_cpu_ms": round(1000 * alone.cpu_s / args.requests, 2),
        "p50_ms_at_8rps": opened.percentile(50),
        "p99_ms_at_8rps": opened.percentile(99),
        "quality_at_8rps": round(float(np.mean(opened.qualities)), 3),
        "rps_saturated": round(len(full.ms) / full.wall_s, 2),
        "rps_per_core": round(len(full.ms) / full.cpu_s, 2),
        "p99_ms_saturated": full.percentile(99),
        "quality_saturated": round(float(np.mean(full.qualities)), 3),
        "events_per_s": round(events.accepted / events.wall_s, 1),
        "event_visible_ms": fresh,
    }
    _print_stages(alone)
    every = [first, alone, opened, full, events]
    sizes = [rss]
    if args.swaps:
        swapped = bench.swapping(args.swaps)
        every += [swapped.steady, swapped.loaded]
        sizes += swapped.rss_mb
        ratio = swapped.loaded.percentile(99) / swapped.steady.percentile(99)
        copies = len({named.model_dump_json() for named in bench.releases.values()}) == 1
        found |= {"swaps": args.swaps, "swapped": "copies" if copies else "releases"}
        found |= {"swap_p99_ratio": round(ratio, 3)}
    if args.soak_minutes:
        soaked, memory = bench.soak(args.soak_minutes)
        every += soaked
        for kind in fields(Memory):
            found[f"soak_{kind.name}_mb"] = [round(getattr(each, kind.name)) for each in memory]
    errors = sum((seen.errors for seen in every), Counter[str]())
    mixed = [told for seen in every for told in seen.mixed]
    for told, times in Counter(mixed).most_common(5):
        print(f"{times} times: {told}")
    base = sizes[min(BASE, len(sizes) - 1)]
    return found | {
        "errors": errors.total(),
        "error_rate": round(errors.total() / sum(seen.asked for seen in every), 5),
        "errors_by_name": dict(errors),
        "missing": dict(sum((seen.missing for seen in every), Counter[str]())),
        "mixed_releases": len(mixed),
        "rss_first_growth_mb": round(base - rss, 1),
        "rss_growth_mb": round(service.rss_mb() - base, 1),
    }


def _positive_action(client: Client) -> str:
    told = client.post("/users", {"limit": 1})
    return next(name for name, polarity in told["actions"].items() if polarity == "positive")


def _queries(client: Client) -> list[str]:
    """What is searched for most; nothing where the home has no search."""
    try:
        return list(client.post("/suggestions", {"limit": LIMIT})["queries"])
    except Refused:
        return []


def _new_users(users: list[Any], count: int) -> list[Any]:
    """Ids of the data set's form that nobody has had."""
    stamp = time.time_ns() // 1_000_000
    return [stamp + n if isinstance(users[0], int) else f"bench-{stamp}-{n}" for n in range(count)]


def _print_stages(seen: Seen) -> None:
    total = sum(seen.stages.values())
    print("\n| stage, unloaded | wall ms | share |\n|---|---|---|")
    for name, ms in sorted(seen.stages.items(), key=lambda stage: -stage[1]):
        print(f"| {name} | {ms / len(seen.ms):.2f} | {100 * ms / total:.1f} % |")


def _releases(home: Home) -> tuple[Any, str, list[int]]:
    """The registry's client, the release model, and two versions: the champion, and the home's challenger
    or the champion before; a copy of the champion where the home has no other release."""
    from training.registry import Registry
    from validation.manifest import CHALLENGER, CHAMPION, PREVIOUS, RELEASE_MODEL

    registry = Registry(home.mlflow_uri, home.mlflow_artifacts)
    champion = registry.alias(RELEASE_MODEL, CHAMPION)
    if champion is None:
        raise SystemExit(f"{home.root} has no champion; run `corkboard demo` in it first")
    for alias in (CHALLENGER, PREVIOUS):
        if (other := registry.alias(RELEASE_MODEL, alias)) not in (None, champion):
            return registry.client, RELEASE_MODEL, [champion, other]
    client, copies = registry.client, []
    for version in registry.versions(RELEASE_MODEL):
        if client.get_model_version(RELEASE_MODEL, str(version)).tags.get(ALIAS) == str(champion):
            copies.append(version)
    if not copies:
        of = client.get_model_version(RELEASE_MODEL, str(champion))
        made = client.create_model_version(
            RELEASE_MODEL, of.source, of.run_id, tags={ALIAS: str(champion)}, description="benchmark's copy"
        )
        copies = [int(made.version)]
    return client, RELEASE_MODEL, [champion, copies[0]]


def _move(home: Home) -> int:
    """Point the benchmark's alias at the other of the two releases; the version it names now."""
    client, model, versions = _releases(home)
    now = int(client.get_model_version_by_alias(model, ALIAS).version)
    wanted = versions[1] if now == versions[0] else versions[0]
    client.set_registered_model_alias(model, ALIAS, str(wanted))
    return wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--swaps", type=int, default=4)
    parser.add_argument("--soak-minutes", type=float, default=0.0)
    parser.add_argument("--shortlist", type=int, default=SHORTLIST, help="candidates that are ranked")
    parser.add_argument("--makers", type=int, default=MAKERS, help="processes that make answers")
    args = parser.parse_args()
    home = Home.at(args.home)
    os.environ.update(home.environment())
    if any(each.state != "stopped" for each in local.status(home)):
        raise SystemExit(f"{home.root} is up; measure a copy of it, or run `corkboard down` in it first")
    client, model, versions = _releases(home)
    os.environ["CORKBOARD_RELEASE"] = ALIAS
    os.environ["CORKBOARD_SHORTLIST"] = str(args.shortlist)
    os.environ["CORKBOARD_MAKERS"] = str(args.makers)
    try:
        client.set_registered_model_alias(model, ALIAS, str(versions[0]))
        local.ensure_milvus(home)
        kernels = kernels_of(home, versions[0], LIMIT)
        local.start(home, local.homefeed(home))
        found = measured(home, args, kernels)
    finally:
        local.stop(home, "homefeed")
        local.stop(home, "milvus")
        client.delete_registered_model_alias(model, ALIAS)
    kernels.print()
    found |= {"shortlist": args.shortlist, "makers": args.makers}
    found["kernels_cpu_ms"] = round(kernels.total_ms, 2)
    found["over_kernels"] = round(found["request_cpu_ms"] / kernels.total_ms, 3)
    for name, goal in GOALS.items():
        if name in found:
            print(f"{name} {found[name]:.2f}, goal <= {goal:g}: {'met' if found[name] <= goal else 'MISSED'}")
    enough = "met" if found["events_per_s"] >= EVENTS_GOAL else "MISSED"
    print(f"events_per_s {found['events_per_s']}, goal >= {EVENTS_GOAL}: {enough}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
