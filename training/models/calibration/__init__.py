"""Calibration: from scores to probabilities, one curve a head (Pinterest Engineering, September 2020).

sampling.py    what thinning negatives did to the scores, undone; uniform samples to fit curves on
curves.py      identity, Platt (with features or without), isotonic: frozen settings that apply themselves
calibrator.py  a curve for every head, saved as JSON, that knows what it was fitted for
fitting.py     the curves from a uniform sample; heads with too few rows stay as they are
"""

from training.models.calibration.calibrator import CalibrationMismatch, Calibrator, HeadCalibration
from training.models.calibration.curves import Curve, Identity, Isotonic, Platt
from training.models.calibration.fitting import CalibrationConfig, fit
from training.models.calibration.sampling import restore_rate, uniform_sample

__all__ = [
    "CalibrationConfig",
    "CalibrationMismatch",
    "Calibrator",
    "Curve",
    "HeadCalibration",
    "Identity",
    "Isotonic",
    "Platt",
    "fit",
    "restore_rate",
    "uniform_sample",
]
