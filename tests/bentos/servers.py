"""Starts a service as its own process and waits until it is ready."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_S = 400.0
"""In a fresh clone on a busy machine the first start compiles every kernel."""


@dataclass(frozen=True)
class Server:
    """A running service."""

    url: str
    home: Path
    log: Path
    pid: int
    """Of the process that was started; services may be its children."""

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of a GET, redirects followed."""
        return self._ask(urllib.request.Request(self.url + path))

    def post(self, path: str, body: object, kind: str = "application/json") -> tuple[int, Any]:
        """Status and JSON of a POST; `body` goes as JSON, or as it is if bytes, under content type `kind`."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers={"Content-Type": kind})
        status, text = self._ask(request)
        return status, json.loads(text)

    @staticmethod
    def _ask(request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def free_port() -> int:
    with socket.socket() as claimed:
        claimed.bind(("127.0.0.1", 0))
        return int(claimed.getsockname()[1])


@contextmanager
def serving(command: list[str], home: Path, **variables: str) -> Iterator[Server]:
    """Run `command` (its `{port}` filled in) until /readyz answers; ends the whole process group after."""
    port = free_port()
    home.mkdir(parents=True, exist_ok=True)
    (home / "metrics").mkdir(exist_ok=True)
    log = home / "server.log"
    environment = {
        **os.environ,
        "CORKBOARD_HOME": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "PROMETHEUS_MULTIPROC_DIR": str(home / "metrics"),
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [part.replace("{port}", str(port)) for part in command],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", home, log, process.pid)
    try:
        _wait(server, process)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def bentoml(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("bentoml")), *arguments]


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(f"the service ended: {server.log.read_text()[-3000:]}")
        try:
            if server.get("/readyz")[0] == 200:
                return
        except OSError:
            pass  # not listening yet
        time.sleep(0.2)
    raise AssertionError(f"the service was not ready in {START_S:.0f} s: {server.log.read_text()[-3000:]}")
