"""Milvus processes for tests: Lite's server, and the real standalone server where it is installed."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

import pytest

from feature_repo.vectors import server

ROOT = Path(__file__).resolve().parents[3]
MILVUS_VENV = Path(os.environ.get("CORKBOARD_MILVUS_VENV") or ROOT / ".milvus-venv")
"""Environment holding `milvus==2.3.5` and `setuptools<80`."""

_shared = ExitStack()

_LOCK = Path("/tmp/corkboard-milvus-server.lock")
"""Held by the process that runs the machine's one server, for as long as that server lives."""
_USERS = Path("/tmp/corkboard-milvus-server.users")
"""Its text is the server's URI. Whoever uses it shares the lock; who runs it stops it with the lock alone."""
_LOCK_WAIT_S = 240.0
_START_WAIT_S = 120.0


def stop_shared() -> None:
    """Stop what the tests of this process shared; the real server once other processes have done with it.

    When the session ends, and not at the process's exit: processes of pytest-xdist leave without a word.
    """
    _shared.close()


@lru_cache
def shared_lite() -> str:
    """URI of one Milvus Lite for the whole test run, started on first use; keep to collections of your own."""
    folder = _shared.enter_context(tempfile.TemporaryDirectory(prefix="corkboard-lite-"))
    return _shared.enter_context(milvus_lite(Path(folder)))


def shared_standalone() -> str:
    """URI of the one real server a machine can run, shared like `shared_lite`, also among test processes.

    Skips the test, saying why, where there is none.
    """
    found = _find_standalone()
    if isinstance(found, pytest.skip.Exception):
        raise found
    return found


@lru_cache
def _find_standalone() -> str | pytest.skip.Exception:
    try:
        return _shared.enter_context(milvus_standalone())
    except pytest.skip.Exception as reason:
        return reason  # remembered, so that not every test waits for the lock again


@contextmanager
def milvus_lite(folder: Path) -> Iterator[str]:
    """URI of a Milvus Lite server process over `folder`, stopped on leaving."""
    port = _free_port()
    uri = f"http://{server.HOST}:{port}"
    process = server.start(folder / "data", port, folder / "milvus.log")
    try:
        server.wait(uri, 60.0, process, folder / "milvus.log")
        yield uri
    finally:
        server.stop(process)


@contextmanager
def milvus_standalone() -> Iterator[str]:
    """URI of the machine's real server: started by whoever comes first, stopped when its last user has left.

    One instance fits in a network namespace (a second one crashes both), so a file lock covers the server's
    life; the server inherits it, and one that outlived its test run keeps it until killed. It has no accounts
    and listens on every interface: for test machines only. Raises pytest's skip where it cannot run.
    """
    program = MILVUS_VENV / "bin" / "milvus-server"
    if not program.exists():
        pytest.skip(
            f"no real Milvus at {MILVUS_VENV}: python3.11 -m venv {MILVUS_VENV} && "
            f"{MILVUS_VENV}/bin/pip install milvus==2.3.5 'setuptools<80'  (or set CORKBOARD_MILVUS_VENV)"
        )
    with _LOCK.open("a") as lock, _USERS.open("a+") as users:
        if not _first(lock.fileno(), users):
            yield _uri(users)
            return
        users.truncate(0)
        with _server(program, lock.fileno()) as uri:
            users.write(uri)
            users.flush()
            fcntl.flock(users, fcntl.LOCK_SH)
            yield uri
            fcntl.flock(users, fcntl.LOCK_EX)  # waits for the others
            users.truncate(0)


def _first(lock: int, users: IO[str]) -> bool:
    """Whether the server is ours to start; if not, it runs, and we are among its users."""
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        if _locked(lock, fcntl.LOCK_EX):
            return True
        if _locked(users.fileno(), fcntl.LOCK_SH):
            if _uri(users):
                return False
            fcntl.flock(users, fcntl.LOCK_UN)
        if time.monotonic() > deadline:
            pytest.skip(f"the real Milvus that holds {_LOCK} says no address; stop it and try again")
        time.sleep(0.5)


def _locked(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _uri(users: IO[str]) -> str:
    users.seek(0)
    return users.read()


@contextmanager
def _server(program: Path, lock: int) -> Iterator[str]:
    """URI of a real server of our own, empty, which keeps the file `lock` open."""
    folder = MILVUS_VENV / "server"
    folder.mkdir(exist_ok=True)
    for stale in folder.iterdir():
        if stale.name != "bin":  # the unpacked programs, 250 MB, seconds of CPU
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    port = _free_port()
    uri = f"http://{server.HOST}:{port}"
    log = folder / "launcher.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(program), "--data", str(folder), "--proxy-port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=folder,
            pass_fds=(lock,),
        )
    try:
        server.wait(uri, _START_WAIT_S, process, log)
        yield uri
    finally:
        _stop_group(process)


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    """Interrupt the launcher, which stops its server, then end whatever of its session is left."""
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):  # the session is killed next
        process.wait(15)
    with suppress(ProcessLookupError):  # all of it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind((server.HOST, 0))
        return int(s.getsockname()[1])
