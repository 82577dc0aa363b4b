"""The embedded Milvus process: loopback only, closes on SIGTERM, loses nothing acknowledged when killed."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from feature_repo.vectors import server
from feature_repo.vectors.milvus import connect
from tests.feature_repo.vectors.conftest import DIM, planted_pins
from tests.feature_repo.vectors.servers import _free_port

pytestmark = pytest.mark.slow


def test_killed_and_restarted_it_still_holds_what_it_acknowledged(tmp_path: Path) -> None:
    rows = planted_pins(500)
    port = _free_port()
    uri = f"http://127.0.0.1:{port}"
    process = server.start(tmp_path / "data", port, tmp_path / "log")
    try:
        server.wait(uri, 60, process, tmp_path / "log")
        with pytest.raises(ConnectionRefusedError):  # open to every interface, this one would answer too
            socket.create_connection(("127.0.0.2", port), timeout=2)
        milvus = connect(uri)
        milvus.create("pins__kept__1", DIM).upsert(rows)
        milvus.close()
        process.kill()
        process.wait()
    finally:
        server.stop(process)

    process = server.start(tmp_path / "data", port, tmp_path / "log")
    try:
        server.wait(uri, 60, process, tmp_path / "log")
        milvus = connect(uri)
        index = milvus.open("pins__kept__1", consistency="Strong")
        assert index.rows == 500
        np.testing.assert_array_equal(index.fetch(rows.ids).vectors, rows.vectors)
        milvus.close()
    finally:
        server.stop(process)
    assert process.returncode == 0, "SIGTERM closes the files and ends cleanly"


def test_a_second_process_on_one_folder_is_reported_with_its_log(tmp_path: Path) -> None:
    first = server.start(tmp_path / "data", port := _free_port(), tmp_path / "log")
    try:
        server.wait(f"http://127.0.0.1:{port}", 60, first)
        second = server.start(tmp_path / "data", port := _free_port(), tmp_path / "log2")
        with pytest.raises(server.MilvusUnreachable, match=r"ended with code[\s\S]*log ends"):
            server.wait(f"http://127.0.0.1:{port}", 60, second, tmp_path / "log2")
    finally:
        server.stop(first)
