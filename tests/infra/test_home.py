"""Two homes on one machine share nothing."""

from __future__ import annotations

from pathlib import Path

from infra.home import PORT_NAMES, Home
from infra.local import processes


def test_ports_are_claimed_once_and_kept(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "a")
    assert home.ports() == Home.at(tmp_path / "a").ports()
    assert set(home.ports()) == set(PORT_NAMES)
    assert len(set(home.ports().values())) == len(PORT_NAMES)


def test_a_new_port_name_keeps_the_old_ports(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text('{"homefeed": 12345}')
    assert Home.at(tmp_path).ports()["homefeed"] == 12345


def test_two_homes_share_no_path(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("CORKBOARD_MILVUS_URI", raising=False)
    one, two = Home.at(tmp_path / "one"), Home.at(tmp_path / "two")
    assert one.mlflow_uri != two.mlflow_uri
    for name in ("lake", "features", "datasets", "events", "ledger", "milvus", "run"):
        assert getattr(one, name).is_relative_to(one.root)
        assert getattr(one, name) != getattr(two, name)


def test_making_the_object_touches_nothing(tmp_path: Path) -> None:
    Home(tmp_path / "nowhere").environment  # noqa: B018
    assert not (tmp_path / "nowhere").exists()


def test_a_database_left_in_the_shell_is_not_taken_for_this_homes(tmp_path: Path, monkeypatch) -> None:
    one, two = Home.at(tmp_path / "one"), Home.at(tmp_path / "two")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", one.mlflow_uri)
    assert str(two.root) in two.mlflow_uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert two.mlflow_uri == "http://mlflow:5000"


def test_a_milvus_elsewhere_replaces_the_embedded_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("CORKBOARD_MILVUS_URI", raising=False)
    home = Home.at(tmp_path)
    assert home.external_milvus is None
    assert [p.name for p in processes(home)] == ["milvus", "homefeed"]
    monkeypatch.setenv("CORKBOARD_MILVUS_URI", home.milvus_uri)
    assert home.external_milvus is None, "its own address, handed down by the command line"
    monkeypatch.setenv("CORKBOARD_MILVUS_URI", "http://milvus:19530")
    assert home.milvus_uri == "http://milvus:19530"
    assert [p.name for p in processes(home)] == ["homefeed"]
