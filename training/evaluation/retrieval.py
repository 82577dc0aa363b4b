"""Did retrieval find what users did next? The next-days protocol of PinnerSage (KDD 2020, section 5).

Everything before a cut is known; the positives of the days after it are held out. A method names k pins for
every user that has held-out positives; recall and hit rate say how many it found, over all users and over the
two slices where personalisation usually breaks: users with little history, and pins of topics few people visit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from training.evaluation.metrics import hit_rate_at_k, ndcg_at_k, recall_at_k
from validation.lake import Lake
from validation.tables import Polarity

NEW_USER_ACTIONS = 5
"""A user with fewer positive actions before the cut is new."""

TAIL_SHARE = 0.5
"""Tail topics are the least visited ones that together hold this share of all topics."""

EVALUATED_USERS = 2_000
"""Users that are measured where more are held out."""

OVERALL, NEW_USERS, TAIL_TOPICS = "all", "new_users", "tail_topics"
PINS, FINDS, ERROR = "pins", "finds", "recall_error"

HOLDOUT_DAYS = (1, 2, 4, 7)
HOLDOUT_USERS = 300
"""The last day is held out, or as many of these days as it takes until so many users are in them."""


class NothingHeldOut(ValueError):
    """The days after the cut hold no positive that could have been found."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out positives by user: user `users[i]` has pins `pins[offsets[i]:offsets[i + 1]]`, distinct."""

    cut: datetime
    """Methods may use what happened before this UTC time, nothing later."""
    end: datetime
    users: np.ndarray
    """int64 (U,), ascending."""
    offsets: np.ndarray
    """int64 (U + 1,)."""
    pins: np.ndarray
    """int64 (H,)."""
    tail: np.ndarray
    """bool (H,): the pin's first topic is a tail topic (or it has none)."""
    history: np.ndarray
    """int64 (U,): positive actions before the cut."""

    def __len__(self) -> int:
        return len(self.users)

    @property
    def owner(self) -> np.ndarray:
        """int64 (H,): row of the user of each held-out pin."""
        return np.repeat(np.arange(len(self.users)), np.diff(self.offsets))

    def sample(self, users: int, seed: int) -> HeldOut:
        """At most `users` of the users, at random."""
        if users >= len(self):
            return self
        return self.take(np.sort(np.random.default_rng(seed).choice(len(self), users, replace=False)))

    def take(self, rows: np.ndarray) -> HeldOut:
        """The users of `rows` (ascending) alone."""
        kept = np.isin(self.owner, rows)
        counts = np.diff(self.offsets)[rows]
        return HeldOut(
            cut=self.cut,
            end=self.end,
            users=self.users[rows],
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            pins=self.pins[kept],
            tail=self.tail[kept],
            history=self.history[rows],
        )


def hold_out(lake: Lake, cut: datetime, end: datetime, *, novel: bool = True) -> HeldOut:
    """The positives of [cut, end) on pins that existed before `cut`.

    With `novel` (the default) a pin the user had acted on positively before the cut is left out: finding it
    again is no discovery. Raises NothingHeldOut naming the interval when nothing is left.
    """
    codes = list(lake.contract().vocabulary.codes(Polarity.POSITIVE))
    columns = ["user_id", "pin_id", "action"]
    before = _positives(lake.read("actions", columns, end=cut), codes)
    after = _positives(lake.read("actions", columns, start=cut, end=end), codes).drop_duplicates()
    pins = lake.read("pins", ["pin_id", "created_at", "topics"])
    after = after[after["pin_id"].isin(pins.loc[pins["created_at"] < cut, "pin_id"])]
    if novel:
        key = ["user_id", "pin_id"]
        known = pd.MultiIndex.from_frame(before[key].drop_duplicates())
        after = after[~pd.MultiIndex.from_frame(after[key]).isin(known)]
    if after.empty:
        mend = "hold out more days" if len(before) else "the data begins later: hold out fewer days"
        raise NothingHeldOut(
            f"no positive action between {cut} and {end} is on a pin older than {cut} and new to its user; "
            f"{mend}"
        )
    after = after.sort_values(["user_id", "pin_id"], kind="stable")
    users, counts = np.unique(after["user_id"].to_numpy(), return_counts=True)
    history = before["user_id"].value_counts().reindex(users, fill_value=0).to_numpy(dtype=np.int64)
    return HeldOut(
        cut=cut,
        end=end,
        users=users,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        pins=after["pin_id"].to_numpy(),
        tail=_tail(after["pin_id"].to_numpy(), before["pin_id"].to_numpy(), pins),
        history=history,
    )


