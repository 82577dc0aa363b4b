"""What each `corkboard` command does: joins the rooms over one home, and says what happened."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from infra import local
from infra.console import Steps, console, live, say
from infra.home import Home
from infra.own_registry import own_aliases
from validation.kept_release import notes

if TYPE_CHECKING:
    from training.context import TrainingContext
    from validation.outcome import IngestReport

DEMO_STEPS = 6

LANES = 2
"""Models learned side by side unless told otherwise: each may take some gigabytes."""

WORLD = "demo-world"
"""Name of the simulated data set."""


class JobError(RuntimeError):
    """A command cannot do what it was asked; the message says what to run first."""


def ingest(home: Home, source: Path) -> IngestReport:
    """Bring a folder of contract tables into the lake and show the report's counts."""
    from validation.ingest import ingest as bring_in

    report = bring_in(source, home.lake, home.quarantine, home.reports, progress=say)
    _show_ingest(report)
    return report


def ingest_events(home: Home) -> IngestReport | None:
    """Bring what the services logged since the last time into the lake."""
    from validation.ingest_events import ingest_events as bring_in

    report = bring_in(home.events, home.lake, home.quarantine, home.reports, progress=say)
    if report is None:
        say("the event log holds nothing new")
    else:
        _show_ingest(report)
    return report


def train(
    home: Home,
    *,
    models: Sequence[str] | None = None,
    force: bool = False,
    keep_weights: bool = False,
    warm_start: bool = False,
    lanes: int | None = None,
    seed: int = 0,
) -> None:
    """Features, models, embeddings and vectors, each step skipped while its inputs are unchanged.

    Models are learned in `lanes` processes side by side, by default one a core, LANES at most.

    With `keep_weights` new pins get their vectors from the encoders there are, and nothing is learned by them;
    with `warm_start` TransAct learns on from its newest version. Raises JobError for both, UnknownStep before
    anything is started.
    """
    from training.pipelines.steps import check_names
    from training.pipelines.train import train as run

    if keep_weights and warm_start:
        raise JobError("--keep-weights learns nothing and --warm-start learns on; give one of the two")
    check_names(models or ())
    need_lake(home)
    local.ensure_milvus(home)
    given = replace(
        context(home, seed=seed),
        keep_weights=keep_weights,
        warm_start=warm_start,
        lanes=lanes or min(LANES, os.cpu_count() or 1),
    )
    run(given, models=models, force=force)


def tune(home: Home, model: str, *, trials: int | None, minutes: float | None, seed: int = 0) -> None:
    """Choose settings of a model under a budget, on the rows of the last training run."""
    from training.pipelines import ads
    from training.pipelines.ads_tuning import tune_ads

    need_lake(home)
    {ads.MODEL: tune_ads}[model](context(home, seed=seed), trials=trials, minutes=minutes)


def release(home: Home, *, seed: int = 0) -> int:
    """Compose and register a release of the newest versions; it becomes the challenger."""
    from training import release as releases

    need_lake(home)
    local.ensure_milvus(home)
    version = releases.release(context(home, seed=seed), home.ledger)
    say(f"release {version} is the challenger; `corkboard promote` puts it through its gates")
    return version


def promote(home: Home, version: int | None = None, override: str | None = None) -> int:
    """Put a release (the challenger by default) through its gates and make it the champion."""
    from training import promotion

    promoted = promotion.promote(
        context(home), home.ledger, version, override=override, ready=lambda: local.ensure_milvus(home)
    )
    say(f"release {promoted} is the champion; services pick it up within seconds")
    return promoted


def rollback(home: Home) -> int:
    """Make the previous champion the champion again."""
    from training import promotion

    version = promotion.rollback(context(home), home.ledger)
    say(f"release {version} is the champion again")
    return version


def up(home: Home, *, with_mlflow: bool = False) -> None:
    """Start what the home runs and print where it is."""
    # A home that served a release comes up without asking for one: the registry may be down.
    if not any(notes(home.root)) and champion(home) is None:
        raise JobError(
            f"{home.root} has no champion release to serve; run `corkboard demo`, or train, release, promote"
        )
    for process in local.processes(home, with_mlflow=with_mlflow):
        fresh = local.start(home, process)
        say(f"{process.name}: {process.address}{'' if fresh else ' (was running)'}")
    page = next(p for p in local.processes(home) if p.name == "homefeed").address
    console.print(
        f"\n  The page is at [bold underline]{page}[/]   (`corkboard --home {home.root} down` stops it)\n",
        soft_wrap=True,
    )


