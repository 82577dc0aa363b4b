"""Classical recommenders of implicit feedback, in their exact short forms: what every other model is measured
against.

Each is a function that takes a binary users x pins matrix and returns a scorer: user rows in, (n, pins)
float32 scores out, higher is better. Scores of pins a user already has are whatever falls out; who ranks
leaves them out.

    popularity.py  the number of users of a pin
    itemknn.py     cosine of pins over users, shrunk, k nearest
    rp3beta.py     three-step random walk, popular targets discounted
    ease.py        linear autoencoder without self-loops, closed form
    ials.py        matrix factorisation by alternating least squares over all pairs
"""

from training.models.baselines.ease import ease
from training.models.baselines.ials import ials
from training.models.baselines.itemknn import itemknn
from training.models.baselines.popularity import popularity
from training.models.baselines.rp3beta import rp3beta
from training.models.baselines.scorer import Scorer

__all__ = ["Scorer", "ease", "ials", "itemknn", "popularity", "rp3beta"]
