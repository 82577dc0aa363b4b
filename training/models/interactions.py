"""Features of a user meeting a pin, computed at request time from the user's sequence.

One compiled kernel serves training and serving. Offline it is given the catalogue and every request of a
day (`interactions`); online one user's sequence and the candidates (`request_interactions`). Each value is
reduced in an order that does not depend on how many rows are asked for, so both give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from feature_repo.schema import PIN_TOPICS, SEQUENCE_LENGTH
from validation.tables import Polarity, Vocabulary

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

RECENT = 10
"""Positive actions that count as recent."""

HOURS_CAP = 720.0
"""Hours since something that never happened, or happened longer ago."""

AGE_CAP_DAYS = 3650.0
"""Age of a pin in days, at most; also that of a pin whose creation time is unknown (0)."""

INTERACTION_FEATURES: tuple[str, ...] = (
    "cos_positive_max",
    "cos_positive_mean",
    "cos_positive_top3",
    "cos_recent_max",
    "cos_recent_mean",
    "cos_day_max",
    "cos_decayed",
    "cos_negative_max",
    "topic_positive_share",
    "topic_recent_share",
    "topic_negative_share",
    "topic_followed",
    "hours_since_topic",
    "pin_positive_count",
    "pin_negative_count",
    "hours_since_pin",
    "sequence_positives",
    "sequence_negatives",
    "hours_since_action",
    "pin_age_days",
    "hour_sin",
    "hour_cos",
    "weekend",
    "has_vector",
)
"""Float32 columns, in order.

cos_positive_max/mean/top3  cosine of the pin to the user's positive actions: best, mean, mean of best three
cos_recent_max/mean         the same over the ten newest positive actions
cos_day_max                 the same over positive actions of the last 24 hours
cos_decayed                 mean over positive actions weighted by exp(-age / 1 day); 0 when none is near
cos_negative_max            best cosine to negative actions; 0 without any
topic_positive_share        share of positive actions whose pin shares a topic with this pin
topic_recent_share          the same over the ten newest
topic_negative_share        share of negative actions whose pin shares a topic
topic_followed              topics of the pin that the user follows
hours_since_topic           hours since the newest positive action on a pin that shares a topic, at most 720
pin_positive_count          positive actions on this very pin in the sequence; pin_negative_count likewise
hours_since_pin             hours since the newest action on this very pin, at most 720
sequence_positives          positive actions in the sequence; sequence_negatives likewise
hours_since_action          hours since the newest action, at most 720
pin_age_days                request time minus creation time, at most 3650
hour_sin, hour_cos          UTC hour of day on the circle
weekend                     1 on a UTC Saturday or Sunday
has_vector                  1 where the pin has a vector in the space
"""


@dataclass(frozen=True)
class Pins:
    """Pins by row; parallel arrays. Vectors are unit rows, or zero where the space has none."""

    ids: Ints  # (p,)
    vectors: Floats  # (p, d)
    topics: Ints  # (p, PIN_TOPICS) zero-padded
    created_at_ms: Ints  # (p,) Unix ms, 0 where unknown


@dataclass(frozen=True)
class ActionRows:
    """Actions of many users, each user's in ascending time; parallel arrays."""

    pin_rows: Ints  # (a,) row in `Pins`, -1 where the pin is not there
    actions: NDArray[np.int32]  # (a,) codes
    times_ms: Ints  # (a,)


@dataclass(frozen=True)
class RequestRows:
    """One row a (request, candidate pin); parallel arrays."""

    pin_rows: Ints  # (n,) row of the candidate in `Pins`, -1 where the pin is not there
    pin_ids: Ints  # (n,)
    times_ms: Ints  # (n,) request time
    starts: Ints  # (n,) slice of `ActionRows` that is the user's sequence before the request
    ends: Ints  # (n,)
    followed_starts: Ints  # (n,) slice of the followed-topics array
    followed_ends: Ints  # (n,)


def polarity_signs(vocabulary: Vocabulary) -> NDArray[np.int8]:
    """Sign of each action code, (codes + 1,) int8: 1 positive, -1 negative, 0 neutral or padding."""
    signs = {Polarity.POSITIVE: 1, Polarity.NEGATIVE: -1, Polarity.NEUTRAL: 0}
    return np.array([0, *(signs[p] for p in vocabulary.actions.values())], np.int8)