def hold_out_last(
    lake: Lake, end: datetime, days: int | None = None, *, since: datetime | None = None
) -> HeldOut:
    """New positives of the `days` before `end`; by default of the last day, or of up to a week.

    Of more days where one holds fewer than HOLDOUT_USERS users: data rarely ends at midnight, and a last day of
    a few hours would decide by noise. What happened before `since` is never held out: weights may have been
    learned from it. Raises NothingHeldOut where even all of the days hold nothing.
    """
    found, nothing = None, NothingHeldOut(f"nothing is held out before {end}")
    for tried in HOLDOUT_DAYS if days is None else (days,):
        cut = end - timedelta(days=tried)
        cut = cut if since is None else max(cut, since)
        try:
            found = hold_out(lake, cut, end)
        except NothingHeldOut as error:
            nothing = error
        if cut == since or (found is not None and len(found) >= HOLDOUT_USERS):
            break
    if found is None:
        raise nothing
    return found


def _positives(actions: pd.DataFrame, codes: list[int]) -> pd.DataFrame:
    return actions.loc[actions["action"].isin(codes), ["user_id", "pin_id"]]


def _tail(held: np.ndarray, visited: np.ndarray, pins: pd.DataFrame) -> np.ndarray:
    """Which of the held pins lie in a tail topic by visits before the cut."""
    topic = pins.set_index("pin_id")["topics"].map(lambda t: t[0] if t is not None and len(t) else 0)
    visits = topic.reindex(visited).dropna().value_counts()
    known = np.unique(topic[topic > 0].to_numpy())
    counts = visits.reindex(known, fill_value=0).sort_values(kind="stable")
    tail = set(counts.index[: int(len(counts) * TAIL_SHARE)].tolist())
    return np.array([t in tail or t == 0 for t in topic.reindex(held).tolist()], dtype=bool)


def popularity(lake: Lake, cut: datetime, k: int, *, days: float = 30.0) -> np.ndarray:
    """The k pins with most positive actions in the `days` before `cut`, best first, int64 (k,), zero-padded.

    The baseline every retrieval must beat: one list for everybody.
    """
    codes = list(lake.contract().vocabulary.codes(Polarity.POSITIVE))
    rows = lake.read("actions", ["pin_id", "action"], start=cut - pd.Timedelta(days=days), end=cut)
    pins, counts = np.unique(rows.loc[rows["action"].isin(codes), "pin_id"].to_numpy(), return_counts=True)
    best = pins[np.lexsort((pins, -counts))][:k]
    return np.pad(best, (0, k - len(best))).astype(np.int64)


def evaluate(
    recommended: np.ndarray, held: HeldOut, *, ks: tuple[int, ...] = (10, 50, 100)
) -> dict[str, float]:
    """Recall, hit rate and NDCG at each k, over all users and by slice.

    Parameters
    ----------
    recommended : int64 (U, m) pin ids for `held.users` in order, best first, zero-padded, m >= max(ks);
        or (m,) for one list for everybody.

    Returns
    -------
    `recall@k`, `hit_rate@k`, `ndcg@k` as means over users, `recall_error@k`, the standard error of that mean,
    how many `users` and `pins` were held out, and `finds@k`, how many of those pins were found; the same
    names with `/new_users` and `/tail_topics` appended for the slices. A slice without users is left out. In
    the slice `tail_topics` only held-out pins of tail topics count.

    Raises ValueError for a shape that does not fit or a pin that is recommended twice to one user.
    """
    out: dict[str, float] = {}
    of_users = user_metrics(recommended, held, ks=ks)
    for name, values in of_users.items():
        out[name] = float(values.sum() if name.partition("/")[0] == PINS else values.mean())
        if name.partition("/")[0] == PINS:
            out[name.replace(PINS, "users", 1)] = float(len(values))
            for k in ks:
                recall = of_users[name.replace(PINS, f"recall@{k}", 1)]
                out[name.replace(PINS, f"{FINDS}@{k}", 1)] = float(np.rint(recall * values).sum())
                error = recall.std(ddof=1) / np.sqrt(len(recall)) if len(recall) > 1 else 0.0
                out[name.replace(PINS, f"{ERROR}@{k}", 1)] = float(error)
    return out


