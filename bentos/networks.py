"""The learned retrievers of a release: networks that make vectors of a user in the space of their own pins."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from bentos.shared_parts import SharedParts
from validation.manifest import ReleaseManifest

if TYPE_CHECKING:
    from training.models.interests import InterestNetwork
    from training.models.pinnerformer import PinnerFormer
    from training.models.two_tower import TwoTower


class Learned(StrEnum):
    """Roles of a release whose model reads a user and answers in a space of its own."""

    PINNERFORMER = "pinnerformer"
    DCM = "dcm"
    CONDITIONAL = "conditional"
    TWO_TOWER = "two_tower"


@dataclass(frozen=True)
class Networks:
    """Loaded networks by role; None where the release has none or this process does not run it."""

    pinnerformer: PinnerFormer | None = None
    dcm: InterestNetwork | None = None
    conditional: InterestNetwork | None = None
    two_tower: TwoTower | None = None


def load_networks(manifest: ReleaseManifest, roles: tuple[Learned, ...], shared: SharedParts) -> Networks:
    """The networks of `roles` that the manifest has, each on one thread.

    Importing torch costs seconds and 190 MB, so it is imported where there is something to load.
    """
    parts = {role: manifest.parts[role] for role in roles if role in manifest.parts}
    if not parts:
        return Networks()
    import torch

    from training.models.interests import InterestNetwork
    from training.models.pinnerformer import PinnerFormer
    from training.models.two_tower import TwoTower

    torch.set_num_threads(1)

    def interests(folder: Path) -> InterestNetwork:
        return InterestNetwork.load(folder).serving()

    load = {
        Learned.PINNERFORMER: PinnerFormer.load,
        Learned.DCM: interests,
        Learned.CONDITIONAL: interests,
        Learned.TWO_TOWER: lambda folder: TwoTower.load(folder).serving(),
    }
    return Networks(**{role: shared.of(part, load[role]) for role, part in parts.items()})
