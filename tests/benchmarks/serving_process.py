"""The running service, seen from outside: the CPU time and the memory of its processes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil


class Spent(Protocol):
    """What adds up the time that a load took."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Service:
    """A service's process and all that it started."""

    pid: int

    def _family(self) -> list[psutil.Process]:
        parent = psutil.Process(self.pid)
        return [parent, *parent.children(recursive=True)]

    def cpu_s(self) -> float:
        return sum(t.user + t.system for t in (p.cpu_times() for p in self._family()))

    def rss_mb(self) -> float:
        """Pages that processes share count once for each."""
        return sum(p.memory_info().rss for p in self._family()) / 2**20

    def pss_mb(self) -> float:
        """What the family takes of the machine: shared pages count once. It is slow to read."""
        return sum(p.memory_full_info().pss for p in self._family()) / 2**20

    def anonymous_mb(self) -> float:
        """The part of `pss_mb` that is no file's: what the kernel cannot take back by itself."""
        rollups = (Path(f"/proc/{p.pid}/smaps_rollup").read_text() for p in self._family())
        return sum(int(re.findall(r"^Pss_Anon:\s+(\d+) kB", text, re.M)[0]) for text in rollups) / 2**10

    def settle(self, busy: float = 0.1, patience_s: float = 120.0) -> None:
        """Wait until a second costs it less than `busy` of a core: all that starts beside requests is done."""
        end = time.monotonic() + patience_s
        before = self.cpu_s()
        while time.monotonic() < end:
            time.sleep(1)
            now = self.cpu_s()
            if now - before < busy:
                return
            before = now

    @contextmanager
    def spending(self, seen: Spent) -> Iterator[None]:
        """Add the wall time and the service's CPU time of the block."""
        cpu, wall = self.cpu_s(), time.perf_counter()
        yield
        seen.cpu_s += self.cpu_s() - cpu
        seen.wall_s += time.perf_counter() - wall


@dataclass(frozen=True)
class Memory:
    """What a service takes, in MB."""

    rss: float
    pss: float
    anonymous: float

    @classmethod
    def of(cls, service: Service) -> Memory:
        return cls(service.rss_mb(), service.pss_mb(), service.anonymous_mb())
