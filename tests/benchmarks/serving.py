"""The whole home feed under load: the real service process of a home, and requests over HTTP.

    python -m tests.benchmarks.serving --home HOME                       about five minutes with 4 swaps
    python -m tests.benchmarks.serving --home HOME --soak-minutes 10     then steady load with swaps

HOME is a home with a champion that nothing else runs on: work on a copy. The service starts as `corkboard up`
starts it, following an alias of the benchmark's own. Load comes from this process, on the same machine:

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
`soak_rss_mb` and, pages that processes share counted once, `soak_pss_mb`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from infra import jobs, local
from infra.home import Home
from tests.benchmarks.serving_kernels import Kernels, kernels_of
from tests.benchmarks.serving_load import (
    LIMIT,
    Asked,
    Client,
    Seen,
    Service,
    closed_loop,
    lasting,
    one_at_a_time,
    open_loop,
    post,
)
from training.release import load_manifest

GOALS = {
    "over_kernels": 1.5,
    "p50_ms": 60.0,
    "p99_ms_at_8rps": 150.0,
    "swap_p99_ratio": 2.0,
    "event_visible_ms": 100.0,
}
"""At most; `events_per_s` at least EVENTS_GOAL, `errors` and `mixed_releases` none."""
EVENTS_GOAL = 500
ALIAS = "serving-benchmark"
RATE = 8.0
BASE = 2
"""Swaps after which memory is to stay as it is."""
MAKERS = 2
"""Processes that make answers where the goals are held; `--makers 1` is what a home does by default."""
SHORTLIST = 200
"""Candidates that are ranked where the goals are held; `--shortlist 500` is what a home does by default."""
BATCH = 20


async def events(client: Client, seconds: float) -> tuple[float, Counter[str]]:
    """Acknowledged events a second, and refusals by name."""
    done, refused, over, asked = 0, Counter[str](), lasting(seconds), client.asked
    began = time.perf_counter()

    async def one(number: int) -> None:
        nonlocal done
        rng = np.random.default_rng(number)
        while not over():
            pins = [asked.pins[i] for i in rng.integers(len(asked.pins), size=BATCH)]
            batch = [{"user_id": client.user(), "pin_id": pin, "action": asked.action} for pin in pins]
            status, answer = await client.post("/events", {"events": batch})
            if status == 200:
                done += answer["accepted"]
            else:
                refused[answer["error"]["name"]] += 1

    await asyncio.gather(*(one(number) for number in range(8)))
    return done / (time.perf_counter() - began), refused


async def visible_ms(client: Client, users: list[Any]) -> float:
    """From an acknowledgement to the first answer that knows of it: a new user is a stranger until then."""
    found, asked = [], client.asked
    for user in users:
        event = {"user_id": user, "pin_id": asked.pins[0], "action": asked.action}
        await client.post("/events", {"events": [event]})
        began = time.perf_counter()
        while True:
            _, answer = await client.post("/homefeed", {"user_id": user, "limit": LIMIT})
            took = (time.perf_counter() - began) * 1000
            if answer.get("fallback") is None:
                break
            if took > 10_000:
                raise RuntimeError(f"a save of user {user} is not in the feed after 10 s")
        found.append(took)
    return round(float(np.percentile(found, 95)), 2)


@dataclass(frozen=True)
class Swapped:
    """Mixed requests of two clients, steady, and while the alias moved."""

    steady: Seen
    loaded: Seen
    rss_mb: list[float]
    """Memory of the service after each move."""


async def swapping(client: Client, service: Service, move: Callable[[], Any], swaps: int) -> Swapped:
    """Each move waits until the service answers with it."""
    steady = await closed_loop(service, client.mixed, 2, lasting(10))
    done, seen_release, sizes = False, -1, list[float]()

    async def moving() -> None:
        nonlocal done, seen_release
        try:
            for _ in range(swaps):
                wanted = await asyncio.to_thread(move)
                end = time.monotonic() + 240
                while seen_release != wanted and time.monotonic() < end:
                    await asyncio.sleep(0.2)
                    _, answer = await client.post("/homefeed", {"user_id": client.user(), "limit": 1})
                    seen_release = answer.get("release", -1)
                if seen_release != wanted:
                    raise RuntimeError(f"release {wanted} is not served four minutes after the alias moved")
                sizes.append(service.rss_mb())
        finally:
            done = True

    loaded, _ = await asyncio.gather(closed_loop(service, client.mixed, 2, lambda: done), moving())
    return Swapped(steady, loaded, sizes)


async def measured(home: Home, args: argparse.Namespace, kernels: Kernels) -> dict[str, Any]:
    """Every load in turn on the running service."""
    pid = json.loads((home.run / "homefeed.json").read_text())["pid"]
    service = Service(pid)
    url = f"http://127.0.0.1:{home.ports()['homefeed']}"
    timeout = aiohttp.ClientTimeout(total=30)
    _, _, versions = _releases(home)
    manifests = {version: load_manifest(jobs.context(home), version) for version in versions}
    async with aiohttp.ClientSession(timeout=timeout) as session:
        action, queries = await _positive_action(session, url), await _queries(session, url)
        client = Client(url, Asked(kernels.users, kernels.pins, action, queries), manifests, session)
        await one_at_a_time(client, service, 30)  # what is compiled or cached at first use
        await service.settled()
        rss = service.rss_mb()
        alone = await one_at_a_time(client, service, args.requests, kernels.run)
        opened = await open_loop(client, service, RATE, args.seconds)
        full = await closed_loop(service, client.feed, 8, lasting(args.seconds))
        rate, refused = await events(client, args.seconds / 2)
        fresh = await visible_ms(client, _new_users(kernels.users, 20))
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
            "events_per_s": round(rate, 1),
            "event_visible_ms": fresh,
            "refused_events": dict(refused),
        }
        _print_stages(alone)
        every = [alone, opened, full]
        sizes = [rss]
        if args.swaps:
            swapped = await swapping(client, service, partial(_move, home), args.swaps)
            every += [swapped.steady, swapped.loaded]
            sizes += swapped.rss_mb
            ratio = swapped.loaded.percentile(99) / swapped.steady.percentile(99)
            copies = len({m.model_dump_json() for m in manifests.values()}) == 1
            found |= {"swaps": args.swaps, "swapped": "copies" if copies else "releases"}
            found |= {"swap_p99_ratio": round(ratio, 3)}
        if args.soak_minutes:
            soaked, memory = await soak(client, service, home, args.soak_minutes)
            every += soaked
            found |= {"soak_rss_mb": [round(rss) for rss, _ in memory]}
            found |= {"soak_pss_mb": [round(pss) for _, pss in memory]}
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


async def soak(
    client: Client, service: Service, home: Home, minutes: float
) -> tuple[list[Seen], list[tuple[float, float]]]:
    """Four requests a second and a swap after each quarter but the last; what was seen, and memory at each as
    its processes' sum and with shared pages once."""
    seen, sizes = [], [(service.rss_mb(), service.pss_mb())]
    for quarter in range(4):
        seen.append(await open_loop(client, service, 4.0, minutes * 15))
        sizes.append((service.rss_mb(), service.pss_mb()))
        if quarter < 3:
            await asyncio.to_thread(_move, home)
    return seen, sizes


