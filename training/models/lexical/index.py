"""BM25 over a catalogue's texts (Robertson and Zaragoza 2009, as in Lucene), scored ahead by bm25s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.models.lexical.spelling import Spelling
from training.models.lexical.words import words
from validation.queries import LOGGED_QUERY

if TYPE_CHECKING:
    from bm25s import BM25

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

K1, B = 1.2, 0.75
"""Lucene's defaults; titles are short, so neither matters much."""

MOST_WORDS = 32
"""Distinct words of a query that are searched for; the rest is cut off."""
MOST_MENDED = 8
"""Unknown words of a query that are looked up among those like them; the others stay unknown."""
REMEMBERED = 4096
"""Queries whose reading is kept, of those no longer than impressions log."""

PIN_IDS, PEAKS = "pin_ids.npy", "peaks.npy"


@dataclass(frozen=True)
class Reading:
    """What a query is searched as."""

    words: tuple[str, ...]
    """Distinct words of the vocabulary, in the query's order."""
    corrected: tuple[tuple[str, str], ...] = ()
    """(as typed, as read) of words that neither the catalogue nor the language knows."""
    unsure: tuple[str, ...] = ()
    """Those of `corrected`, as typed, to which another word of the catalogue is as near."""
    unknown: tuple[str, ...] = ()
    """Words that no pin says, and that are no slip: of the language, or near to nothing."""


