"""Ads: a multi-task model with a tower a source, in four layers over declared features.

config.py           features by kind; transforms and sizes
rows.py             arrays of ads and the pins they stand beside
representation.py   features by their kind: squash, signed log, hash embeddings
network.py          summarisation, latent cross, the shared bottom and the towers
model.py            the network with its calibration, saved and loaded
ranking.py          expected value: what the surface orders by
"""

from training.models.ads.config import SHARED, AdsModelConfig
from training.models.ads.model import AdsModel
from training.models.ads.network import AdsNetwork
from training.models.ads.representation import Batch, Seen
from training.models.ads.rows import AdRows, assemble

__all__ = ["SHARED", "AdRows", "AdsModel", "AdsModelConfig", "AdsNetwork", "Batch", "Seen", "assemble"]
