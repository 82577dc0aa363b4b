"""The embedded Milvus: `milvus-lite`'s gRPC server in a process of its own, on 127.0.0.1 only.

`python -m feature_repo.vectors.server --data-dir D --port P` runs it. Milvus Lite has no authentication and
listens on every interface unless told otherwise, so the host is not an option here. One process per data
folder: a second one is refused by the folder's lock.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from feature_repo.vectors.index import VectorIndexError

HOST = "127.0.0.1"


class MilvusUnreachable(VectorIndexError):
    """No Milvus answered at the URI in time, or its process ended."""


def shown(uri: str) -> str:
    """`uri` without a user and password, for messages and logs."""
    return re.sub(r"//[^/@]*@", "//", uri)


def command(data_dir: Path, port: int) -> list[str]:
    """The command line that serves `data_dir` on 127.0.0.1:`port`."""
    return [
        sys.executable,
        "-m",
        "feature_repo.vectors.server",
        "--data-dir",
        str(data_dir),
        "--port",
        str(port),
    ]


def start(data_dir: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    """Start the server in its own session, output to `log`. Follow with `wait`."""
    data_dir.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    with log.open("ab") as out:
        return subprocess.Popen(
            command(data_dir, port),
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )


def wait(
    uri: str, timeout_s: float = 60.0, process: subprocess.Popen[bytes] | None = None, log: Path | None = None
) -> None:
    """Return once a Milvus answers at `uri`.

    Raises MilvusUnreachable after `timeout_s`, or at once when `process` has ended, with the end of `log`.
    """
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException

    deadline = time.monotonic() + timeout_s
    while True:
        if process is not None and process.poll() is not None:
            raise MilvusUnreachable(
                f"the Milvus process at {shown(uri)} ended with code {process.returncode}{_tail(log)}"
            )
        try:
            client = MilvusClient(uri=uri, timeout=3, dedicated=True)
        except MilvusException as refused:
            if time.monotonic() > deadline:
                raise MilvusUnreachable(
                    f"no Milvus answers at {shown(uri)} after {timeout_s:.0f} s; start it with `corkboard up`"
                    f" or set CORKBOARD_MILVUS_URI{_tail(log)}"
                ) from refused
            time.sleep(0.2)
        else:
            client.close()
            return


def stop(process: subprocess.Popen[bytes], timeout_s: float = 20.0) -> None:
    """Ask the server to close its files and end; kill it when it does not (its log survives that too)."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tail(log: Path | None) -> str:
    if log is None or not log.exists():
        return ""
    return "; its log ends:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-8:])


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then close the data folder."""
    parser = argparse.ArgumentParser(prog="feature_repo.vectors.server", description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args(argv)

    from milvus_lite.adapter.grpc.server import run_server

    # milvus-lite closes its write-ahead log on KeyboardInterrupt only; a supervisor sends SIGTERM.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_server(data_dir=args.data_dir, host=HOST, port=args.port)


if __name__ == "__main__":
    main()
