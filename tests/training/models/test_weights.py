"""A saved network is the same network, and its two files are named as asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from training.models.weights import load_network, save_network


def build(settings: dict[str, int]) -> nn.Module:
    return nn.Sequential(nn.Linear(settings["wide"], 3), nn.Dropout())


def test_weights_and_settings_come_back(tmp_path: Path) -> None:
    made = build({"wide": 5})
    save_network(made, tmp_path / "files", "towers", {"wide": 5})
    assert sorted(f.name for f in (tmp_path / "files").iterdir()) == ["towers.json", "towers.safetensors"]
    assert json.loads((tmp_path / "files" / "towers.json").read_text()) == {"wide": 5}
    back = load_network(tmp_path / "files", "towers", build)
    assert not back.training, "loaded to be asked, not to be trained"
    for name, tensor in made.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor)


def test_what_does_not_fit_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_network(tmp_path, "towers", build)
    save_network(build({"wide": 5}), tmp_path, "towers", {"wide": 4})
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_network(tmp_path, "towers", build)