async def _positive_action(session: aiohttp.ClientSession, url: str) -> str:
    _, told = await post(session, f"{url}/users", {"limit": 1})
    return next(name for name, polarity in told["actions"].items() if polarity == "positive")


async def _queries(session: aiohttp.ClientSession, url: str) -> list[str]:
    """What is searched for most; nothing where the home has no search."""
    status, told = await post(session, f"{url}/suggestions", {"limit": LIMIT})
    return list(told["queries"]) if status == 200 else []


def _new_users(users: list[Any], count: int) -> list[Any]:
    """Ids of the data set's form that nobody has had."""
    stamp = time.time_ns() // 1_000_000
    return [stamp + n if isinstance(users[0], int) else f"bench-{stamp}-{n}" for n in range(count)]


def _print_stages(seen: Seen) -> None:
    total = sum(seen.stages.values())
    print("\n| stage, unloaded | wall ms | share |\n|---|---|---|")
    for name, ms in seen.stages.most_common():
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
    parser.add_argument("--requests", type=int, default=150)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--swaps", type=int, default=4)
    parser.add_argument("--soak-minutes", type=float, default=0.0)
    parser.add_argument("--shortlist", type=int, default=SHORTLIST, help="candidates that are ranked")
    parser.add_argument("--makers", type=int, default=MAKERS, help="processes that make answers")
    args = parser.parse_args()
    home = Home.at(args.home)
    os.environ.update(home.environment())
    client, model, versions = _releases(home)
    client.set_registered_model_alias(model, ALIAS, str(versions[0]))
    os.environ["CORKBOARD_RELEASE"] = ALIAS
    os.environ["CORKBOARD_SHORTLIST"] = str(args.shortlist)
    os.environ["CORKBOARD_MAKERS"] = str(args.makers)
    local.ensure_milvus(home)
    try:
        kernels = kernels_of(home, versions[0], LIMIT)
        local.start(home, local.homefeed(home))
        found = asyncio.run(measured(home, args, kernels))
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
    print(f"events_per_s {found['events_per_s']}, goal >= {EVENTS_GOAL}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
