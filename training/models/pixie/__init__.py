"""Pixie: recommendations by random walks on the pin-board graph (WWW 2018, arXiv 1711.07601).

engine.py      the compiled kernels: interleaved walkers, visit counters, a query's walk, neighbourhoods
query.py       what to walk from: a user's history, a pin, a board; steps given to each query pin
recommend.py   `Pixie`: query in, pins and scores out
released.py    a model version: the graph's artifact and how it is walked
neighbours.py  importance neighbourhoods for PinSage, from the same engine
"""

from training.models.pixie.config import PixieConfig
from training.models.pixie.neighbours import importance_neighbours
from training.models.pixie.query import Query, board_query, by_code, history_query, pin_query
from training.models.pixie.recommend import Pixie, Recommendations
from training.models.pixie.released import PixieSettings, ReleasedPixie

__all__ = [
    "Pixie",
    "PixieConfig",
    "PixieSettings",
    "Query",
    "Recommendations",
    "ReleasedPixie",
    "board_query",
    "by_code",
    "history_query",
    "importance_neighbours",
    "pin_query",
]
