"""The processes of one home on one machine: started detached, found again by process file, stopped by pid.

Contract: `start` returns when the process answers its health check, however long a busy machine takes; where
the process ends before that it raises `StartError` with the end of its log. `begin` does not wait. A process
file names pid and start time, so that a pid used again by another program is never signalled. Nothing here is
needed to run the services by hand.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from infra.console import say
from infra.home import NO_TRACES, ONE_THREAD, Home
from validation.whole_files import replace_text

PATIENCE_S = 60.0
"""Seconds after which a line says what is still waited for."""

STOP_DEADLINE_S = 20.0


class StartError(RuntimeError):
    """A process ended, or did not answer in time; the message carries the end of its log."""


class ProcessFileBroken(RuntimeError):
    """A process file is garbage: what it named may run or not."""


@dataclass(frozen=True)
class Process:
    """What `corkboard up` runs under one name."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    ready: Callable[[], bool]
    address: str


@dataclass(frozen=True)
class Status:
    """One row of `corkboard status`."""

    name: str
    state: str
    pid: int | None
    address: str
    rss_mb: int | None


def processes(home: Home, *, with_mlflow: bool = False) -> list[Process]:
    """What a home runs, in start order: the vector store, the services, and MLflow's server if asked."""
    found = [homefeed(home)] if home.external_milvus else [milvus(home), homefeed(home)]
    return [*found, mlflow_server(home)] if with_mlflow else found


def ensure_milvus(home: Home) -> None:
    """Start the embedded Milvus unless it runs, or another server is configured. Raises StartError."""
    if not home.external_milvus:
        start(home, milvus(home))


def milvus(home: Home) -> Process:
    """The embedded Milvus Lite server; it listens on 127.0.0.1 only, since it has no authentication."""
    from feature_repo.vectors.server import command

    port = home.ports()["milvus"]
    return Process(
        name="milvus",
        command=tuple(command(home.milvus, port)),
        environment=home.environment(),
        ready=lambda: _listens(port),
        address=f"http://127.0.0.1:{port}",
    )


def homefeed(home: Home) -> Process:
    """The home feed with retrieval, ranking and events composed in one process, and the page."""
    port = home.ports()["homefeed"]
    return Process(
        name="homefeed",
        command=(
            *(_script("bentoml"), "serve", "bentos.homefeed:Homefeed"),
            *("--host", "127.0.0.1", "--port", str(port)),
        ),
        environment={**home.environment(), **ONE_THREAD, **NO_TRACES, **_given(NO_TRACES)},
        ready=lambda: _http_ok(f"http://127.0.0.1:{port}/readyz"),
        address=f"http://127.0.0.1:{port}/ui/",
    )


