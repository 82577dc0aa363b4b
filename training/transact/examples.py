"""Rows of a training set, each beside its user's actions strictly before it, as batches for the network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feature_repo.history import ShownLog
from feature_repo.sequence import SequenceLog
from training.data.labels import CLOCK_SKEW
from training.data.training_set import Block
from training.models.pinnability import FeatureSpec
from training.models.transact.config import Lifelong, TransActConfig
from training.models.transact.inputs import Rows
from training.models.transact.lifelong import quantise
from training.transact.choosing import NOTHING, choose
from validation.tables import PIN_ID, TIMESTAMP, USER_ID

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class PinTable:
    """Pins' content vectors."""

    ids: Ints  # (p,) ascending
    content: Floats  # (p, P) unit rows, zero for a pin without

    def places(self, pin_ids: Ints) -> Ints:
        """1 + the row of each pin, 0 where it is not in the table."""
        if len(self.ids) == 0:
            return np.zeros(len(pin_ids), np.int64)
        at = np.minimum(np.searchsorted(self.ids, pin_ids), len(self.ids) - 1)
        return np.where(self.ids[at] == pin_ids, at + 1, 0)


@dataclass(frozen=True)
class UserVectors:
    """Long-term vectors, PinnerFormer's for one, night after night.

    They must not know the rows they are joined to, in two ways. A row reads the newest vector made at or
    before its time, from actions before then. And the weights that made it must not have learned from the
    row's label: give vectors of a network whose `learned_until` lies before the first row.
    """

    ids: Ints  # (u,) ascending; a user stands once a night on which their vector changed
    as_of_ms: Ints  # (u,) when it was made, Unix ms, ascending within a user
    vectors: Floats  # (u, U) unit rows

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    def of(self, user_ids: Ints, times_ms: Ints) -> Floats:
        """(n, U): each user's newest vector of no later than `times_ms` (n,), zero where there is none."""
        if len(self.ids) == 0:
            return np.zeros((len(user_ids), self.dim), np.float32)
        nights, night = np.unique(self.as_of_ms, return_inverse=True)
        users, user = np.unique(self.ids, return_inverse=True)
        at = np.minimum(np.searchsorted(users, user_ids), len(users) - 1)
        until = np.searchsorted(nights, times_ms, side="right")  # nights there had been
        keys, asked = user * (len(nights) + 1) + night, at * (len(nights) + 1) + until
        row = np.searchsorted(keys, asked) - 1
        there = (users[at] == user_ids) & (row >= 0)
        row = np.maximum(row, 0)
        there &= self.ids[row] == user_ids
        return np.where(there[:, None], self.vectors[row], np.float32(0))


@dataclass(frozen=True)
class Known:
    """What rows are joined with."""

    log: SequenceLog
    """Everyone's actions; each row reads those before it."""
    pins: PinTable
    """In the space that the rows' features compare."""
    users: UserVectors | None = None
    user_space: str | None = None
    """The space of `users`, `pinnerformer@3`."""
    shown: ShownLog | None = None
    """What everyone was shown, for a network that selects from histories."""


