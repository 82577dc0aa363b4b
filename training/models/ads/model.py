"""An ads model as it serves: the network, and a light Platt curve for each head of each source."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.models.ads.config import SHARED
from training.models.ads.network import AdsNetwork
from training.models.ads.representation import Batch
from training.models.ads.rows import AdRows, Floats
from training.models.calibration import Calibrator

CALIBRATION = "calibration.json"
_CHUNK = 8_192


@dataclass(frozen=True)
class AdsModel:
    """Calibrated probabilities of ads.

    A calibrator is held to the network it was fitted on by the version's name, which both files have.
    """

    network: AdsNetwork
    calibrators: Mapping[str, Calibrator]
    """By source, and SHARED for every other: each corrects the thinned negatives, and then the curve."""
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    """Known sources without a tower, with the reason."""

    @property
    def name(self) -> str:
        """The version, `ads_multi_tower@4`."""
        return self.network.name

    @property
    def heads(self) -> tuple[str, ...]:
        return self.network.config.heads

    def towers(self, sources: Sequence[str] | NDArray[np.str_]) -> NDArray[np.int64]:
        """The tower (n,) of each source; a source without one, or never seen, gets the shared one."""
        places = {name: i for i, name in enumerate(self.network.config.sources)}
        return np.array([places.get(str(s), self.network.shared) for s in sources], np.int64)

    def raw(self, rows: AdRows, sources: Sequence[str] | NDArray[np.str_]) -> Floats:
        """Probabilities (n, H) float32 among the thinned rows the network learned from."""
        towers = torch.from_numpy(self.towers(sources))
        out = np.empty((len(rows), len(self.heads)), np.float32)
        self.network.eval()
        with torch.inference_mode():
            for at in range(0, len(rows), _CHUNK):
                part = np.arange(at, min(at + _CHUNK, len(rows)))
                logits = self.network(Batch.of(rows.take(part)), towers[at : at + _CHUNK])
                out[part] = torch.sigmoid(logits).numpy()
        return out

    def score(self, rows: AdRows, sources: Sequence[str] | NDArray[np.str_]) -> Floats:
        """Calibrated probabilities (n, H) float32 in [0, 1], heads in the order of `heads`."""
        return self.calibrated(self.raw(rows, sources), sources)

    def calibrated(self, raw: Floats, sources: Sequence[str] | NDArray[np.str_]) -> Floats:
        """`raw` probabilities through the curves of each row's source."""
        names = np.asarray(sources, np.str_)
        own = np.where(np.isin(names, list(self.calibrators)), names, SHARED)
        out = np.empty_like(raw)
        for name in np.unique(own):
            rows = own == name
            out[rows] = self.calibrators[str(name)].calibrate(raw[rows])
        return out

    def save(self, folder: Path) -> None:
        """Write the network and `calibration.json` into `folder`."""
        self.network.save(folder)
        curves = {name: c.model_dump(mode="json") for name, c in self.calibrators.items()}
        kept = {"fallbacks": dict(self.fallbacks), "calibrators": curves}
        (folder / CALIBRATION).write_text(json.dumps(kept, indent=1))

    @classmethod
    def load(cls, folder: Path) -> AdsModel:
        """The model saved in `folder`.

        Raises FileNotFoundError where there is none, CalibrationMismatch for curves of another network.
        """
        network = AdsNetwork.load(folder)
        kept = json.loads((folder / CALIBRATION).read_text())
        calibrators = {name: Calibrator.model_validate(c) for name, c in kept["calibrators"].items()}
        for calibrator in calibrators.values():
            calibrator.check(network.name, network.config.heads)
        return cls(network, calibrators, kept["fallbacks"])
