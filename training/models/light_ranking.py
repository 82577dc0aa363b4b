"""Light ranking: a few thousand candidates down to the few hundred that are worth a heavy ranker.

Boosted trees over what the funnel knows once the sources have answered: which of them brought a pin, how high
and with what score, the pin's counters, and whether its topics are the user's (Pinterest Engineering,
September 2020). No vector is read and no sequence is walked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from training.models import light_kernels
from training.models.interactions import AGE_CAP_DAYS
from training.models.light_kernels import compiled
from training.models.light_trees import FoldedTrees
from training.models.source_lists import Fetched

if TYPE_CHECKING:
    import xgboost

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

CONFIG, TREES = "light_ranker.json", "light_ranker.ubj"

SHORTLIST = 500
"""Candidates of a home feed that go on to heavy ranking, where nothing else is said (`docs/quality.md` has what
fewer would lose)."""

_SHOWN, _ACTED = PIN_SCALARS.index("impressions_30d"), PIN_SCALARS.index("positives_30d")
_PRIOR_SHOWN = 20.0
"""Impressions that a pin is given in advance, with one positive action among them: new pins are no outliers."""


class LightSpec(BaseModel):
    """Which features a light ranker reads, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[str, ...] = Field(min_length=1)
    """Sources with a score and a rank of their own; another source only counts as one more that brought a
    pin."""
    pin: tuple[str, ...] = (
        "impressions_7d",
        "positives_1d",
        "positives_7d",
        "negatives_7d",
        "positives_30d",
        "positive_users_30d",
        "boards_30d",
    )
    user: tuple[str, ...] = ()
    """The same for every candidate of a request: they order nothing by themselves."""

    @model_validator(mode="after")
    def _known(self) -> LightSpec:
        for group, names, known in (
            ("pin", self.pin, PIN_SCALARS),
            ("user", self.user, USER_SCALARS),
        ):
            unknown = [name for name in names if name not in known]
            if unknown:
                raise ValueError(f"unknown {group} features {unknown}; known: {', '.join(known)}")
        for group, names in (("sources", self.sources), ("pin", self.pin), ("user", self.user)):
            if len(set(names)) != len(names):
                raise ValueError(f"{group} named twice in {names}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Column names of the assembled row."""
        return _names(self)

    def assemble(
        self,
        fetched: Fetched,
        pin_scalars: Floats,
        created_at_ms: Ints,
        topic_followed: Floats,
        topic_recent: Floats,
        user_scalars: Floats,
        now_ms: int | Ints,
    ) -> Floats:
        """One C-contiguous float32 block, (n, len(names)); NaN means not there, which trees take as it is.

        `pin_scalars` is (n, len(PIN_SCALARS)), `created_at_ms` (n,) with 0 for unknown, both topic columns
        (n,) of `topic_match`; `user_scalars` (len(USER_SCALARS),) of one user or (n, ...); `now_ms` the
        request's time, or (n,). Raises ValueError naming the block whose shape does not belong.
        """
        n, sources = len(fetched), len(self.sources)
        one_user = np.ndim(user_scalars) == 1
        for name, block, shape in (
            ("scores", fetched.scores, (n, sources)),
            ("ranks", fetched.ranks, (n, sources)),
            ("brought", fetched.brought, (n,)),
            ("best_rank", fetched.best_rank, (n,)),
            ("fused", fetched.fused, (n,)),
            ("pin_scalars", pin_scalars, (n, len(PIN_SCALARS))),
            ("created_at_ms", created_at_ms, (n,)),
            ("topic_followed", topic_followed, (n,)),
            ("topic_recent", topic_recent, (n,)),
            ("user_scalars", user_scalars, (len(USER_SCALARS),) if one_user else (n, len(USER_SCALARS))),
            ("now_ms", now_ms, (n,) if np.ndim(now_ms) else ()),
        ):
            if np.shape(block) != shape:
                raise ValueError(f"{name} is {np.shape(block)}; {shape} is expected")
        floats = partial(compiled, kind=np.float32)
        out = light_kernels.assembled(
            floats(fetched.scores),
            floats(fetched.ranks),
            (floats(fetched.brought), floats(fetched.best_rank), floats(fetched.fused)),
            floats(pin_scalars),
            _pin_columns(self.pin),
            (_ACTED, _SHOWN, _PRIOR_SHOWN),
            compiled(created_at_ms, np.int64),
            compiled(np.atleast_1d(now_ms), np.int64),
            AGE_CAP_DAYS,
            floats(topic_followed),
            floats(topic_recent),
            len(self.names),
        )
        for place, name in enumerate(self.user, len(self.names) - len(self.user)):
            out[:, place] = user_scalars[..., USER_SCALARS.index(name)]
        return out


@cache
def _names(spec: LightSpec) -> tuple[str, ...]:
    return (
        *(f"score_{source}" for source in spec.sources),
        *(f"rank_{source}" for source in spec.sources),
        "brought",
        "best_rank",
        "fused",
        *(f"pin_{name}" for name in spec.pin),
        "pin_rate_30d",
        "pin_age_days",
        "topic_followed",
        "topic_recent",
        *(f"user_{name}" for name in spec.user),
    )


@cache
def _pin_columns(names: tuple[str, ...]) -> Ints:
    return np.array([PIN_SCALARS.index(name) for name in names], np.int64)


@dataclass(frozen=True)
class Asker:
    """What the light ranker reads of the user of one request."""

    scalars: Floats  # (len(USER_SCALARS),)
    followed_topics: Ints  # (f,) distinct
    acted_topics: Ints  # (m, PIN_TOPICS) of the pins of their positive actions, the last ones kept


def request_rows(
    spec: LightSpec,
    fetched: Fetched,
    pin_scalars: Floats,
    created_at_ms: Ints,
    topics: Ints,
    user: Asker,
    now_ms: int,
) -> Floats:
    """The rows of one request's candidates, `LightSpec.assemble`'s: training's and serving's alike.

    `pin_scalars` (n, len(PIN_SCALARS)), `created_at_ms` (n,) and `topics` (n, PIN_TOPICS) are of
    `fetched.pin_ids`, in their order.
    """
    acted, shares = recent_topics(user.acted_topics)
    return spec.assemble(
        fetched,
        pin_scalars,
        created_at_ms,
        topic_match(topics, user.followed_topics),
        topic_match(topics, acted, shares),
        user.scalars,
        now_ms,
    )


@dataclass(frozen=True)
class LightRanker:
    """Boosted trees (xgboost), scored on one thread."""

    spec: LightSpec
    booster: xgboost.Booster

    def score(self, features: Floats) -> Floats:
        """Chance of an action, comparable within a request, (n,) float32; `features` is
        `LightSpec.assemble`'s."""
        if len(features) == 0:
            return np.empty(0, np.float32)
        if self._folded is not None:
            return self._folded.chances(features)
        return self.booster.inplace_predict(np.ascontiguousarray(features, np.float32), validate_features=False)

    @cached_property
    def _folded(self) -> FoldedTrees | None:
        return FoldedTrees.of(self.booster)

    def save(self, folder: Path) -> None:
        """Write the model into `folder`; `load` reads it back."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(json.dumps(self.spec.model_dump(mode="json"), indent=2))
        self.booster.save_model(folder / TREES)

    @classmethod
    def load(cls, folder: Path) -> LightRanker:
        """The model saved in `folder`, ready to score. Raises FileNotFoundError where there is none."""
        import xgboost

        spec = LightSpec.model_validate_json((folder / CONFIG).read_text())
        booster = xgboost.Booster()
        booster.load_model(folder / TREES)
        booster.set_param({"nthread": 1})
        return cls(spec, booster)


def recent_topics(topics: Ints) -> tuple[Ints, Floats]:
    """Topics of a user's positive actions and the share of the actions that carry each: `topic_match`'s input.

    `topics` (m, PIN_TOPICS) are those of each action's pin, zero-padded.
    """
    wanted, counts = light_kernels.counted(compiled(topics, np.int64))
    return wanted, (counts / max(len(topics), 1)).astype(np.float32)


def topic_match(topics: Ints, wanted: Ints, weights: Floats | None = None) -> Floats:
    """Sum of the weights (1 each if left out) of each pin's topics that are wanted, (n,) float32.

    `topics` is (n, PIN_TOPICS), zero-padded and without repeats; `wanted` (m,) distinct topic ids: those the
    user follows, or those of their last positive actions with the share of actions as `weights`.
    """
    given = np.ones(len(wanted), np.float32) if weights is None else weights
    return light_kernels.matched(
        compiled(topics, np.int64),
        compiled(wanted, np.int64),
        compiled(given, np.float32),
    )
