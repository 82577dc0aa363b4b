"""The word of a vocabulary that a mistyped one most likely is: candidates by trigrams, judged by edits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SHORTEST, LONGEST = 4, 32
"""Letters of a word that is worth correcting: shorter ones have too many neighbours."""
TWO_EDITS_FROM = 8
FIRST_LETTER_BELOW = 6
"""Words of fewer letters keep their first one: it is seldom mistyped, and cake is no take."""
COMMON = 0.2
"""Share of pins above which a word says too little to be what somebody meant to type."""
JUDGED = 64
"""Candidates compared letter by letter, those with most trigrams in common."""

LANGUAGE = "spelling_language.json"
GRAMS, OFFSETS, POSTINGS = "spelling_grams.npy", "spelling_offsets.npy", "spelling_words.npy"


@dataclass(frozen=True)
class Spelling:
    """Which words of a vocabulary hold each trigram. A word is its place in the vocabulary."""

    vocabulary: Sequence[str]
    frequencies: NDArray[np.int64]
    """Pins that hold each word, (words,)."""
    pins: int
    """Pins in all."""
    grams: NDArray[np.str_]
    """Trigrams, ascending."""
    offsets: NDArray[np.int64]
    """Where each trigram's words begin in `postings`, one more than there are trigrams."""
    postings: NDArray[np.int32]
    language: frozenset[str] = frozenset()
    """Words that are no slips, whether the vocabulary has them or not."""

    @classmethod
    def of(
        cls,
        vocabulary: Sequence[str],
        frequencies: NDArray[np.int64],
        pins: int,
        language: frozenset[str] = frozenset(),
    ) -> Spelling:
        """Index the words that a mistyped one can be read as."""
        pairs = [
            (gram, place)
            for place, word in enumerate(vocabulary)
            if _worth(word, slack=2)
            for gram in trigrams(word)
        ]
        grams = np.array([gram for gram, _ in pairs], "U3")
        places = np.array([place for _, place in pairs], np.int32)
        order = np.argsort(grams, kind="stable")
        distinct, starts = np.unique(grams[order], return_index=True)
        return cls(
            vocabulary, frequencies, pins, distinct, np.append(starts, len(grams)), places[order], language
        )

    def nearest(self, word: str) -> tuple[int, bool] | None:
        """The place of the word fewest edits away, one or, from 8 letters on, two, and whether it alone is so
        near; None without any, and for a word of the language.

        Short words keep their first letter, and none is read as a word that is `COMMON`. Equal ones by trigrams
        in common (Dice), then by how many pins hold them, then by the alphabet.
        """
        if not _worth(word) or word in self.language:
            return None
        most = 2 if len(word) >= TWO_EDITS_FROM else 1
        judged = sorted(
            (away, -common, -int(self.frequencies[place]), self.vocabulary[place], place)
            for place, common in self._candidates(word)
            if self._likely(word, place, most) and (away := edits(word, self.vocabulary[place])) <= most
        )
        return (judged[0][-1], sum(one[0] == judged[0][0] for one in judged) == 1) if judged else None

    def _likely(self, word: str, place: int, most: int) -> bool:
        read = self.vocabulary[place]
        return (
            abs(len(read) - len(word)) <= most
            and (len(word) >= FIRST_LETTER_BELOW or read[0] == word[0])
            and self.frequencies[place] <= COMMON * self.pins
        )

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        """Trigrams of each word, (words,); 0 of those that nothing is read as."""
        return np.bincount(self.postings, minlength=len(self.vocabulary))

    def _candidates(self, word: str) -> list[tuple[int, float]]:
        """At most `JUDGED` (place, Dice of the trigrams), best first."""
        asked = sorted(trigrams(word))
        at = np.searchsorted(self.grams, asked)
        lists = [
            self.postings[self.offsets[i] : self.offsets[i + 1]]
            for i, gram in zip(at, asked, strict=True)
            if i < len(self.grams) and self.grams[i] == gram
        ]
        if not lists:
            return []
        places, shared = np.unique(np.concatenate(lists), return_counts=True)
        dice = 2 * shared / (len(asked) + self._sizes[places])
        best = np.argsort(-dice, kind="stable")[:JUDGED]
        return list(zip(places[best].tolist(), dice[best].tolist(), strict=True))

    def save(self, folder: Path) -> None:
        for name, array in ((GRAMS, self.grams), (OFFSETS, self.offsets), (POSTINGS, self.postings)):
            np.save(folder / name, array, allow_pickle=False)
        (folder / LANGUAGE).write_text(json.dumps(sorted(self.language), ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(
        cls, folder: Path, vocabulary: Sequence[str], frequencies: NDArray[np.int64], pins: int
    ) -> Spelling:
        """Memory-mapped, for the vocabulary it was saved with; one from before a language was kept has none."""
        arrays = (np.load(folder / name, mmap_mode="r") for name in (GRAMS, OFFSETS, POSTINGS))
        kept = folder / LANGUAGE
        language = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else ()
        return cls(vocabulary, frequencies, pins, *arrays, language=frozenset(language))


def trigrams(word: str) -> set[str]:
    """Every three letters in a row, the ends marked twice: a slip within a short word leaves only its ends."""
    marked = f"^^{word}$$"
    return {marked[i : i + 3] for i in range(len(marked) - 2)}


def edits(one: str, other: str) -> int:
    """Letters inserted, left out, changed, or swapped with their neighbour (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        previous, before = before, row
        row = [i]
        for j, b in enumerate(other, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                best = min(best, previous[j - 2] + 1)
            row.append(best)
    return row[-1]


def _worth(word: str, slack: int = 0) -> bool:
    return SHORTEST - slack <= len(word) <= LONGEST + slack and word.isalpha()
