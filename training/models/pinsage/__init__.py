"""PinSage: graph convolutions over importance neighbourhoods of the pin-board graph (arXiv 1806.01973).

config.py          the network's shape; the rungs it is compared with
inputs.py          a pin by itself: content and log degree
neighbourhoods.py  T neighbours a pin, ragged
blocks.py          the subgraph of one batch, every pin once
pooling.py         weighted sums over neighbourhoods, forward and backward
network.py         convolutions and head; save and load
loss.py            max margin over shared and hard negatives
inference.py       the whole catalogue layer by layer; new pins from what that left
partitions.py      the same as functions over Arrow tables
"""

from training.models.pinsage.config import PinSageConfig, Pooling, Rung
from training.models.pinsage.inference import (
    Latents,
    embed_catalogue,
    embed_catalogue_with_latents,
    embed_new_pins,
    embed_pins,
)
from training.models.pinsage.inputs import pin_inputs
from training.models.pinsage.neighbourhoods import Neighbourhoods
from training.models.pinsage.network import PinSage

__all__ = [
    "Latents",
    "Neighbourhoods",
    "PinSage",
    "PinSageConfig",
    "Pooling",
    "Rung",
    "embed_catalogue",
    "embed_catalogue_with_latents",
    "embed_new_pins",
    "embed_pins",
    "pin_inputs",
]
