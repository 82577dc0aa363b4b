"""Queries as token ids: a `tokenizers` model from one JSON file, batched by length so none is padded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ints = NDArray[np.int64]

FILE = "tokenizer.json"
UNKNOWN = ("[UNK]", "<unk>")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class QueryTokens:
    """Text to token ids, cut to `longest`; any string is taken."""

    def __init__(self, tokenizer: Tokenizer, longest: int) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(longest)
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path, longest: int) -> QueryTokens:
        """From the folder's `tokenizer.json`."""
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_file(str(folder / FILE)), longest)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(str(folder / FILE))

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, [CLS] and [SEP] included."""
        # a lone surrogate, which JSON can carry, is no text that a tokenizer takes
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        return [found.ids for found in self.tokenizer.encode_batch_fast(clean)]

    def known(self, text: str) -> float:
        """Share of the text's letters that the vocabulary has as whole words or as pieces of two and more.

        What is spelled letter by letter, as words of a script that the encoder never learned are, and what it
        has no piece for, it does not know. 0 where there is nothing to read.
        """
        clean = text.encode("utf-8", "replace").decode()
        found = self.tokenizer.encode(clean, add_special_tokens=False)
        unknown = {self.tokenizer.token_to_id(name) for name in UNKNOWN}
        pieces = Counter(found.word_ids)
        sizes = [end - start for start, end in found.offsets]
        read = [
            size if token not in unknown and (size > 1 or pieces[word] == 1) else 0
            for token, word, size in zip(found.ids, found.word_ids, sizes, strict=True)
        ]
        return sum(read) / max(sum(sizes), 1)


def by_length(ids: Sequence[Sequence[int]], most: int) -> Iterator[tuple[Ints, Ints]]:
    """(rows, token ids (b, t)) of texts of equal length, at most `most` a batch, shortest first."""
    lengths = np.array([len(row) for row in ids])
    for length in np.unique(lengths):
        of_length = np.flatnonzero(lengths == length)
        for start in range(0, len(of_length), most):
            rows = of_length[start : start + most]
            yield rows, np.array([ids[row] for row in rows], np.int64)


def train_wordpiece(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A lower-casing WordPiece tokenizer, as BERT's, of about `vocabulary` pieces learned from `texts`.

    Equal texts give equal pieces, which the trainer of `tokenizers` does not promise.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    normal, parts = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts = Counter(word for text in texts for word, _ in parts.pre_tokenize_str(normal.normalize_str(text)))
    pieces = {piece: place for place, piece in enumerate([*SPECIAL, *_pieces(counts, vocabulary)])}
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normal, parts
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", pieces["[SEP]"]), ("[CLS]", pieces["[CLS]"]))
    return tokenizer


def _pieces(counts: Mapping[str, int], most: int) -> list[str]:
    """Every character, at a word's start and inside; then the words, beginnings and endings that spare most."""
    letters = sorted({letter for word in counts for letter in word})
    spared: Counter[str] = Counter()
    for word, count in counts.items():
        for cut in range(2, len(word)):
            spared[word[:cut]] += count * (cut - 1)
            spared[f"##{word[cut - 1 :]}"] += count * (len(word) - cut)
        if len(word) > 1:
            spared[word] += count * (len(word) - 1)
    best = sorted(spared, key=lambda piece: (-spared[piece], piece))
    single = [*letters, *(f"##{letter}" for letter in letters)]
    return single + best[: max(0, most - len(single) - len(SPECIAL))]
