"""How a text becomes words: any script, any case, with or without accents, singular or plural."""

from __future__ import annotations

import re
import unicodedata

EMOJI = "\u2600-\u27bf\U0001f300-\U0001faff"
_WORD = re.compile(rf"[^\W_]+|[{EMOJI}]")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]{2,}")
"""Runs of scripts that put no space between words: Thai, Lao, kana, Han."""
_SIBILANT = ("sses", "shes", "ches", "xes", "zzes")


def words(text: str) -> list[str]:
    """The words of `text` in order: lower case, accents folded, plurals as singulars; an emoji is a word.

    Scripts without spaces are cut into overlapping pairs of characters. Controls and punctuation part words.
    """
    found: list[str] = []
    for word in _WORD.findall(_folded(text)):
        pairs = _UNSPACED.fullmatch(word)
        found += [word[i : i + 2] for i in range(len(word) - 1)] if pairs else [singular(word)]
    return found


def singular(word: str) -> str:
    """The S-stemmer (Harman, How effective is suffixing?, JASIS 42(1), 1991), with -es after sibilants."""
    if len(word) <= 3 or not word.endswith("s"):
        return word
    if word.endswith("ies"):
        return word if word.endswith(("eies", "aies")) else word[:-3] + "y"
    if word.endswith(_SIBILANT):
        return word[:-2]
    return word if word.endswith(("us", "ss", "aes", "ees", "oes")) else word[:-1]


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    parted = unicodedata.normalize("NFKD", text)
    kept = "".join(c for c in parted if unicodedata.category(c) not in ("Mn", "Mc", "Me", "Cf"))
    return unicodedata.normalize("NFC", kept.casefold())
