"""The space that queries are mapped into: what is known of a pin, side by side, and none of it moves.

    [text | w_content * content | w_pinsage * PinSage | w_engagement * log(1 + actions)] -> unit row

The post's space is PinSage's 256 numbers. A small PinSage knows whom a pin appeals to and little of which thing
it shows, so its words stand beside it, read by the encoder that queries are read by: a query is near them
before anything is learned. The last number is for the pins that people take up more than likeness says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.models.sentence import SentenceModel

Floats = NDArray[np.float32]

FILES = "pin_space"


class PinSpaceConfig(BaseModel):
    """What each part of a pin counts; that of text is 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text_dim: int = Field(192, ge=1)
    """Leading directions kept of the vectors of pins' texts."""
    content_weight: float = Field(0.7, ge=0)
    pinsage_weight: float = Field(0.7, ge=0)
    engagement_weight: float = Field(0.03, ge=0)
    """Times the logarithm of a pin's positive actions in 30 days; a query begins with all of it."""

    def for_titles(self, text: Floats | None) -> PinSpaceConfig:
        """Where titles stand for queries. They say nothing of what people take up, nor where a query lies among
        content and PinSage vectors: pins are their texts alone, where an encoder reads those, (n, w)."""
        if text is None:
            return self.model_copy(update={"engagement_weight": 0.0})
        return PinSpaceConfig(text_dim=text.shape[1], content_weight=0, pinsage_weight=0, engagement_weight=0)


@dataclass(frozen=True)
class PinBlocks:
    """n pins, before they are joined; rows of zeros where a part knows nothing of a pin."""

    content: Floats  # (n, c) unit rows
    pinsage: Floats | None  # (n, g) unit rows
    text: Floats | None  # (n, w) unit rows, of the sentence encoder
    actions: NDArray[np.int64]  # (n,) positive ones of 30 days


@dataclass(frozen=True)
class PinSpace:
    """How blocks become one vector. `fit` makes one, `save` and `load` keep it (safetensors and JSON)."""

    config: PinSpaceConfig
    sentences: SentenceModel | None = None
    """Reader of pins' texts; None where nothing reads them."""
    rotation: Floats | None = None  # (w, text_dim), orthonormal columns

    @classmethod
    def fit(cls, config: PinSpaceConfig, blocks: PinBlocks, sentences: SentenceModel | None) -> PinSpace:
        """The leading directions of the texts, uncentred, so that products of two vectors stay what they are
        but for what is cut off."""
        if blocks.text is None or sentences is None:
            return cls(config)
        gram = blocks.text.T.astype(np.float64) @ blocks.text
        _, directions = np.linalg.eigh(gram)  # ascending
        leading = directions[:, ::-1][:, : config.text_dim]
        signs = np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(leading.shape[1])])
        return cls(config, sentences, np.ascontiguousarray(leading * signs, np.float32))

    def join(self, blocks: PinBlocks) -> Floats:
        """(n, d) float32 unit rows, parts of weight 0 left out; zeros where no part knows anything of a pin."""
        parts = []
        if self.rotation is not None:
            assert blocks.text is not None
            parts.append(_unit_rows(blocks.text @ self.rotation))
        if self.config.content_weight:
            parts.append(self.config.content_weight * blocks.content)
        if blocks.pinsage is not None and self.config.pinsage_weight:
            parts.append(self.config.pinsage_weight * blocks.pinsage)
        known = np.hstack(parts).astype(np.float32)
        engaged = self.config.engagement_weight * np.log1p(blocks.actions)[:, None]
        return _unit_rows(np.hstack([known, engaged * known.any(axis=1, keepdims=True)]).astype(np.float32))

    def save(self, folder: Path) -> None:
        """Write `pin_space.json`, and `pin_space.safetensors` where there is a rotation, into `folder`."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        said = {
            "config": self.config.model_dump(),
            "sentences": self.sentences and self.sentences.model_dump(),
        }
        (folder / f"{FILES}.json").write_text(json.dumps(said, indent=2))
        if self.rotation is not None:
            save_file({"rotation": self.rotation}, folder / f"{FILES}.safetensors")

    @classmethod
    def load(cls, folder: Path) -> PinSpace:
        """What `save` wrote. Raises FileNotFoundError where there is none."""
        from safetensors.numpy import load_file

        said = json.loads((folder / f"{FILES}.json").read_text())
        config = PinSpaceConfig.model_validate(said["config"])
        if said["sentences"] is None:
            return cls(config)
        rotation = load_file(folder / f"{FILES}.safetensors")["rotation"]
        return cls(config, SentenceModel.model_validate(said["sentences"]), rotation)


def _unit_rows(rows: Floats) -> Floats:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 1e-6)