def mlflow_server(home: Home) -> Process:
    """MLflow's own server and pages over the home's registry."""
    port = home.ports()["mlflow"]
    return Process(
        name="mlflow",
        command=(
            *(_script("mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--artifacts-destination", home.mlflow_artifacts.as_uri()),
        ),
        # By the environment: the address of a database may carry a password, and every user sees arguments.
        environment={**home.environment(), "MLFLOW_BACKEND_STORE_URI": home.mlflow_uri},
        ready=lambda: _http_ok(f"http://127.0.0.1:{port}/health"),
        address=f"http://127.0.0.1:{port}",
    )


def start(home: Home, process: Process) -> bool:
    """Start `process` unless it runs already; True if this call started it. Raises StartError."""
    child = begin(home, process)
    try:
        _wait_ready(home, process, child)
    except StartError:
        if child is not None:
            stop(home, process.name)
        raise
    return child is not None


def begin(home: Home, process: Process) -> subprocess.Popen[bytes] | None:
    """Start `process` and do not wait until it is ready; None where it runs already.

    Raises StartError where another program answers at its address.
    """
    if _running_pid(home, process.name) is not None:
        return None
    if process.ready():
        raise StartError(
            f"something else answers at {process.address}, where {process.name} should; stop it,"
            f" or remove {home.root / 'ports.json'} so that this home claims other ports"
        )
    home.run.mkdir(parents=True, exist_ok=True)
    log = _log(home, process.name)
    with log.open("ab") as out:
        child = subprocess.Popen(
            process.command,
            cwd=Path(__file__).resolve().parents[1],
            env={**os.environ, **process.environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _record(home, process.name, child.pid)
    return child


def stop(home: Home, name: str) -> bool:
    """End the named process and its children: SIGTERM, then SIGKILL after a deadline. False if not running."""
    import psutil

    pid = _running_pid(home, name)
    if pid is None:
        _file(home, name).unlink(missing_ok=True)
        return False
    parent = psutil.Process(pid)
    family = [parent, *parent.children(recursive=True)]
    with contextlib.suppress(psutil.NoSuchProcess):
        parent.terminate()
    _, alive = psutil.wait_procs(family, timeout=STOP_DEADLINE_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
    _file(home, name).unlink(missing_ok=True)
    return True


def status(home: Home) -> list[Status]:
    """Every process of the home, running or not."""
    import psutil

    rows = []
    for process in processes(home, with_mlflow=True):
        pid = _running_pid(home, process.name)
        if pid is None:
            rows.append(Status(process.name, "stopped", None, process.address, None))
            continue
        parent = psutil.Process(pid)
        rss = sum(p.memory_info().rss for p in [parent, *parent.children(recursive=True)])
        state = "ready" if process.ready() else "starting"
        rows.append(Status(process.name, state, pid, process.address, rss >> 20))
    return rows


def _given(variables: Iterable[str]) -> dict[str, str]:
    """Those of `variables` that this process was given."""
    return {name: os.environ[name] for name in variables if name in os.environ}


def _script(name: str) -> str:
    """A console script of the running interpreter's environment."""
    return str(Path(sys.executable).with_name(name))


def _file(home: Home, name: str) -> Path:
    return home.run / f"{name}.json"


def _log(home: Home, name: str) -> Path:
    return home.run / f"{name}.log"


def _record(home: Home, name: str, pid: int) -> None:
    import psutil

    try:
        started = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:  # it ended at once; the wait that follows reports its log
        started = 0.0
    record = {"pid": pid, "started": started, "home": str(home.root)}
    replace_text(_file(home, name), json.dumps(record))


def _running_pid(home: Home, name: str) -> int | None:
    """The recorded pid if that very process, by start time, still runs. A copied home runs nothing yet; what a
    moved one runs is its own. Raises ProcessFileBroken."""
    import psutil

    path = _file(home, name)
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        if not (isinstance(record, dict) and {"pid", "started"} <= record.keys()):
            raise ValueError("it should hold a pid and when it started")
    except ValueError as error:
        raise ProcessFileBroken(
            f"{path} cannot be read: {error}; stop {name} by hand if it runs, and remove the file"
        ) from error
    recorded = record.get("home", str(home.root))
    if recorded != str(home.root) and Path(recorded).exists():
        return None
    try:
        process = psutil.Process(record["pid"])
        same = abs(process.create_time() - record["started"]) < 1.0
        return record["pid"] if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _wait_ready(home: Home, process: Process, child: subprocess.Popen[bytes] | None = None) -> None:
    begun, said = time.monotonic(), False
    while True:
        # The process first: were its port another program's, that one would answer in its place.
        ended = child.poll() is not None if child else _running_pid(home, process.name) is None
        if not ended and process.ready():
            return
        log = _log(home, process.name)
        if ended:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:]) if log.exists() else ""
            raise StartError(
                f"{process.name} ({process.address}) ended before it was ready; its log is {log}:\n{tail}"
            )
        if not said and time.monotonic() - begun > PATIENCE_S:
            said = True
            say(f"{process.name} runs and does not answer yet at {process.address}; its log is {log}")
        time.sleep(0.2)


def _http_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return 200 <= answer.status < 300
    except (urllib.error.URLError, OSError):
        return False


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return True
    except OSError:
        return False
