"""A tiny BERT with random weights, as transformers saves one: a local folder of a sentence encoder."""

from __future__ import annotations

import string
from pathlib import Path

WIDTH = 24
LONGEST = 32


def save_tiny_bert(folder: Path, seed: int = 0) -> Path:
    """Two layers over a vocabulary of single letters and a few words, written to `folder`."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    letters = [*string.ascii_lowercase, *string.digits, ".", ",", "-"]
    pieces = [f"##{letter}" for letter in letters]
    words = ["bread", "oven", "trail", "boots", "jazz", "שלום", "خبز"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *pieces, *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=32,
        max_position_embeddings=LONGEST,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder
