"""The query tower: a transformer and one linear readout to the pin space."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.content import open_text_encoder
from training.models.searchsage.config import Pooling, ScratchConfig, SearchSageConfig
from training.models.searchsage.tokens import QueryTokens, train_wordpiece
from training.models.sentence import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TransformersMissing(RuntimeError):
    """The package transformers, which builds the query tower, is not installed."""


SCRATCH = "scratch"
"""What a tower says it started from where that was nothing."""


class QueryTower(nn.Module):
    """Token ids to unit rows of the pin space."""

    def __init__(self, transformer: PreTrainedModel, dimension: int, pooling: Pooling) -> None:
        super().__init__()
        self.transformer = transformer
        self.pooling = pooling
        self.readout = nn.Linear(transformer.config.hidden_size, dimension)

    @property
    def dimension(self) -> int:
        return self.readout.out_features

    @property
    def vocabulary(self) -> int:
        return self.transformer.config.vocab_size

    def states(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """int64 (b, t) token ids -> (b, width), what is read out; `mask` (b, t) is 0 at padding."""
        states = self.transformer(input_ids=ids, attention_mask=mask).last_hidden_state  # (b, t, width)
        if self.pooling is Pooling.CLS:
            return states[:, 0]
        if mask is None:
            return states.mean(1)
        return (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """(b, t) token ids -> (b, dimension) unit rows; see `states`."""
        return F.normalize(self.readout(self.states(ids, mask)), dim=1)

    def transformer_settings(self) -> dict[str, Any]:
        """What `rebuilt` makes an empty transformer of, plain JSON values."""
        return self.transformer.config.to_diff_dict() | {"model_type": self.transformer.config.model_type}

    @classmethod
    def rebuilt(cls, transformer: dict[str, Any], dimension: int, pooling: Pooling) -> QueryTower:
        """An empty tower of the shape that `transformer_settings` says. Raises TransformersMissing."""
        _require()
        from transformers import AutoConfig, AutoModel

        config = AutoConfig.for_model(**transformer)
        return cls(_bare(AutoModel.from_config(config)), dimension, pooling)


def start(
    config: SearchSageConfig, dimension: int, texts: Iterable[str], seed: int
) -> tuple[QueryTower, QueryTokens, str]:
    """(tower, tokens, what it started from): the encoder that `config` names, its readout drawn from `seed`.

    Without an encoder a small BERT is drawn too, and its vocabulary learned from `texts`. torch's global
    generator is left as it was. Raises TransformersMissing, and SentenceEncoderMissing where a named encoder
    is not there.
    """
    _require()
    encoder = open_text_encoder(config.text_encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if encoder is None:
            tokenizer = train_wordpiece(texts, config.scratch.vocabulary)
            transformer = _small_bert(config.scratch, tokenizer.get_vocab_size(), config.max_tokens)
            origin = SCRATCH
        else:
            transformer, tokenizer = _pretrained(encoder.folder, config.layers)
            origin = str(encoder.model)
        tower = QueryTower(transformer, dimension, config.pooling)
    longest = min(config.max_tokens, transformer.config.max_position_embeddings)
    return tower, QueryTokens(tokenizer, longest), origin


def _pretrained(folder: Path, layers: int | None) -> tuple[PreTrainedModel, Any]:
    from transformers import AutoModel, AutoTokenizer

    cut = {} if layers is None else {"num_hidden_layers": layers}
    with quiet():
        transformer = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, **cut
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    from tokenizers import Tokenizer

    own = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())  # the cached one keeps its settings
    return _bare(transformer), own


def _small_bert(config: ScratchConfig, vocabulary: int, longest: int) -> PreTrainedModel:
    from transformers import BertConfig, BertModel

    shape = BertConfig(
        vocab_size=vocabulary,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.feed_forward,
        max_position_embeddings=longest,
    )
    return _bare(BertModel(shape))


def _bare(transformer: PreTrainedModel) -> PreTrainedModel:
    """Without the pooler that BERT carries for its pre-training task, which nothing here reads."""
    if getattr(transformer, "pooler", None) is not None:
        transformer.pooler = None
    return transformer


def _require() -> None:
    if find_spec("transformers") is None:
        raise TransformersMissing("SearchSage needs transformers: pip install 'corkboard[text]'")
