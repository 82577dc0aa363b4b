"""SearchSage (Pinterest Engineering, Nov 2021): a query becomes a vector in the space that pins already have.

query -> tokens -> transformer, fine-tuned end to end -> [CLS] -> one linear readout -> unit row
pins are frozen; a query's neighbours among them are its results
"""

from training.models.searchsage.config import Pooling, ScratchConfig, SearchSageConfig
from training.models.searchsage.encoder import QueryEncoder
from training.models.searchsage.network import QueryTower, TransformersMissing

__all__ = [
    "Pooling",
    "QueryEncoder",
    "QueryTower",
    "ScratchConfig",
    "SearchSageConfig",
    "TransformersMissing",
]
