"""What planted users type when they search, and how well each pin answers it.

A search is for one thing of the session's topic, half of the time in the session's style. It is worded as the
catalogue words it, or otherwise: with other words for the thing or the topic, in another order, mistyped. Some
wordings are held back until the world's last days: no earlier day has them.

Pages and answers are drawn before the queries and do not depend on them, so that a world is the same however
its people talk. The thing is drawn given the page's answers, each of the topic's things in proportion to `pull`
** (opened pins that show it): Bayes' rule for people who open what they search for `pull` times as readily.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.data.world_config import WorldConfig
from training.data.world_pins import Pins
from training.data.world_policy import Page
from training.data.world_topics import STYLE_WORDS, TopicTree
from training.data.world_users import Users
from training.data.world_visits import Visits
from training.data.world_wordings import STYLE_WORDINGS, WORDINGS
from validation.tables import QUERY_JUDGEMENTS

LITERAL = "literal"
KINDS = (LITERAL, "synonym", "hypernym", "reordered", "mistyped")

RIGHT, ON_TOPIC = 2.0, 1.0
"""Relevance of a pin of the topic, thing and style that a query names, and of any other pin of its topic."""

TRUE_QUERY_SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("kind", pa.string()),
        ("topic_id", pa.int64()),
        ("thing", pa.int8()),
        ("style", pa.int8()),
        ("held_back", pa.bool_()),
        ("first_day", pa.date32()),
    ]
)
"""`thing` is -1 where a query names its topic only, `style` where it names none; `held_back` are wordings that
only the last days have."""

_STYLE_WORDINGS = tuple(tuple(w.strip() for w in words.split(",")) for words in STYLE_WORDINGS.values())


@dataclass(frozen=True)
class Query:
    """One text and what it asks for."""

    text: str
    kind: str
    leaf: int
    thing: int
    """Place among the leaf's things, -1 for the topic as a whole."""
    style: int
    """-1 for any."""
    held_back: bool


@dataclass(frozen=True)
class Wordings:
    """Other words for the things and topics of one world, and which of them wait for its last days."""

    synonyms: tuple[tuple[str, ...], ...]
    hypernyms: tuple[tuple[str, ...], ...]
    late_synonyms: np.ndarray
    """bool (L, things)."""
    late_hypernyms: np.ndarray
    """bool (L, hypernyms)."""

    @classmethod
    def of(cls, config: WorldConfig, tree: TopicTree) -> Wordings:
        rng = np.random.default_rng([config.seed, 18])
        lists = [[tuple(w.strip() for w in half.split(",")) for half in WORDINGS[leaf]] for leaf in tree.leaves]
        synonyms, hypernyms = (tuple(both[i] for both in lists) for i in (0, 1))
        return cls(
            synonyms=synonyms,
            hypernyms=hypernyms,
            late_synonyms=_held_back(len(lists), len(synonyms[0]), config, rng),
            late_hypernyms=_held_back(len(lists), len(hypernyms[0]), config, rng),
        )


def _held_back(leaves: int, words: int, config: WorldConfig, rng: np.random.Generator) -> np.ndarray:
    """The same number of each leaf's words, drawn; never all of them."""
    count = min(round(config.queries.held_back * words), words - 1)
    return np.argsort(rng.random((leaves, words)), axis=1) < count


