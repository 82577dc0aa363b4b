"""Pixie as a model version: the graph's artifact, and how a user, a pin or a board becomes a query on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.models.pin_board_graph import PinBoardGraph
from training.models.pin_board_overlay import GraphView
from training.models.pixie.config import PixieConfig
from training.models.pixie.query import Bias, Query, bias_for, by_code, history_query
from validation.tables import Polarity, Vocabulary

GRAPH, SETTINGS = "graph", "pixie.json"
"""The version's files: the graph artifact's folder and `PixieSettings`."""

ContextName = Literal["board", "request", "session", "user"]


class PixieSettings(BaseModel):
    """How a released graph is walked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    walk: PixieConfig = PixieConfig()
    context: ContextName = "board"
    """What the graph's edges lead to: what a fresh save has to name to become one."""
    session_gap_minutes: int = Field(30, ge=1)
    """Sessions of fresh saves, where the context is the session."""
    half_life_days: float = Field(7.0, gt=0)
    """Age at which an action counts half."""
    neutral_weight: float = Field(0.0, ge=0)
    """Weight of a neutral action (a closeup); a positive one weighs 1, a negative one bars its pin."""
    action_weights: dict[str, float] = Field(default_factory=dict)
    """Weights of single actions by name, in the place of their polarity's."""
    language_bias: bool = False
    """Walk among boards of the user's language where the graph has languages."""

    def weights(self, vocabulary: Vocabulary) -> NDArray[np.float64]:
        """(CODES,) weight of each action code of a data set."""
        by_polarity = {Polarity.POSITIVE: 1.0, Polarity.NEUTRAL: self.neutral_weight, Polarity.NEGATIVE: -1.0}
        named = {name: by_polarity[polarity] for name, polarity in vocabulary.actions.items()}
        return by_code(
            {vocabulary.code(name): self.action_weights.get(name, weight) for name, weight in named.items()}
        )

    def query(
        self,
        pin_ids: NDArray[np.int64],
        actions: NDArray[np.integer],
        times_ms: NDArray[np.int64],
        now_ms: int,
        weights: NDArray[np.float64],
    ) -> Query:
        """A user's actions as query pins; see `history_query`."""
        return history_query(pin_ids, actions, times_ms, now_ms, weights, half_life_days=self.half_life_days)

    def bias(self, graph: PinBoardGraph | GraphView, language: str | None) -> Bias | None:
        """The bias of a user's walk; None without a language that the graph knows."""
        if not self.language_bias or language is None:
            return None
        return bias_for(graph, language=language)


@dataclass(frozen=True)
class ReleasedPixie:
    """What one version of the model `pixie` holds."""

    settings: PixieSettings
    graph: PinBoardGraph

    def save(self, folder: Path) -> None:
        """Write settings and graph into `folder`, where neither may be yet. Raises GraphError."""
        folder.mkdir(parents=True, exist_ok=True)
        self.graph.save(folder / GRAPH)
        (folder / SETTINGS).write_text(self.settings.model_dump_json(indent=2))

    @classmethod
    def load(cls, folder: Path) -> ReleasedPixie:
        """Map the version saved in `folder` read-only. Raises GraphError, FileNotFoundError."""
        settings = PixieSettings.model_validate_json((folder / SETTINGS).read_text())
        return cls(settings, PinBoardGraph.load(folder / GRAPH))