def down(home: Home) -> None:
    """Stop the home's processes."""
    for process in reversed(local.processes(home, with_mlflow=True)):
        say(f"{process.name}: {'stopped' if local.stop(home, process.name) else 'was not running'}")


def status(home: Home) -> None:
    """Print the lake's tables, the release aliases and the processes."""
    _show_lake(home)
    _show_aliases(home)
    rows = Table("process", "state", "pid", "memory", "address", box=None, pad_edge=False)
    for row in local.status(home):
        memory = f"{row.rss_mb:,} MB" if row.rss_mb is not None else ""
        rows.add_row(row.name, row.state, str(row.pid or ""), memory, row.address)
    console.print(rows)


def demo(home: Home, *, data: str, size: str, seed: int) -> None:
    """The whole job on the demo world or on Complete Journey; every step is skipped once it is done."""
    from training import kernels

    if champion(home) is not None:
        _same_data(home, data)
        say(f"{home.root} has a champion release already; starting its services")
        up(home)
        return
    if data == WORLD:
        say("Ten to fifteen minutes on two cores, most of them training.")
    say("Stopped at any time, the same command goes on from there.")
    kernels.begin_compiling()  # a core has nothing else to do until models are learned
    step = Steps(DEMO_STEPS)
    with step("Data: contract tables"):
        tables = _demo_tables(home, data, size, seed)
    with step("Ingest: validate, quarantine, fill the lake"):
        ingest(home, tables)
    with step("Train: features, models, vectors"):
        train(home, seed=seed)
    begun = _begin_homefeed(home)  # it imports while the release is measured, and serves what comes
    try:
        with step("Release: measure together, register"):
            version = release(home, seed=seed)
        with step("Promote: gates, then the alias"):
            promote(home, version)
    except BaseException:
        if begun:
            local.stop(home, "homefeed")
        raise
    with step("Serve"):
        up(home)
    say("Pick a user there, act on pins, and watch the next feed change.")
    say(f"`corkboard --home {home.root} status` shows what there is and what runs. README.md: your own tables")


def write_world(
    home: Home,
    *,
    out: Path | None,
    size: str,
    users: int | None = None,
    pins: int | None = None,
    days: int | None = None,
    seed: int = 0,
) -> Path:
    """Simulate a world into `out`; returns the folder of its contract tables.

    A world that is already there is kept as it is. An interrupted one leaves nothing behind.
    """
    from training.data.world import simulate
    from training.data.world_config import WorldConfig

    folder = out or home.datasets / WORLD
    if (folder / "tables").exists():
        say(f"{folder} holds a world already; it is kept")
        return folder / "tables"
    given = {"users": users, "pins": pins, "days": days}
    changes = {name: value for name, value in given.items() if value is not None}
    config = {"tiny": WorldConfig.tiny, "demo": WorldConfig.demo}[size](seed=seed, **changes)
    staged = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(staged, ignore_errors=True)
    with live("simulating") as progress:
        simulate(staged, config, progress=progress)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(folder)
    say(f"{config.users:,} users, {config.pins:,} pins, {config.days} days: {folder / 'tables'}")
    return folder / "tables"


def write_complete_journey(
    home: Home,
    *,
    out: Path | None,
    keep_dates: bool = False,
    households: int | None = None,
    seed: int = 0,
) -> Path:
    """Write Complete Journey's contract tables into `out`; returns the folder."""
    from training.data import complete_journey

    folder = out or home.datasets / complete_journey.NAME
    folder.parent.mkdir(parents=True, exist_ok=True)
    shift = None if keep_dates else datetime.now(UTC).date()
    complete_journey.write(folder, shift_to=shift, households=households, seed=seed, progress=say)
    say(f"Complete Journey: {folder}")
    return folder


