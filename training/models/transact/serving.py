"""Scores of one user's candidates, 1 to 1,000 of them: what `network(rows)` says, without repeating the user.

The user's part is made once (`shared.py`), a short history costs what it is long, and activations stay in the
second cache. float32 within 1e-5 of the training forward. bfloat16 where the CPU multiplies it natively and a
probe of real requests says that no logit moves by more than DRIFT; else float32.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.models.pinnerformer.inference import native_bfloat16
from training.models.ranker import Candidates, Past, Request
from training.models.transact.folding import shareable
from training.models.transact.inputs import Rows
from training.models.transact.network import TransAct, probabilities
from training.models.transact.shared import SharedEncoder

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

DRIFT = 0.1
"""Largest change of a logit that lower precision may bring: a tenth of the odds."""
PLAIN_ROWS = 32
"""Candidates at a time where the algebra does not hold."""


class Scores(ABC):
    """What a network says of one user's candidates, however the sequence's part is made."""

    network: TransAct

    def score(self, request: Request, candidates: Candidates) -> Floats:
        """(N, H) float32 in [0, 1], a column a head.

        Raises ValueError where content vectors are not finite or arrays are not parallel.
        """
        with torch.inference_mode():
            return probabilities(self.logits(request, candidates)).numpy()

    def logits(self, request: Request, candidates: Candidates) -> Tensor:
        """(N, H) float32."""
        check(request, candidates)
        network = self.network
        if len(candidates) == 0:
            return torch.zeros(0, len(network.config.heads))
        pins = network.pins(torch.from_numpy(candidates.content))
        sequence = self._sequence(request, candidates, pins)
        users = torch.tensor(request.user).expand(len(pins), -1)
        return network.rank(network.features(torch.from_numpy(candidates.features)), pins, users, sequence)

    @abstractmethod
    def _sequence(self, request: Request, candidates: Candidates, pins: Tensor) -> Tensor:
        """The module's part of x_0, (N, out); `pins` (N, pin_dim) are the candidates projected."""


class Scorer(Scores):
    """One network made ready to serve, in `dtype`. Holds a copy of the weights; threads may share it.

    Raises ValueError for a network that meets each candidate with a selection of a lifelong history.
    """

    def __init__(self, network: TransAct, dtype: torch.dtype = torch.float32) -> None:
        if network.config.lifelong is not None:
            raise ValueError("this network meets each candidate with other tokens; serve it by LifelongScorer")
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.dtype = dtype
        module = self.network.sequence
        self.encoder = SharedEncoder(module, dtype) if shareable(module.config) else None
        if dtype is torch.bfloat16:
            for part in (self.network.cross, self.network.deep, self.network.heads):
                part.bfloat16()

    def _sequence(self, request: Request, candidates: Candidates, pins: Tensor) -> Tensor:
        request = newest(request, self.network.config.sequence.length)
        if self.encoder is None:
            return self._plain(request, candidates)
        return self.encoder.candidates(self.encoder.user(self._tokens(request)), pins)

    def _tokens(self, request: Request) -> Tensor:
        """What tokens owe to the user, (T, d), newest first, behind the candidate's own where it has one."""
        pins, module = self.network.pins(torch.from_numpy(request.history)), self.network.sequence
        codes, surfaces = torch.from_numpy(request.actions), torch.from_numpy(request.surfaces)
        tokens = module.user_tokens(torch.arange(len(codes)), codes, surfaces, pins)
        return tokens if module.lead is None else torch.cat([module.lead[None], tokens])

    def _plain(self, request: Request, candidates: Candidates) -> Tensor:
        """The module's own forward, some candidates at a time, (N, out)."""
        parts = []
        for at in range(0, len(candidates), PLAIN_ROWS):
            rows = as_rows(request, candidates, slice(at, at + PLAIN_ROWS))
            pins = self.network.pins(rows.content)
            parts.append(self.network.sequence(rows, pins, pins[rows.candidates]).flat)
        return torch.cat(parts)


def newest(request: Request, length: int) -> Request:
    """The last `length` actions that the request may see: those that a training row holds of it."""
    at = np.flatnonzero((request.actions > 0) & (request.times_ms < request.request_ms))[:length]
    return replace(
        request,
        history=request.history[at],
        actions=request.actions[at],
        surfaces=request.surfaces[at],
        times_ms=request.times_ms[at],
    )


def as_rows(request: Request, candidates: Candidates, part: slice = slice(None)) -> Rows:
    """The same as a training batch: the user repeated a candidate."""
    content, features = candidates.content[part], candidates.features[part]
    length, count = len(request.actions), len(content)
    everything = np.concatenate([np.zeros((1, content.shape[1]), np.float32), request.history, content])

    def repeated(values: Ints) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.int64)).expand(count, -1)

    return Rows(
        content=torch.from_numpy(everything),
        pins=repeated(np.arange(1, length + 1)),
        actions=repeated(request.actions),
        surfaces=repeated(request.surfaces),
        times_ms=repeated(request.times_ms),
        request_ms=torch.full((count,), request.request_ms),
        candidates=torch.arange(length + 1, length + 1 + count),
        features=torch.from_numpy(features),
        users=torch.from_numpy(request.user).expand(count, -1),
    )


def fitting_scorer(network: TransAct, probes: Sequence[tuple[Request, Candidates]]) -> Scorer:
    """In bfloat16 where the CPU gains by it and it says what float32 says of every probe; else in float32.

    `probes` are a few real requests: without any there is nothing to compare, and float32 it is.
    """
    exact = Scorer(network)
    if not probes or exact.encoder is None or not native_bfloat16():
        return exact
    lower = Scorer(network, torch.bfloat16)
    return lower if drift(exact, lower, probes) <= DRIFT else exact


def drift(exact: Scorer, lower: Scorer, probes: Sequence[tuple[Request, Candidates]]) -> float:
    """Largest change of a logit between two scorers over the probes; infinite where one is not finite."""
    largest = 0.0
    with torch.inference_mode():
        for request, candidates in probes:
            gap = (exact.logits(request, candidates) - lower.logits(request, candidates)).abs()
            if not bool(torch.isfinite(gap).all()):
                return float("inf")
            largest = max(largest, float(gap.amax()) if gap.numel() else 0.0)
    return largest


def check(request: Request, candidates: Candidates) -> None:
    """Raises ValueError where content vectors are not finite, codes are negative or arrays are not parallel."""
    _parallel("a request's", len(request.actions), request, ("history", "surfaces", "times_ms"))
    if len(candidates.features) != len(candidates.content):
        raise ValueError(
            f"{len(candidates.features)} rows of features for {len(candidates.content)} candidates"
        )
    if len(request.actions) and int(request.actions.min()) < 0:
        raise ValueError(f"action code {int(request.actions.min())}; codes count from 1, and 0 is padding")
    vectors = {"history": request.history, "candidates": candidates.content}
    if (past := request.past) is not None:
        _parallel("a past's", len(past.actions), past, ("history", "surfaces", "times_ms"))
        _parallel("a past's", len(past.shown_ms), past, ("shown",))
        vectors |= {"past": past.history, "pins shown": past.shown}
    for name, given in vectors.items():
        if not np.isfinite(given).all():
            raise ValueError(f"content vectors of the {name} hold numbers that are not finite")


def _parallel(whose: str, length: int, given: Request | Past, names: tuple[str, ...]) -> None:
    for name in names:
        if len(getattr(given, name)) != length:
            raise ValueError(f"{whose} arrays are parallel: {name} has {len(getattr(given, name))} of {length}")
