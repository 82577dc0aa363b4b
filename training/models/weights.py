"""A network's two files: its weights as safetensors, and beside them, as JSON, what it is built from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def save_network(network: nn.Module, folder: Path, name: str, settings: Mapping[str, object]) -> None:
    """Write `<name>.safetensors` and `<name>.json` into `folder`; `settings` are plain JSON values."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    save_file(tensors, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(settings, indent=2))


def load_network(folder: Path, name: str, build: Callable[[dict[str, Any]], Network]) -> Network:
    """The network saved in `folder`, in evaluation mode; `build` makes an empty one from its settings.

    Raises FileNotFoundError where there is none, RuntimeError where the weights are of another shape.
    """
    from safetensors.torch import load_file

    network = build(json.loads((folder / f"{name}.json").read_text()))
    network.load_state_dict(load_file(folder / f"{name}.safetensors"))
    return network.eval()
