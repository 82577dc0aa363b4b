"""Two homes on one machine share nothing."""

from __future__ import annotations

from pathlib import Path

from infra.home import PORT_NAMES, Home


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
    for name in ("lake", "features", "feast", "events", "ledger", "milvus", "run"):
        assert getattr(one, name).is_relative_to(one.root)
        assert getattr(one, name) != getattr(two, name)


def test_making_the_object_touches_nothing(tmp_path: Path) -> None:
    Home(tmp_path / "nowhere").environment  # noqa: B018
    assert not (tmp_path / "nowhere").exists()