@dataclass(frozen=True)
class Examples:
    """Everything a training run reads. Row i of the parallel arrays is row i of the block."""

    log: SequenceLog
    log_places: Ints  # (actions,) places of the log's pins in `pins`, 0 for pins without
    pins: PinTable
    user_ids: Ints  # (n,)
    candidates: Ints  # (n,) places
    request_ms: Ints  # (n,) until when, exclusive, a row may look
    features: Floats  # (n, F)
    labels: NDArray[np.int8]  # (n, A) multi-hot, in the vocabulary's order
    weights: Floats  # (n,)
    targets: Floats | None = None  # (n, H) what each head is to answer, in [0, 1]; None: its label
    users: UserVectors | None = None
    shown: ShownLog | None = None
    as_of_ms: Ints | None = None  # (n,) when each row's history was cut; None: at the last midnight
    chosen: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None
    """What `choose` made of every row, where it was made beforehand."""

    @classmethod
    def of(
        cls,
        block: Block,
        log: SequenceLog,
        pins: PinTable,
        spec: FeatureSpec,
        users: UserVectors | None = None,
        *,
        serving: bool = False,
        shown: ShownLog | None = None,
        as_of_ms: Ints | None = None,
    ) -> Examples:
        """From a block of a training set. Unknown pins have no vector, unknown users no actions.

        Positions are those that pins were shown at, or with `serving` the one that all are scored at.

        Raises ValueError for content that is not finite or ids that do not ascend.
        """
        if not np.isfinite(pins.content).all():
            raise ValueError("content vectors hold numbers that are not finite")
        if len(pins.ids) > 1 and not (np.diff(pins.ids) > 0).all():
            raise ValueError("pin ids must ascend without repeats; sort the table by id")
        times = block.keys[TIMESTAMP].to_numpy(dtype="datetime64[ms]").astype(np.int64)
        return cls(
            log=log,
            log_places=pins.places(log.pin_ids),
            pins=pins,
            user_ids=block.keys[USER_ID].to_numpy(dtype=np.int64),
            candidates=pins.places(block.keys[PIN_ID].to_numpy(dtype=np.int64)),
            request_ms=known_until(block, log, times),
            features=spec.assemble(
                block.user_scalars,
                block.pin_scalars,
                block.interactions,
                None if serving else block.position,
                block.query,
            ),
            labels=block.labels,
            weights=block.weight,
            users=users,
            shown=shown,
            as_of_ms=as_of_ms,
        )

    def __len__(self) -> int:
        return len(self.candidates)

    def take(self, rows: Ints) -> Examples:
        """Those rows alone, beside the same actions and pins."""
        names = ["user_ids", "candidates", "request_ms", "features", "labels", "weights"]
        names += [name for name in ("targets", "as_of_ms") if getattr(self, name) is not None]
        return replace(self, chosen=None, **{name: getattr(self, name)[rows] for name in names})

    def chosen_by(self, settings: Lifelong) -> Examples:
        """The same with every row's selection made, for whoever reads rows more than once or in any order."""
        return replace(self, chosen=choose(self, np.arange(len(self)), settings))

    def batch(self, rows: Ints, config: TransActConfig, rng: np.random.Generator | None = None) -> Rows:
        """Network input of `rows`. `rng` draws the next-action loss's negatives, which are left out without."""
        if config.lifelong is not None:
            places, codes, surfaces, times, ranks = self._selected(rows, config)
        else:
            places, codes, surfaces, times = self._newest(rows, config.sequence.length)
            ranks = None
        negatives = None
        if config.next_action is not None and rng is not None:
            negatives = self._shown(rows, config.next_action.negatives, rng)
        parts = [places, self.candidates[rows], *([] if negatives is None else [negatives])]
        distinct, inverse = np.unique(np.concatenate([[0], *(p.ravel() for p in parts)]), return_inverse=True)
        content = np.zeros((len(distinct), self.pins.content.shape[1]), np.float32)
        content[1:] = self.pins.content[distinct[1:] - 1]
        cuts = np.cumsum([1, *(p.size for p in parts)])
        local = [
            torch.from_numpy(inverse[a:b].astype(np.int64).reshape(p.shape))
            for a, b, p in zip(cuts, cuts[1:], parts, strict=False)
        ]
        users = np.zeros((len(rows), config.user_dim), np.float32)
        if config.user_dim:
            if self.users is None or self.users.dim != config.user_dim:
                raise ValueError(
                    f"the network reads user vectors of width {config.user_dim}; give the examples such"
                )
            users = self.users.of(self.user_ids[rows], self.request_ms[rows])
        return Rows(
            content=torch.from_numpy(content),
            pins=local[0],
            actions=torch.from_numpy(codes),
            surfaces=torch.from_numpy(surfaces),
            times_ms=torch.from_numpy(times),
            request_ms=torch.from_numpy(self.request_ms[rows]),
            candidates=local[1],
            features=torch.from_numpy(self.features[rows]),
            users=torch.from_numpy(users),
            recent=None if ranks is None else torch.from_numpy(ranks),
            negatives=None if negatives is None else local[2],
        )

    def answers(self, rows: Ints) -> tuple[Tensor, Tensor, Tensor | None]:
        """Labels (B, A), row weights (B,) and targets (B, H), None where labels are."""
        targets = None if self.targets is None else torch.from_numpy(self.targets[rows])
        return torch.from_numpy(self.labels[rows]), torch.from_numpy(self.weights[rows]), targets

    def _newest(self, rows: Ints, limit: int) -> tuple[Ints, Ints, Ints, Ints]:
        """(B, L) places, codes, surfaces and times of each row's last actions, newest first, 0 behind them."""
        starts, ends = self.log.slice(self.user_ids[rows], self.request_ms[rows], limit)
        wide = int((ends - starts).max(initial=0))
        at = ends[:, None] - 1 - np.arange(wide)
        return self._of_log(at, at >= starts[:, None])

    def _of_log(self, at: Ints, there: NDArray[np.bool_]) -> tuple[Ints, Ints, Ints, Ints]:
        log = self.log
        if len(log) == 0:
            return tuple(np.zeros(at.shape, np.int64) for _ in range(4))  # type: ignore[return-value]
        at = np.clip(at, 0, len(log) - 1)
        arrays = (self.log_places, log.actions, log.surfaces, log.timestamps_ms)
        return tuple(np.where(there, a[at].astype(np.int64), 0) for a in arrays)  # type: ignore[return-value]

    def _selected(self, rows: Ints, config: TransActConfig) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        """What V2 meets each candidate with; an impression without action has the code of unknown kinds."""
        assert config.lifelong is not None
        if self.chosen is None:
            sources, ranks = choose(self, rows, config.lifelong)
        else:
            sources, ranks = (made[rows] for made in self.chosen)
        acted = sources >= 0
        places, codes, surfaces, times = self._of_log(sources.astype(np.int64), acted)
        if self.shown is not None and len(self.shown):
            impressions = sources < NOTHING
            at = np.where(impressions, NOTHING - 1 - sources, 0)
            places = np.where(impressions, self.shown_places[at], places)
            codes = np.where(impressions, config.sequence.actions + 1, codes)
            times = np.where(impressions, self.shown.times_ms[at], times)
        return places, codes, surfaces, times, ranks.astype(np.int64)

    def _shown(self, rows: Ints, count: int, rng: np.random.Generator) -> Ints:
        """(B, count) places of pins that the row's user was shown before it and did not act on, 0 for none."""
        starts, ends = self._impressions_before(rows)
        drawn = starts[:, None] + (rng.random((len(rows), count)) * (ends - starts)[:, None]).astype(np.int64)
        if len(self._unanswered) == 0:
            return np.zeros((len(rows), count), np.int64)
        places = self.candidates[self._unanswered[np.minimum(drawn, len(self._unanswered) - 1)]]
        return np.where((ends > starts)[:, None], places, 0)

    def _impressions_before(self, rows: Ints) -> tuple[Ints, Ints]:
        """Slices of `_unanswered`: each row's user's, strictly before the row."""
        users, times = self._unanswered_keys
        starts = np.searchsorted(users, self.user_ids[rows], side="left")
        stops = np.searchsorted(users, self.user_ids[rows], side="right")
        ends = np.array(
            [
                a + np.searchsorted(times[a:b], t)
                for a, b, t in zip(starts, stops, self.request_ms[rows], strict=True)
            ],
            np.int64,
        )
        return starts, ends

    @cached_property
    def _unanswered(self) -> Ints:
        """Rows that no action answered, by user and time."""
        none = np.flatnonzero(~self.labels.any(axis=1))
        return none[np.lexsort((self.request_ms[none], self.user_ids[none]))]

    @cached_property
    def _unanswered_keys(self) -> tuple[Ints, Ints]:
        return self.user_ids[self._unanswered], self.request_ms[self._unanswered]

    @cached_property
    def shown_places(self) -> Ints:
        """(impressions,) places of the pins shown in `pins`."""
        return self.pins.places(np.zeros(0, np.int64) if self.shown is None else self.shown.pin_ids)

    @cached_property
    def bytes(self) -> NDArray[np.int8]:
        """Content vectors a byte a number by place, (p + 1, P)."""
        return quantise(
            np.concatenate([np.zeros((1, self.pins.content.shape[1]), np.float32), self.pins.content])
        )


def known_until(block: Block, log: SequenceLog, times_ms: Ints) -> Ints:
    """Until when, exclusive, each row may look, (n,): its time, or that of an answer dated before it.

    A client's clock may date the answer to an impression up to CLOCK_SKEW before it, and the sequence would
    hold what it is to foretell. A row with a label therefore ends at its user's first action on its pin in that
    time.
    """
    skew_ms = int(CLOCK_SKEW.total_seconds() * 1000)
    known = times_ms.copy()
    rows = np.flatnonzero(block.labels.any(axis=1))
    users = block.keys[USER_ID].to_numpy(dtype=np.int64)[rows]
    pins = block.keys[PIN_ID].to_numpy(dtype=np.int64)[rows]
    starts, ends = log.slice(users, times_ms[rows], len(log))
    for row, pin, start, end in zip(rows, pins, starts, ends, strict=True):
        start += np.searchsorted(log.timestamps_ms[start:end], times_ms[row] - skew_ms)
        own = np.flatnonzero(log.pin_ids[start:end] == pin)
        if len(own):
            known[row] = log.timestamps_ms[start + own[0]]
    return known