def interactions(
    pins: Pins, log: ActionRows, rows: RequestRows, followed_topics: Ints, signs: NDArray[np.int8]
) -> Floats:
    """Features of every row of `rows`, (n, len(INTERACTION_FEATURES)) float32.

    A sequence is the last SEQUENCE_LENGTH actions of `log[start:end]`; the caller sees to it that they lie
    strictly before the request. `followed_topics` is the flat array that followed_starts/ends slice; `signs`
    comes from `polarity_signs`. An action on a pin without a row counts as an action, never as a similarity.
    """
    _check(pins)
    out = np.empty((len(rows.pin_rows), len(INTERACTION_FEATURES)), np.float32)
    _kernel(
        pins.ids,
        pins.vectors,
        pins.topics,
        pins.created_at_ms,
        log.pin_rows,
        log.actions,
        log.times_ms,
        rows.pin_rows,
        rows.pin_ids,
        rows.times_ms,
        rows.starts,
        rows.ends,
        rows.followed_starts,
        rows.followed_ends,
        followed_topics,
        signs,
        out,
    )
    return out


def request_interactions(
    history: Pins,
    actions: NDArray[np.int32],
    times_ms: Ints,
    candidates: Pins,
    followed_topics: Ints,
    request_ms: int,
    signs: NDArray[np.int8],
    known: NDArray[np.bool_] | None = None,
) -> Floats:
    """Features of one user's `candidates` at `request_ms`, (n, len(INTERACTION_FEATURES)) float32.

    `history` holds the pins of the user's sequence, NEWEST FIRST and one row an action (repeats repeat), with
    `actions` and `times_ms` beside it. Actions at or after `request_ms` are left out. `known` is False where
    the catalogue has no such pin, as a row of -1 in the log: the action counts, and is like nothing.
    """
    before = np.flatnonzero(times_ms < request_ms)[::-1]  # oldest first, as the kernel walks the log
    m, n = len(before), len(candidates.ids)
    pins = Pins(
        np.concatenate([history.ids[before], candidates.ids]),
        np.concatenate([history.vectors[before], candidates.vectors]),
        np.concatenate([history.topics[before], candidates.topics]),
        np.concatenate([history.created_at_ms[before], candidates.created_at_ms]),
    )
    places = np.arange(m) if known is None else np.where(known[before], np.arange(m), -1)
    log = ActionRows(
        places, np.ascontiguousarray(actions[before], np.int32), np.ascontiguousarray(times_ms[before])
    )
    rows = RequestRows(
        pin_rows=np.arange(m, m + n),
        pin_ids=np.ascontiguousarray(candidates.ids),
        times_ms=np.full(n, request_ms, np.int64),
        starts=np.zeros(n, np.int64),
        ends=np.full(n, m, np.int64),
        followed_starts=np.zeros(n, np.int64),
        followed_ends=np.full(n, len(followed_topics), np.int64),
    )
    return interactions(pins, log, rows, np.ascontiguousarray(followed_topics, np.int64), signs)


def _check(pins: Pins) -> None:
    """Raise ValueError naming the array whose shape does not belong."""
    count = len(pins.ids)
    for name in ("vectors", "topics", "created_at_ms"):
        if len(getattr(pins, name)) != count:
            raise ValueError(f"pins.{name} has {len(getattr(pins, name))} rows for {count} pins")
    if pins.topics.shape[1:] != (PIN_TOPICS,):
        raise ValueError(f"pins.topics is {pins.topics.shape}; ({count}, {PIN_TOPICS}) is expected")


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _dot(a: Floats, b: Floats) -> np.float32:
    total = np.float32(0.0)
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@numba.njit(cache=True, nogil=True)
def _shares_topic(a: Ints, b: Ints) -> bool:
    for i in range(a.shape[0]):
        if a[i] != 0:
            for j in range(b.shape[0]):
                if a[i] == b[j]:
                    return True
    return False


