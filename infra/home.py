"""One home folder holds all state of one Corkboard: lake, features, registry, vectors, events, run files.

Two homes on one machine share nothing, ports included: a home claims its ports once, at random among the
free ones, and keeps them in `ports.json`.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from validation.whole_files import replace_text

PORT_NAMES = ("homefeed", "events", "retrieval", "ranking", "milvus", "mlflow")

TELEMETRY_OFF = {
    "BENTOML_DO_NOT_TRACK": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Switches of the stack's usage reporting; `1` is not understood by all of them."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""BLAS threads of a service: two threads cost nine times the throughput on small products."""

NO_TRACES = {"OTEL_SDK_DISABLED": "true"}
"""BentoML makes OpenTelemetry spans of every request, a millisecond each, and sends them nowhere by default."""


class HomeUnusable(RuntimeError):
    """A home is a folder that can be made and written to."""


@dataclass(frozen=True)
class Home:
    """Paths, addresses and environment of one home folder. Creating the object touches nothing."""

    root: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Home:
        """The home at `path`, made absolute; the folder is created. Raises HomeUnusable, also for no path at
        all, which would be the working directory."""
        if not os.fspath(path).strip():
            raise HomeUnusable(f"--home {os.fspath(path)!r} names no folder; give one, or leave it out")
        root = Path(path).expanduser().resolve()
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HomeUnusable(f"{root} cannot be a home: {error.strerror}; give another --home") from error
        return cls(root)

    @property
    def lake(self) -> Path:
        return self.root / "lake"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def features(self) -> Path:
        """Parquet tables that Feast's offline store reads."""
        return self.root / "features"

    @property
    def datasets(self) -> Path:
        """Contract tables made by `corkboard datasets` and by the demo world."""
        return self.root / "datasets"

    @property
    def training_sets(self) -> Path:
        return self.root / "training_sets"

    @property
    def events(self) -> Path:
        """Segments of the durable event log."""
        return self.root / "events"

    @property
    def ledger(self) -> Path:
        return self.root / "releases" / "ledger.jsonl"

    @property
    def milvus(self) -> Path:
        """Data folder of the embedded Milvus Lite server."""
        return self.root / "milvus"

    @property
    def run(self) -> Path:
        """Process files and logs of what `corkboard up` started."""
        return self.root / "run"

    @property
    def mlflow_uri(self) -> str:
        """MLFLOW_TRACKING_URI if it names a server, else the home's own database.

        A database file of another home, left in the shell by work by hand, is never taken for this home's.
        """
        given = os.environ.get("MLFLOW_TRACKING_URI", "")
        own = f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"
        return own if not given or given.startswith("sqlite:") else given

    @property
    def mlflow_artifacts(self) -> Path:
        return self.root / "mlflow" / "artifacts"

    @property
    def external_milvus(self) -> str | None:
        """Address of a Milvus server that is not this home's own; None for the embedded one."""
        given = os.environ.get("CORKBOARD_MILVUS_URI")
        return None if given in (None, "", self._own_milvus) else given

    @property
    def _own_milvus(self) -> str:
        return f"http://127.0.0.1:{self.ports()['milvus']}"

    @property
    def milvus_uri(self) -> str:
        """CORKBOARD_MILVUS_URI, else the home's own server."""
        return self.external_milvus or self._own_milvus

    def ports(self) -> dict[str, int]:
        """The home's ports by name, claimed on first use. Raises HomeUnusable where the file is garbage."""
        path = self.root / "ports.json"
        try:
            ports: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
            if not (isinstance(ports, dict) and all(type(port) is int for port in ports.values())):
                raise ValueError("it should hold ports by name")
        except ValueError as error:
            raise HomeUnusable(f"{path} cannot be read: {error}; remove it to claim other ports") from error
        missing = [name for name in PORT_NAMES if name not in ports]
        if missing:
            ports.update(zip(missing, _free_ports(len(missing)), strict=True))
            replace_text(path, json.dumps(ports, indent=2))
        return ports

    def environment(self) -> dict[str, str]:
        """The variables under which this home's services, and the native tools by hand, find its state."""
        return {
            **TELEMETRY_OFF,
            "CORKBOARD_HOME": str(self.root),
            "MLFLOW_TRACKING_URI": self.mlflow_uri,
            "CORKBOARD_MILVUS_URI": self.milvus_uri,
            "BENTOML_HOME": str(self.root / "bentoml"),
        }


def _free_ports(count: int) -> list[int]:
    """`count` distinct TCP ports free on 127.0.0.1 now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()
