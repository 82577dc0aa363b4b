"""TransAct as a ranker: its network ready to serve, and what its vectors of users are of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, ConfigDict

from training.models.ranker import CONFIG, Candidates, Floats, Request
from training.models.transact.lifelong_serving import LifelongScorer
from training.models.transact.network import TransAct
from training.models.transact.serving import Scorer, fitting_scorer

if TYPE_CHECKING:
    from training.models.pinnability import FeatureSpec


class _Header(BaseModel):
    """`ranker.json`: what the network's own files do not say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["transact"] = "transact"
    user_space: str | None = None


@dataclass(frozen=True)
class TransActRanker:
    """A network behind the interface of rankers; float32 until `fitted_to` says that less will do."""

    network: TransAct
    user_space: str | None = None
    precision: torch.dtype = torch.float32

    @property
    def spec(self) -> FeatureSpec:
        return self.network.config.spec

    @property
    def heads(self) -> tuple[str, ...]:
        return self.network.config.actions

    @property
    def user_dim(self) -> int:
        return self.network.config.user_dim

    @property
    def content_dim(self) -> int:
        return self.network.content_dim

    @property
    def reads_history(self) -> bool:
        return self.network.config.lifelong is not None

    @cached_property
    def scorer(self) -> Scorer | LifelongScorer:
        if self.reads_history:
            return LifelongScorer(self.network)
        return Scorer(self.network, self.precision)

    def fitted_to(self, probes: Sequence[tuple[Request, Candidates]]) -> TransActRanker:
        """In bfloat16 where the CPU gains by it and a few real requests are scored alike; else as it is, as is
        one that reads histories."""
        if self.reads_history:
            return self
        return TransActRanker(self.network, self.user_space, fitting_scorer(self.network, probes).dtype)

    def score_heads(self, request: Request, candidates: Candidates) -> Floats:
        return self.scorer.score(request, candidates)

    def save(self, folder: Path) -> None:
        self.network.save(folder)
        (folder / CONFIG).write_text(json.dumps(_Header(user_space=self.user_space).model_dump(), indent=2))

    @classmethod
    def load(cls, folder: Path) -> TransActRanker:
        """The ranker saved in `folder`. Raises FileNotFoundError where there is none."""
        header = _Header.model_validate_json((folder / CONFIG).read_text())
        return cls(TransAct.load(folder), header.user_space)