def user_metrics(
    recommended: np.ndarray, held: HeldOut, *, ks: tuple[int, ...] = (10, 50, 100)
) -> dict[str, np.ndarray]:
    """The values that `evaluate` averages: by its names, float64 (users of the slice,) in `held`'s order.

    `pins` (and `pins/<slice>`) are how many held-out pins of each user count.
    """
    hits, place = _hits(np.atleast_2d(recommended), held)
    owner = held.owner
    everyone = np.ones(len(held), dtype=bool)
    out: dict[str, np.ndarray] = {}
    slices = (
        (OVERALL, everyone, np.ones(len(owner), dtype=bool)),
        (NEW_USERS, held.history < NEW_USER_ACTIONS, np.ones(len(owner), dtype=bool)),
        (TAIL_TOPICS, everyone, held.tail),
    )
    for name, users, pins in slices:
        count = np.bincount(owner[pins], minlength=len(held))
        chosen = users & (count > 0)
        if not chosen.any():
            continue
        found = hits.copy()
        found[owner[~pins & (place >= 0)], place[~pins & (place >= 0)]] = False
        suffix = "" if name == OVERALL else f"/{name}"
        for k in ks:
            for metric, measure in (("recall", recall_at_k), ("hit_rate", hit_rate_at_k), ("ndcg", ndcg_at_k)):
                out[f"{metric}@{k}{suffix}"] = measure(found[chosen], count[chosen], k)
        out[f"{PINS}{suffix}"] = count[chosen].astype(float)
    return out


def _hits(recommended: np.ndarray, held: HeldOut) -> tuple[np.ndarray, np.ndarray]:
    """bool (U, m): which ranks are held-out positives; int64 (H,): rank of each held-out pin, -1 if absent."""
    if recommended.shape[0] == 1 and len(held) != 1:
        recommended = np.broadcast_to(recommended, (len(held), recommended.shape[1]))
    if recommended.shape[0] != len(held):
        raise ValueError(f"recommended has {recommended.shape[0]} rows for {len(held)} users")
    ordered = np.sort(recommended, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] > 0)).any(axis=1)
    if twice.any():
        raise ValueError(f"user {held.users[twice.argmax()]} was recommended one pin twice; drop repeats first")
    u, m = recommended.shape
    pool = np.unique(np.concatenate([recommended.ravel(), held.pins]))
    size = len(pool)
    shown = (np.arange(u)[:, None] * size + np.searchsorted(pool, recommended)).ravel()
    wanted = held.owner * size + np.searchsorted(pool, held.pins)
    order = np.argsort(shown, kind="stable")
    at = np.minimum(np.searchsorted(shown, wanted, sorter=order), len(shown) - 1)
    flat = order[at]
    found = (shown[flat] == wanted) & (held.pins > 0)
    hits = np.zeros(u * m, dtype=bool)
    hits[flat[found]] = True
    return hits.reshape(u, m), np.where(found, flat % m, -1)


def lift(metrics: Mapping[str, float], baseline: Mapping[str, float]) -> dict[str, float]:
    """Each mean over the baseline's less 1, for those both have and the baseline has above zero."""
    return {
        name: metrics[name] / baseline[name] - 1
        for name in metrics
        if "@" in name and not name.startswith((FINDS, ERROR)) and baseline.get(name, 0.0) > 0
    }
