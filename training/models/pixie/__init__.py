"""Pixie: recommendations by random walks on the pin-board graph (WWW 2018, arXiv 1711.07601).

prefetch.py    one instruction: bring a cache line near
engine.py      the compiled kernels: interleaved walkers, visit counters, a query's walk, neighbourhoods
query.py       what to walk from: a user's history, a pin, a board; steps given to each query pin
recommend.py   `Pixie`: query in, pins and scores out
neighbours.py  importance neighbourhoods for PinSage, from the same engine
"""

from training.models.pixie.config import PixieConfig
from training.models.pixie.neighbours import importance_neighbours
from training.models.pixie.query import Query, board_query, history_query, pin_query
from training.models.pixie.recommend import Pixie, Recommendations

__all__ = [
    "Pixie",
    "PixieConfig",
    "Query",
    "Recommendations",
    "board_query",
    "history_query",
    "importance_neighbours",
    "pin_query",
]
