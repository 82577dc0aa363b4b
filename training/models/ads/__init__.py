"""Ads: a multi-task model with a tower a source, in four layers over declared features.

config.py           features by kind; transforms and sizes
rows.py             arrays of ads and the pins they stand beside
representation.py   features by their kind: squash, signed log, hash embeddings
network.py          summarisation, latent cross, the shared bottom and the towers
model.py            the network with its calibration, saved and loaded
ranking.py          expected value: what the surface orders by

Import from the files: `rows` and `ranking` stay free of torch.
"""