def context(home: Home, *, seed: int = 0) -> TrainingContext:
    """What the training pipelines are given for this home."""
    from training.context import TrainingContext

    return TrainingContext(
        lake=home.lake,
        features=home.features,
        training_sets=home.training_sets,
        feast_home=str(home.root),
        mlflow_uri=home.mlflow_uri,
        mlflow_artifacts=home.mlflow_artifacts,
        milvus_uri=home.milvus_uri,
        seed=seed,
        text_encoder=os.environ.get("CORKBOARD_TEXT_ENCODER") or "auto",
        progress=say,
    )


def champion(home: Home) -> int | None:
    """Version of the champion release; None where there is none yet."""
    return aliases(home).get("champion")


def aliases(home: Home) -> dict[str, int]:
    """Release aliases and their versions. Raises RegistryUnreadable."""
    from validation.manifest import CHALLENGER, CHAMPION, PREVIOUS, RELEASE_MODEL

    if home.mlflow_uri.startswith("sqlite:"):
        found = own_aliases(home, RELEASE_MODEL)
    else:
        from training.registry import Registry

        found = Registry(home.mlflow_uri, home.mlflow_artifacts).aliases(RELEASE_MODEL)
    return {alias: found[alias] for alias in (CHAMPION, CHALLENGER, PREVIOUS) if alias in found}


def need_lake(home: Home) -> None:
    """Raises JobError where nothing was ingested."""
    if not (home.lake / "contract.json").exists():
        raise JobError(f"{home.root} has no tables yet; run `corkboard ingest FOLDER` or `corkboard demo`")


def _begin_homefeed(home: Home) -> bool:
    """Start the home feed and do not wait; True if this call did. Why it cannot start is told by `up`."""
    try:
        return local.begin(home, local.homefeed(home)) is not None
    except local.StartError:
        return False


def _demo_tables(home: Home, data: str, size: str, seed: int) -> Path:
    if data == WORLD:
        return write_world(home, out=None, size=size, seed=seed)
    folder = home.datasets / data
    if folder.exists():
        say(f"{folder} is there already; it is kept")
        return folder
    return write_complete_journey(home, out=None)


def _same_data(home: Home, data: str) -> None:
    """Refuse to serve one data set where another was asked for."""
    from validation.lake import Lake

    name = Lake(home.lake).contract().name
    if name != data:
        raise JobError(
            f"{home.root} holds the data set {name!r}, not {data!r}; give another folder:"
            f" make demo DATA={data} HOME_DIR=.corkboard-{data}"
        )


def _show_ingest(report: IngestReport) -> None:
    rows = Table("table", "read", "new", "changed", "known", "refused", "in the lake", box=None, pad_edge=False)
    for name, table in report.tables.items():
        counts = (table.read, table.new, table.updated, table.duplicate, table.refused, table.lake_rows)
        rows.add_row(name, *(f"{n:,}" for n in counts))
    console.print(rows)
    for name, table in report.tables.items():
        for reason, count in table.quarantined.items():
            say(f"quarantined: {name}: {count:,} x {reason}  ({table.quarantine})")
    for warning in report.checkpoint.warnings if report.checkpoint else ():
        say(f"warning: {warning.sentence()}")
    if report.absent:
        say(f"absent: {', '.join(report.absent)}")
    if report.unknown:
        say(f"not of the contract, left alone: {', '.join(report.unknown)}")
    say(f"report: {report.page}")


def _show_lake(home: Home) -> None:
    from validation.lake import Lake
    from validation.tables import TABLES

    lake = Lake(home.lake)
    if not lake.exists():
        say(f"{home.root}: no tables yet")
        return
    start, end = lake.interval()
    rows = Table("table", "rows", box=None, pad_edge=False)
    for name in filter(lake.has, TABLES):
        rows.add_row(name, f"{lake.rows(name):,}")
    console.print(
        f"[bold]{lake.contract().name}[/] in {home.root}, {start:%Y-%m-%d} to {end:%Y-%m-%d} (exclusive)"
    )
    console.print(rows)


def _show_aliases(home: Home) -> None:
    found = aliases(home)
    said = ", ".join(f"{alias} {version}" for alias, version in sorted(found.items()))
    console.print(f"releases: {said or 'none'}")
