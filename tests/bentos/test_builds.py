"""Each service builds into a Bento that carries its code and its page, and no model."""

from __future__ import annotations

import importlib
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.bentos.servers import ROOT, bentoml

BUILDS = sorted((ROOT / "bentos" / "builds").glob("*.yaml"))


def test_there_is_a_build_for_every_service() -> None:
    assert [b.stem for b in BUILDS] == ["events", "homefeed", "ranking", "retrieval"]


@pytest.mark.parametrize("build", BUILDS, ids=lambda b: b.stem)
def test_a_build_names_a_service_and_the_code_it_imports(build: Path) -> None:
    given = yaml.safe_load(build.read_text())
    module, _, name = given["service"].partition(":")
    service = getattr(importlib.import_module(module), name)
    assert service.name == name and service.config["workers"] == 1
    assert service.config["runner_connection"]["max_requests"] >= 10**9
    assert "training/models/**" in given["include"] and not any("pipelines" in i for i in given["include"])
    assert (ROOT / given["python"]["requirements_txt"]).exists()


@pytest.mark.slow
def test_building_the_home_feed(tmp_path: Path) -> None:
    environment = {**os.environ, "BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "True"}
    command = bentoml("build", "-f", "bentos/builds/homefeed.yaml", "--version", "test", ".")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    bento = tmp_path / "bentos" / "homefeed" / "test"
    names = {path.relative_to(bento).as_posix() for path in bento.rglob("*") if path.is_file()}
    for wanted in (
        "bentos/funnel.py",
        "bentos/page/app.js",
        "feature_repo/online/reader.py",
        "validation/lake.py",
    ):
        assert f"src/{wanted}" in names
    assert not [n for n in names if "/tests/" in n or "training/pipelines" in n or n.startswith("src/infra")]
    assert "env/docker/Dockerfile" in names