class LexicalIndex:
    """Searches a catalogue by words. Make it with `fit`, keep it with `save` and `load`."""

    def __init__(self, pin_ids: Ints, bm25: BM25, peaks: Floats, spelling: Spelling) -> None:
        self.pin_ids = pin_ids
        """(n,) ascending."""
        self._bm25, self._peaks, self._spelling = bm25, peaks, spelling
        self._reading = lru_cache(maxsize=REMEMBERED)(self._read)

    def __len__(self) -> int:
        return len(self.pin_ids)

    @property
    def words(self) -> int:
        """Distinct words of the catalogue."""
        return len(self._peaks)

    def commonest(self, n: int) -> list[str]:
        """The `n` words that most pins hold, most first; fewer where the catalogue has fewer."""
        order = np.argsort(-np.diff(self._bm25.scores["indptr"]), kind="stable")
        return [self._spelling.vocabulary[place] for place in order[:n]]

    @classmethod
    def fit(cls, pin_ids: Ints, texts: Sequence[str], language: frozenset[str] = frozenset()) -> LexicalIndex:
        """Index one text a pin, (n,) each, in any order. Words of `language` are read as no others.

        Raises ValueError where a pin comes twice, and where no text holds a word.
        """
        from bm25s import BM25

        ids = np.asarray(pin_ids, np.int64)
        if len(ids) != len(texts) or len(np.unique(ids)) != len(ids):
            raise ValueError(f"{len(ids)} pins, {len(np.unique(ids))} distinct, for {len(texts)} texts")
        order = np.argsort(ids)
        held = [words(texts[place]) for place in order]
        vocabulary = sorted({word for text in held for word in text})
        if not vocabulary:
            raise ValueError("no pin has a word in its title, description or topics")
        places = {word: place for place, word in enumerate(vocabulary)}
        bm25 = BM25(k1=K1, b=B, method="lucene")
        coded = [[places[word] for word in text] for text in held]
        bm25.index((coded, places), create_empty_token=False, show_progress=False)
        offsets = bm25.scores["indptr"]
        peaks = np.maximum.reduceat(bm25.scores["data"], offsets[:-1])
        return cls(ids[order], bm25, peaks, Spelling.of(vocabulary, np.diff(offsets), len(ids), language))

    def read(self, query: str) -> Reading:
        """The words that `query` is searched as: known ones, and the nearest known of those mistyped."""
        return self._reading(query) if len(query) <= LOGGED_QUERY else self._read(query)

    def search(self, query: str, n: int) -> tuple[Ints, Floats]:
        """At most `n` pins that hold a word of the query, best first, and their BM25, (<= n,) each.

        Equal scores stand by pin id. Nothing for a query without a known word.
        """
        tokens = self._tokens(query)
        if not tokens or n < 1:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scores = self._bm25.get_scores_from_ids(tokens)
        found = np.flatnonzero(scores > 0)
        if len(found) > n:
            least = np.partition(scores[found], -n)[-n]
            found = found[scores[found] >= least]
        best = found[np.argsort(-scores[found], kind="stable")[:n]]
        return np.asarray(self.pin_ids[best]), scores[best]

    def scores(self, query: str, pin_ids: Ints) -> Floats:
        """BM25 of chosen pins as a share of what the query's words could reach, (n,) float32 in [0, 1].

        The most that a word can bring is the best that any pin has of it, so shares of different queries
        compare. Unknown pins, and queries without a known word, are 0.
        """
        asked = np.asarray(pin_ids, np.int64)
        at = np.searchsorted(self.pin_ids, asked)
        at[at == len(self.pin_ids)] = 0
        known = self.pin_ids[at] == asked
        tokens = self._tokens(query)
        total = np.zeros(len(asked), np.float32)
        for token in tokens:
            total += self._of_word(token, at)
        return np.where(known, total / max(self._peaks[tokens].sum(), 1e-9), 0).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write arrays and JSON into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._bm25.save(folder, show_progress=False)
        np.save(folder / PIN_IDS, self.pin_ids, allow_pickle=False)
        np.save(folder / PEAKS, self._peaks, allow_pickle=False)
        self._spelling.save(folder)

    @classmethod
    def load(cls, folder: Path) -> LexicalIndex:
        """The index saved in `folder`, its arrays memory-mapped.

        Raises FileNotFoundError where there is none, ValueError where its files are of different indexes.
        """
        from bm25s import BM25

        bm25 = BM25.load(folder, mmap=True, show_progress=False)
        pin_ids, peaks = (np.load(folder / name, mmap_mode="r") for name in (PIN_IDS, PEAKS))
        if len(pin_ids) != bm25.scores["num_docs"] or len(peaks) != len(bm25.vocab_dict):
            raise ValueError(
                f"{folder}: {len(pin_ids)} pins and {len(peaks)} words beside an index of"
                f" {bm25.scores['num_docs']} and {len(bm25.vocab_dict)}; train lexical again"
            )
        vocabulary = list(bm25.vocab_dict)
        frequencies = np.diff(bm25.scores["indptr"])
        return cls(pin_ids, bm25, peaks, Spelling.load(folder, vocabulary, frequencies, len(pin_ids)))

    def _tokens(self, query: str) -> list[int]:
        return [self._bm25.vocab_dict[word] for word in self.read(query).words]

    def _read(self, query: str) -> Reading:
        known, corrected, unsure, unknown = [], [], [], []
        lookups = iter(range(MOST_MENDED))
        for word in list(dict.fromkeys(words(query)))[:MOST_WORDS]:
            if word in self._bm25.vocab_dict:
                known.append(word)
            elif next(lookups, None) is not None and (near := self._spelling.nearest(word)) is not None:
                place, alone = near
                known.append(self._spelling.vocabulary[place])
                corrected.append((word, self._spelling.vocabulary[place]))
                unsure += [] if alone else [word]
            else:
                unknown.append(word)
        return Reading(tuple(dict.fromkeys(known)), tuple(corrected), tuple(unsure), tuple(unknown))

    def _of_word(self, token: int, rows: Ints) -> Floats:
        """What one word brings each of `rows`, (n,): its pins stand in ascending order."""
        start, end = self._bm25.scores["indptr"][token : token + 2]
        holders = self._bm25.scores["indices"][start:end]
        at = np.minimum(np.searchsorted(holders, rows), len(holders) - 1)
        return np.where(holders[at] == rows, self._bm25.scores["data"][start:end][at], 0)