class Searchers:
    """Words the searches of a world, day by day, and remembers every text."""

    def __init__(self, config: WorldConfig, tree: TopicTree) -> None:
        self.config, self.tree = config, tree
        self.wordings = Wordings.of(config, tree)
        self.asked: dict[str, tuple[Query, int, int]] = {}
        """By text: the query, its first and its last day."""

    def ask(
        self, visits: Visits, page: Page, opened: np.ndarray, users: Users, pins: Pins, day: int, block: int
    ) -> np.ndarray:
        """The text of every request, object (R,), None on the home feed; `opened` is bool (I,) by page row."""
        rng = np.random.default_rng([self.config.seed, 19, day, block])
        rows = np.flatnonzero(visits.search)
        leaf = users.leaf[visits.who[rows], visits.intent[rows]]
        style = users.style[visits.who[rows], visits.intent[rows]]
        thing = self._things(visits, page, opened, pins, rows, leaf, rng)
        kind = self._kinds(len(rows), rng)
        texts = np.full(len(visits.who), None, dtype=object)
        for row, k, *need in zip(
            rows.tolist(), kind.tolist(), leaf.tolist(), thing.tolist(), style.tolist(), strict=True
        ):
            styled = int(visits.word[row]) % 2 == 0
            query = self._worded(KINDS[k], need[0], need[1], need[2] if styled else -1, day, rng)
            former = self.asked.get(query.text)
            self.asked[query.text] = (former[0], former[1], day) if former else (query, day, day)
            texts[row] = query.text
        return texts

    def _things(
        self,
        visits: Visits,
        page: Page,
        opened: np.ndarray,
        pins: Pins,
        rows: np.ndarray,
        leaf: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        place = np.full(len(visits.who), -1)
        place[rows] = np.arange(len(rows))
        weight = np.ones((len(rows), len(self.tree.words[0])))
        at = np.flatnonzero(opened & (place[page.request] >= 0))
        row, pin = place[page.request[at]], page.pin[at]
        same = pins.leaf[pin] == leaf[row]
        np.multiply.at(weight, (row[same], pins.thing[pin[same]]), self.config.queries.pull)
        steps = np.cumsum(weight, axis=1)
        return (rng.random(len(rows))[:, None] * steps[:, -1:] >= steps).sum(axis=1)

    def _kinds(self, n: int, rng: np.random.Generator) -> np.ndarray:
        law = self.config.queries
        shares = np.array([law.synonym, law.hypernym, law.reordered, law.mistyped])
        return rng.choice(len(KINDS), n, p=[1 - shares.sum(), *shares])

    def _worded(
        self, kind: str, leaf: int, thing: int, style: int, day: int, rng: np.random.Generator
    ) -> Query:
        late = day >= self.config.queries.held_back_until * self.config.days
        words = self.wordings
        if kind == "synonym" and words.late_synonyms[leaf, thing] and not late:
            kind = "hypernym"
        adjective = "" if style < 0 else _one_of(STYLE_WORDS[style], rng)
        if style >= 0 and kind in ("synonym", "hypernym") and rng.random() < 0.5:
            adjective = _one_of(_STYLE_WORDINGS[style], rng)
        name, held = self.tree.words[leaf][thing], False
        if kind == "synonym":
            name, held = words.synonyms[leaf][thing], bool(words.late_synonyms[leaf, thing])
        if kind == "hypernym":
            allowed = np.flatnonzero(~words.late_hypernyms[leaf] | late)
            pick = int(allowed[rng.integers(len(allowed))])
            name, held, thing = words.hypernyms[leaf][pick], bool(words.late_hypernyms[leaf, pick]), -1
        text = f"{adjective} {name}".strip()
        if kind == "reordered":
            text = reordered(text)
        if kind == "mistyped":
            text = mistyped(text, rng)
        return Query(text, kind, leaf, thing, style, held)

    def truth(self) -> pa.Table:
        """Every text that was ever typed, in the order in which it first was."""
        start = self.config.start_time.date()
        return pa.Table.from_pylist(
            [_true_row(q, first, start, self.tree) for q, first, _ in self.asked.values()],
            schema=TRUE_QUERY_SCHEMA,
        )

    def judged(self) -> list[Query]:
        """At most `judged` different queries of the last days, drawn uniformly."""
        law = self.config.queries
        late = [q for q, _, last in self.asked.values() if last >= law.held_back_until * self.config.days]
        rng = np.random.default_rng([self.config.seed, 20])
        return [late[i] for i in np.sort(rng.permutation(len(late))[: law.judged])]

    def write(self, tables: Path, truth: Path, pins: Pins) -> None:
        """Write `query_judgements` and, apart, what every query asked for."""
        pq.write_table(self.truth(), truth / "queries.parquet", compression="zstd")
        with pq.ParquetWriter(
            tables / "query_judgements.parquet", QUERY_JUDGEMENTS.schema, compression="zstd"
        ) as out:
            for rows in judgements(self.judged(), pins):
                out.write_table(rows)


def judgements(queries: list[Query], pins: Pins) -> Iterator[pa.Table]:
    """Graded pins of each query: RIGHT, ON_TOPIC; pins of other topics are left out, which reads as 0.

    A pin whose second topic is the query's is on topic at most: its title shows a thing of its first.
    """
    for query in queries:
        first = pins.leaf == query.leaf
        at = np.flatnonzero(first | (pins.second == query.leaf))
        right = first[at]
        if query.thing >= 0:
            right &= pins.thing[at] == query.thing
        if query.style >= 0:
            right &= pins.style[at] == query.style
        columns = [pa.array([query.text] * len(at)), at + 1, np.where(right, RIGHT, ON_TOPIC)]
        yield pa.table(
            [pa.array(c).cast(f.type) for c, f in zip(columns, QUERY_JUDGEMENTS.schema, strict=True)],
            schema=QUERY_JUDGEMENTS.schema,
        )


def reordered(text: str) -> str:
    """The words from last to first; a single word is asked for in a phrase."""
    words = text.split()
    return " ".join(reversed(words)) if len(words) > 1 else f"something with {text}"


def mistyped(text: str, rng: np.random.Generator) -> str:
    """One slip inside the longest word: a letter left out, doubled, or swapped with the next."""
    words = text.split()
    longest = max(range(len(words)), key=lambda i: len(words[i]))
    word = words[longest]
    at, slip = int(rng.integers(1, max(len(word) - 1, 2))), int(rng.integers(3))
    if slip == 2 and word[at : at + 1] == word[at + 1 : at + 2]:
        slip = 0
    tail = (word[at + 1 :], word[at : at + 1] + word[at:], word[at + 1 : at + 2] + word[at] + word[at + 2 :])
    words[longest] = word[:at] + tail[slip]
    return " ".join(words)


def _one_of(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _true_row(query: Query, first: int, start: date, tree: TopicTree) -> dict[str, object]:
    return {
        "query": query.text,
        "kind": query.kind,
        "topic_id": int(tree.topic_id(np.array(query.leaf))),
        "thing": query.thing,
        "style": query.style,
        "held_back": query.held_back,
        "first_day": start + timedelta(days=first),
    }
