"""Scores of one user's candidates by a network that meets each with a selection of a lifelong history.

Within 1e-5 of the training forward, in float32. Every pin is projected, and every token made but for its place
and the candidate, once a request. All candidates are met with as many tokens, so that none is padded; they go
through the encoder in groups whose activations stay in the second cache.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feature_repo.history import behind
from training.models.ranker import Candidates, Request
from training.models.transact.config import Fusion, Lifelong
from training.models.transact.lifelong import levels, select
from training.models.transact.network import TransAct
from training.models.transact.serving import Scores, newest

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

GROUP_TOKENS = 2048
"""Tokens of the candidates that go through the encoder together."""


class LifelongScorer(Scores):
    """One network made ready to serve. Holds a copy of the weights; threads may share it.

    Without `request.past` the sequence is all there is.

    Raises ValueError for a network that selects nothing.
    """

    def __init__(self, network: TransAct) -> None:
        if network.config.lifelong is None:
            raise ValueError("this network reads the newest actions alone; serve it by Scorer")
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.settings: Lifelong = network.config.lifelong

    def _sequence(self, request: Request, candidates: Candidates, pins: Tensor) -> Tensor:
        module, count = self.network.sequence, len(candidates)
        if module.config.fusion is Fusion.NONE:
            return torch.zeros(count, 0)
        story = Story.of(request, self.settings, module.config.actions)
        seen, acted = levels(story.content), len(story.times_ms)
        places, _ = select(
            self.settings,
            seen[:acted],
            story.times_ms,
            seen[acted:],
            story.shown_ms,
            levels(candidates.content),
        )
        length = int((places[0] >= 0).sum())
        # tokens of nothing stand behind the others where the output takes more columns than there are
        wide = max(length, module.config.output.columns(module.config.k, module.config.places))
        chosen = torch.from_numpy(places[:, :wide])
        tokens, lengths, parts = self._tokens(story), torch.tensor([length]), []
        group = max(1, GROUP_TOKENS // max(1, wide))
        for at in range(0, count, group):
            some = pins[at : at + group]
            x = module.placed(tokens[chosen[at : at + group]])
            parts.append(module.encode(module.met(x, some), some, lengths)[0])
        return torch.cat(parts)

    def _tokens(self, story: Story) -> Tensor:
        """Every token that may be selected, without its place, (T + 1, d); the last is one of nothing."""
        pins = self.network.pins(torch.from_numpy(story.content))
        codes, surfaces = torch.from_numpy(story.actions), torch.from_numpy(story.surfaces)
        tokens = self.network.sequence.placeless_tokens(torch.arange(len(codes)), codes, surfaces, pins)
        return torch.nn.functional.pad(tokens, (0, 0, 0, 1))


@dataclass(frozen=True)
class Story:
    """All T tokens that a user has: n actions, realtime ones first, and m impressions, each newest first."""

    content: Floats  # (T, P)
    actions: Ints  # (T,) impressions are of an unknown kind
    surfaces: Ints  # (T,)
    times_ms: Ints  # (n,)
    shown_ms: Ints  # (m,)

    @classmethod
    def of(cls, request: Request, settings: Lifelong, kinds: int) -> Story:
        """The realtime actions, and of `request.past` what lies behind them."""
        now, past = newest(request, settings.realtime), request.past
        if past is None:
            return cls(now.history, now.actions, now.surfaces, now.times_ms, now.times_ms[:0])
        old = slice(behind(past.times_ms[: settings.length], now.times_ms), settings.length)
        shown = len(past.shown)
        return cls(
            content=np.concatenate([now.history, past.history[old], past.shown]),
            actions=np.concatenate([now.actions, past.actions[old], np.full(shown, kinds + 1)]),
            surfaces=np.concatenate([now.surfaces, past.surfaces[old], np.zeros(shown, np.int64)]),
            times_ms=np.concatenate([now.times_ms, past.times_ms[old]]),
            shown_ms=past.shown_ms,
        )
