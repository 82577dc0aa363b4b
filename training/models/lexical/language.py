"""Words of a language, so that none is taken for a slip because no pin says it."""

from __future__ import annotations

import json
from pathlib import Path

from training.models.lexical.words import words

FILE = "tokenizer.json"
SHORTEST = 4
"""Letters of a word that could be taken for a slip."""


def language_of(folder: Path | None) -> frozenset[str]:
    """The whole words that the WordPiece vocabulary of an encoder's folder has, as `words` gives them.

    Nothing without a folder, and of other vocabularies, whose pieces are no words.
    """
    if folder is None or not (folder / FILE).exists():
        return frozenset()
    model = json.loads((folder / FILE).read_text(encoding="utf-8"))["model"]
    if model.get("type") != "WordPiece":
        return frozenset()
    whole = (piece for piece in model["vocab"] if len(piece) >= SHORTEST and piece.isalpha())
    return frozenset(word for piece in whole for word in words(piece))
