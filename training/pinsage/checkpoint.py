"""Checkpoints in safetensors: weights, optimiser state and the place in the run, replaced atomically."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class Place:
    """Where a run stands: the next step to make, and the losses so far."""

    epoch: int = 0
    step: int = 0
    losses: tuple[float, ...] = ()
    """Mean loss of each whole epoch."""
    running: float = 0.0
    """Sum of this epoch's losses so far."""


def save_checkpoint(
    folder: Path, run: str, place: Place, network: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Write the state of run `run` (a digest of its data and settings) into `folder`, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {f"network.{name}": t.contiguous() for name, t in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"adam.{name}.{key}"] = torch.as_tensor(value).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{FILE}.{os.getpid()}.part"
    save_file(tensors, part, metadata={"run": run, "place": json.dumps(place.__dict__)})
    with part.open("rb") as handle:
        os.fsync(handle.fileno())
    part.replace(folder / FILE)


def load_checkpoint(
    folder: Path, run: str, network: nn.Module, optimiser: torch.optim.Optimizer
) -> Place | None:
    """Bring network and optimiser to the state saved in `folder`; None where there is none.

    Raises ValueError when the checkpoint is of another run.
    """
    from safetensors import safe_open

    path = folder / FILE
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        if metadata["run"] != run:
            raise ValueError(f"{path} is of another run (other data or settings); give each run its own folder")
        tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    network.load_state_dict(
        {k.removeprefix("network."): t for k, t in tensors.items() if k.startswith("network.")}
    )
    for name, parameter in network.named_parameters():
        prefix = f"adam.{name}."
        state = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
        if state:
            optimiser.state[parameter].update(state)
    place = json.loads(metadata["place"])
    return Place(**{**place, "losses": tuple(place["losses"])})
