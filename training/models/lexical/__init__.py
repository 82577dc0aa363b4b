"""Search by words: BM25 over what pins say, with words that are typed wrong read as their nearest.

| file | holds |
|---|---|
| `words.py` | how a text becomes words |
| `spelling.py` | the nearest words of a vocabulary, by trigrams and edits |
| `language.py` | words that are no slips, though no pin may say them |
| `index.py` | `LexicalIndex`: search, scores of chosen pins, plain files |
| `popular.py` | queries that many people made |
"""

from training.models.lexical.index import LexicalIndex, Reading
from training.models.lexical.language import language_of
from training.models.lexical.popular import PopularQueries
from training.models.lexical.words import words

__all__ = ["LexicalIndex", "PopularQueries", "Reading", "language_of", "words"]
