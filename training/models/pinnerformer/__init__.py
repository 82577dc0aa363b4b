"""PinnerFormer: one vector a user, learned to name what the user does in the next weeks (arXiv 2205.04507).

config.py         the network's shape; token features on and off
time_encoding.py  when an action happened, as 155 numbers
tokens.py         users' actions as arrays, and as one padded batch
attention.py      attention written out, for CPUs
packing.py        sequences of several lengths without their padding
products.py       training's matrix products, by the faster library
network.py        the causal transformer, the pin tower, the temperature; save and load
sketch.py         how often a pin is a positive: count-min sketch
loss.py           sampled softmax with logQ over mixed negatives
objectives.py     what a position is asked to predict: next, SASRec, all action, dense all action
eight_bits.py     a copy whose blocks multiply integers
inference.py      users and pins in batches: no padding, newest token only, fewer bits
"""

from training.models.pinnerformer.config import PinnerFormerConfig, TokenFeatures
from training.models.pinnerformer.inference import Precision, embed_pins, embed_users
from training.models.pinnerformer.loss import Negatives
from training.models.pinnerformer.network import PinnerFormer
from training.models.pinnerformer.objectives import Labels, Objective, targets
from training.models.pinnerformer.tokens import ActionArrays, Tokens, collate

__all__ = [
    "ActionArrays",
    "Labels",
    "Negatives",
    "Objective",
    "PinnerFormer",
    "PinnerFormerConfig",
    "Precision",
    "TokenFeatures",
    "Tokens",
    "collate",
    "embed_pins",
    "embed_users",
    "targets",
]
