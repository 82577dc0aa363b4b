"""What a service holds is known as long as its process lives, and not a moment longer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from validation.lease import Lease, leased

HOLDS = """
import sys, time
from pathlib import Path
from validation.lease import Lease
lease = Lease.take(Path(sys.argv[1]), "homefeed")
lease.hold([3, 4])
lease.hold([4, 5])
print("held", flush=True)
time.sleep(600)
"""


def test_a_killed_service_holds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "leases"
    service = subprocess.Popen([sys.executable, "-c", HOLDS, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert service.stdout is not None and service.stdout.readline() == "held\n"
        assert leased(folder) == dict.fromkeys((4, 5), f"homefeed-{service.pid}")
    finally:
        os.kill(service.pid, signal.SIGKILL)
        service.wait()
    assert leased(folder) == {} and list(folder.iterdir()) == []


@pytest.mark.parametrize("length", [1, 2, 4, 7])
def test_half_a_line_on_a_full_disk_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    lease, write = Lease.take(tmp_path, "homefeed"), os.write
    lease.hold([1])
    with monkeypatch.context() as disk:
        disk.setattr("validation.lease.os.write", lambda file, line: write(file, line[:length]))
        with pytest.raises(OSError, match="No space left on device"):
            lease.hold([1, 2])
    assert set(leased(tmp_path)) == {1}
    lease.hold([1, 2])
    assert set(leased(tmp_path)) == {1, 2}
    lease.close()


def test_services_hold_side_by_side_until_they_close(tmp_path: Path) -> None:
    one, other = (Lease.take(tmp_path, name) for name in ("retrieval", "ranking"))
    assert leased(tmp_path) == {}, "neither loads anything yet"
    one.hold([1])
    other.hold([1, 2])
    assert set(leased(tmp_path)) == {1, 2}
    other.close()
    other.hold([7])
    assert leased(tmp_path) == {1: f"retrieval-{os.getpid()}"}
    with one.path.open("ab") as torn:
        torn.write(b"[1, 9")
    assert set(leased(tmp_path)) == {1}, "a line cut short was never said"
    one.close()
    assert leased(tmp_path) == {} and leased(tmp_path / "nowhere") == {}