@numba.njit(cache=True, nogil=True)
def _kernel(
    ids: Ints,
    vectors: Floats,
    topics: Ints,
    created_at_ms: Ints,
    log_pins: Ints,
    log_actions: NDArray[np.int32],
    log_times: Ints,
    pin_rows: Ints,
    pin_ids: Ints,
    times: Ints,
    starts: Ints,
    ends: Ints,
    followed_starts: Ints,
    followed_ends: Ints,
    followed: Ints,
    signs: NDArray[np.int8],
    out: Floats,
) -> None:
    no_topics = np.zeros(PIN_TOPICS, np.int64)
    for row in range(pin_rows.shape[0]):
        pin, now, end = pin_rows[row], times[row], ends[row]
        start = max(starts[row], end - SEQUENCE_LENGTH)
        pin_topics = topics[pin] if pin >= 0 else no_topics
        has_vector = False
        if pin >= 0:
            for i in range(vectors.shape[1]):
                if vectors[pin, i] != 0:
                    has_vector = True
                    break
        first = second = third = np.float32(-1.0)
        total = recent_total = decayed_total = decayed_weight = 0.0
        recent_max = day_max = negative_max = np.float32(-1.0)
        compared = recent_compared = day_compared = negative_compared = 0
        positives = negatives = recent = 0
        topic_positives = topic_recent = topic_negatives = 0
        pin_positives = pin_negatives = 0
        since_topic = since_pin = since_action = HOURS_CAP
        for p in range(end - 1, start - 1, -1):
            hours = (now - log_times[p]) / 3_600_000.0
            sign = signs[log_actions[p]]
            other = log_pins[p]
            if p == end - 1:
                since_action = min(hours, HOURS_CAP)
            same_pin = other >= 0 and ids[other] == pin_ids[row]
            if same_pin:
                since_pin = min(since_pin, hours)
            if sign == 0:
                continue
            shared = other >= 0 and _shares_topic(pin_topics, topics[other])
            cosine = np.float32(0.0)
            comparable = has_vector and other >= 0
            if comparable:
                cosine = _dot(vectors[pin], vectors[other])
            if sign < 0:
                negatives += 1
                pin_negatives += same_pin
                topic_negatives += shared
                if comparable:
                    negative_compared += 1
                    negative_max = max(negative_max, cosine)
                continue
            positives += 1
            pin_positives += same_pin
            newest = positives <= RECENT
            recent += newest
            if shared:
                topic_positives += 1
                topic_recent += newest
                since_topic = min(since_topic, hours)
            if not comparable:
                continue
            compared += 1
            total += cosine
            if cosine > first:
                first, second, third = cosine, first, second
            elif cosine > second:
                second, third = cosine, second
            elif cosine > third:
                third = cosine
            weight = np.exp(-hours / 24.0)
            decayed_total += weight * cosine
            decayed_weight += weight
            if newest:
                recent_compared += 1
                recent_total += cosine
                recent_max = max(recent_max, cosine)
            if hours <= 24.0:
                day_compared += 1
                day_max = max(day_max, cosine)
        top3 = 0.0
        if compared >= 3:
            top3 = (first + second + third) / 3.0
        elif compared == 2:
            top3 = (first + second) / 2.0
        elif compared == 1:
            top3 = first
        followed_count = 0
        for i in range(PIN_TOPICS):
            if pin_topics[i] != 0:
                for f in range(followed_starts[row], followed_ends[row]):
                    if followed[f] == pin_topics[i]:
                        followed_count += 1
                        break
        age = AGE_CAP_DAYS
        if pin >= 0 and created_at_ms[pin] > 0:
            age = min(max((now - created_at_ms[pin]) / 86_400_000.0, 0.0), AGE_CAP_DAYS)
        angle = 2.0 * np.pi * (now % 86_400_000) / 86_400_000.0
        weekday = (now // 86_400_000 + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
        o = out[row]
        o[0] = first if compared else 0.0
        o[1] = total / compared if compared else 0.0
        o[2] = top3
        o[3] = recent_max if recent_compared else 0.0
        o[4] = recent_total / recent_compared if recent_compared else 0.0
        o[5] = day_max if day_compared else 0.0
        o[6] = decayed_total / decayed_weight if decayed_weight > 1e-6 else 0.0
        o[7] = negative_max if negative_compared else 0.0
        o[8] = topic_positives / positives if positives else 0.0
        o[9] = topic_recent / recent if recent else 0.0
        o[10] = topic_negatives / negatives if negatives else 0.0
        o[11] = followed_count
        o[12] = since_topic
        o[13] = pin_positives
        o[14] = pin_negatives
        o[15] = since_pin
        o[16] = positives
        o[17] = negatives
        o[18] = since_action
        o[19] = age
        o[20] = np.sin(angle)
        o[21] = np.cos(angle)
        o[22] = 1.0 if weekday >= 5 else 0.0
        o[23] = 1.0 if has_vector else 0.0
