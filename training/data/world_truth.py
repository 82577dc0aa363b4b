"""What was planted in a demo world, read back: for tests and simulations, never for training or serving."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from training.data.world_behaviour import chances, examination, match, open_probability, strength
from training.data.world_config import WorldConfig
from training.data.world_topics import TopicTree


def write_laws(folder: Path, config: WorldConfig, tree: TopicTree) -> None:
    """Keep the world's configuration, laws included, beside its truth tables."""
    (folder / "world.json").write_text(config.model_dump_json(indent=2) + "\n")
    names = {"roots": tree.roots, "leaves": tree.leaves}
    (folder / "topics.json").write_text(json.dumps(names, indent=2) + "\n")


@dataclass(frozen=True)
class WorldTruth:
    """The truth of one world, from its `truth/` folder."""

    folder: Path

    @cached_property
    def config(self) -> WorldConfig:
        return WorldConfig.model_validate_json((self.folder / "world.json").read_text())

    @cached_property
    def tree(self) -> TopicTree:
        return TopicTree.of(self.config.leaves_per_root)

    @cached_property
    def interests(self) -> pd.DataFrame:
        """user_id, topic_id, style, weight, start, end: one row an interest and its time, end exclusive."""
        return pd.read_parquet(self.folder / "interests.parquet")

    @cached_property
    def pins(self) -> pd.DataFrame:
        """topic_id, second_topic_id (0 for none), mix, style, quality, thing; row i is pin id i + 1."""
        return pd.read_parquet(self.folder / "pins.parquet").set_index("pin_id")

    @cached_property
    def users(self) -> pd.DataFrame:
        """bias (logits), rate (sessions a day), disliked (topic ids, at the end), by user_id; row i is user
        id i + 1."""
        return pd.read_parquet(self.folder / "users.parquet").set_index("user_id")

    @cached_property
    def queries(self) -> pd.DataFrame:
        """kind (`world_queries.KINDS`), topic_id, thing, style (-1 for none), held_back, first_day, by text:
        how each query that was ever typed is worded, and what it asks for."""
        return pd.read_parquet(self.folder / "queries.parquet").set_index("query")

    @cached_property
    def requests(self) -> pd.Series:
        """topic_id of the interest that each request's session follows, by request_id."""
        return pd.read_parquet(self.folder / "requests.parquet").set_index("request_id")["topic_id"]

    def interests_at(self, when: datetime) -> pd.DataFrame:
        """The interests held at `when` (UTC). Raises ValueError outside the world's days."""
        if not self.config.start_time <= when <= self.config.end_time:
            raise ValueError(f"{when} is outside the world, {self.config.start_time} to {self.config.end_time}")
        rows = self.interests
        last = when == self.config.end_time
        return rows[(rows["start"] <= when) & ((rows["end"] >= when) if last else (rows["end"] > when))]

    def topics_of(self, user_id: int, when: datetime) -> set[int]:
        """Topic ids of the user's interests at `when`."""
        rows = self.interests_at(when)
        return set(rows.loc[rows["user_id"] == user_id, "topic_id"].tolist())

    def affinity(
        self, user_ids: np.ndarray, pin_ids: np.ndarray, when: datetime, intents: np.ndarray | None = None
    ) -> np.ndarray:
        """Affinity float32 (n,) in [0, 1] of user i for pin i at `when`, in a session that follows the topic
        `intents` i (of an interest held then), or none. Raises ValueError for an intent of no interest."""
        leaf, style, weight = self._slots(user_ids, when)
        slot = None
        if intents is not None:
            held = leaf == self.tree.leaf_of(np.asarray(intents))[:, None]
            if not held.any(axis=1).all():
                raise ValueError(
                    f"{(~held.any(axis=1)).sum()} intents are no interests of their users at {when}"
                )
            slot = held.argmax(axis=1)
        pins = self.pins.loc[pin_ids]
        second = self.tree.leaf_of(pins["second_topic_id"].to_numpy())
        matches = match(
            leaf,
            style,
            self.tree.leaf_of(pins["topic_id"].to_numpy()),
            second,
            pins["mix"].to_numpy(),
            pins["style"].to_numpy(),
            self.tree.leaf_root,
            self.config.behaviour,
        )
        return (matches * strength(weight, slot, self.config.behaviour)).max(axis=1)

    def engagement(
        self, user_ids: np.ndarray, pin_ids: np.ndarray, positions: np.ndarray, when: datetime
    ) -> np.ndarray:
        """Chance float64 (n,) that user i opens pin i shown at 0-based position i at `when`."""
        law = self.config.behaviour
        quality = self.pins.loc[pin_ids, "quality"].to_numpy()
        bias = self.users.loc[user_ids, "bias"].to_numpy()
        opens = open_probability(self.affinity(user_ids, pin_ids, when), quality, bias, law)
        return examination(np.asarray(positions), law) * opens

    def chances(
        self, user_ids: np.ndarray, pin_ids: np.ndarray, request_ids: np.ndarray, when: datetime
    ) -> dict[str, np.ndarray]:
        """Chance float64 (n,) of each answer of user i to pin i of a request of the day that begins at `when`,
        once the pin is looked at. Topics disliked are those of the world's end."""
        pins, users = self.pins.loc[pin_ids], self.users.loc[user_ids]
        unwanted = zip(pins["topic_id"].tolist(), users["disliked"].tolist(), strict=True)
        return chances(
            self.affinity(user_ids, pin_ids, when, self.requests.loc[request_ids].to_numpy()),
            pins["quality"].to_numpy(),
            users["bias"].to_numpy(),
            self.config.behaviour,
            np.array([topic in own for topic, own in unwanted], bool),
        )

    def _slots(self, user_ids: np.ndarray, when: datetime) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """leaf, style, weight (n, K) of the users' interests at `when`, -1 and 0 in empty slots."""
        rows = self.interests_at(when)
        unique, inverse = np.unique(np.asarray(user_ids), return_inverse=True)
        rows = rows[rows["user_id"].isin(unique)]
        place = np.searchsorted(unique, rows["user_id"].to_numpy())
        slot = rows.groupby("user_id").cumcount().to_numpy()
        shape = (len(unique), self.config.max_interests)
        leaf, style = np.full(shape, -1), np.full(shape, -1)
        weight = np.zeros(shape, dtype=np.float32)
        leaf[place, slot] = self.tree.leaf_of(rows["topic_id"].to_numpy())
        style[place, slot] = rows["style"].to_numpy()
        weight[place, slot] = rows["weight"].to_numpy()
        return leaf[inverse], style[inverse], weight[inverse]
