"""How planted users answer what they are shown: the one place with the world's behavioural formulas.

Pure functions over arrays, used by the simulator when it writes the log and by `world_truth.py` when a test
or a simulation asks what a user would have done.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.data.world_config import Behaviour


def examination(position: np.ndarray, law: Behaviour) -> np.ndarray:
    """Chance float64 (n,) that a pin at 0-based `position` is looked at."""
    return law.examination_floor + (1 - law.examination_floor) / (1.0 + position) ** law.examination_power


def match(
    interest_leaf: np.ndarray,
    interest_style: np.ndarray,
    leaf: np.ndarray,
    second: np.ndarray,
    mix: np.ndarray,
    style: np.ndarray,
    leaf_root: np.ndarray,
    law: Behaviour,
) -> np.ndarray:
    """How well pins match interests, float32 in [0, 1].

    Parameters
    ----------
    interest_leaf, interest_style : (n, K), -1 for no interest.
    leaf, second, mix, style : (n,) traits of the pin; `second` -1 for none.
    leaf_root : (L,) root of each leaf.
    """
    topic = np.where(interest_leaf == leaf[:, None], mix[:, None], 0.0)
    topic += np.where((interest_leaf == second[:, None]) & (second >= 0)[:, None], 1 - mix[:, None], 0.0)
    sibling = leaf_root[interest_leaf] == leaf_root[leaf][:, None]
    topic = np.maximum(topic, law.same_root * sibling)
    styled = 1 - law.style_share + law.style_share * (interest_style == style[:, None])
    return np.where(interest_leaf >= 0, topic * styled, 0.0).astype(np.float32)


def strength(weight: np.ndarray, intent: np.ndarray | None, law: Behaviour) -> np.ndarray:
    """Strength float32 (n, K) of each interest: sqrt(weight / largest), and under an intent (int (n,), the
    slot that the session follows) 1 for that one and `off_intent` of it for the others."""
    scaled = np.sqrt(weight / np.maximum(weight.max(axis=1, keepdims=True), 1e-9))
    if intent is not None:
        chosen = np.arange(weight.shape[1]) == intent[:, None]
        scaled = np.where(chosen, 1.0, law.off_intent * scaled)
    return scaled.astype(np.float32)


def open_probability(affinity: np.ndarray, quality: np.ndarray, bias: np.ndarray, law: Behaviour) -> np.ndarray:
    """Chance (n,) that an examined pin is opened (closeup)."""
    return _chance(law.closeup, affinity, quality, bias)


@dataclass(frozen=True)
class Answers:
    """What was done on each impression, bool (n,) each. Everything but hide follows a closeup."""

    closeup: np.ndarray
    click: np.ndarray
    long_click: np.ndarray
    save: np.ndarray
    hide: np.ndarray


def answer(
    affinity: np.ndarray,
    quality: np.ndarray,
    bias: np.ndarray,
    position: np.ndarray,
    law: Behaviour,
    rng: np.random.Generator,
    disliked: np.ndarray | None = None,
) -> Answers:
    """Draw the answers to n impressions; `affinity` in [0, 1], `position` 0-based, `disliked` (bool, none by
    default) whether the pin is of a topic that the user dislikes."""
    n = len(affinity)
    examined = rng.random(n) < examination(position, law)
    closeup = examined & (rng.random(n) < open_probability(affinity, quality, bias, law))
    click = closeup & (rng.random(n) < _chance(law.click, affinity, quality, 0.0))
    long_click = click & (rng.random(n) < _chance(law.long_click, affinity, quality, 0.0))
    save = closeup & (rng.random(n) < _chance(law.save, affinity, quality, 0.0))
    hide = examined & ~closeup & (rng.random(n) < _unwanted(affinity, disliked, law))
    return Answers(closeup=closeup, click=click, long_click=long_click, save=save, hide=hide)


def chances(
    affinity: np.ndarray, quality: np.ndarray, bias: np.ndarray, law: Behaviour, disliked: np.ndarray
) -> dict[str, np.ndarray]:
    """Chance float64 (n,) of each answer of `Answers` to a pin that is looked at; arguments as of `answer`."""
    closeup = open_probability(affinity, quality, bias, law)
    click = closeup * _chance(law.click, affinity, quality, 0.0)
    return {
        "closeup": closeup,
        "click": click,
        "long_click": click * _chance(law.long_click, affinity, quality, 0.0),
        "save": closeup * _chance(law.save, affinity, quality, 0.0),
        "hide": (1 - closeup) * _unwanted(affinity, disliked, law),
    }


def _unwanted(affinity: np.ndarray, disliked: np.ndarray | None, law: Behaviour) -> np.ndarray:
    """Chance (n,) that a pin looked at and not opened is hidden."""
    share = law.hide + (0.0 if disliked is None else law.hide_disliked * disliked)
    return share * (1 - affinity) ** 2


def _chance(
    law: tuple[float, float, float], affinity: np.ndarray, quality: np.ndarray, bias: np.ndarray | float
) -> np.ndarray:
    constant, per_affinity, per_quality = law
    return 1 / (1 + np.exp(-(constant + per_affinity * affinity + per_quality * quality + bias)))
