"""What the models of the temporal table recommend, kept on disk by everything that decides it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from training.context import Progress, silent
from training.digests import digest_of
from training.evaluation.as_of import AsOf, Blend, Fit, Model, Recommend
from training.evaluation.seeded import Seeded


def kept(name: str, model: Model, runs: Path, data: str, progress: Progress = silent) -> Model:
    """The model, its lists kept in `runs/name`: a `.npy` file for each fit, settings, cut and set of users,
    named for their digest, with the text that was digested beside it.

    Settings are what `settings_of` finds; code that no setting names is not among them. A run without such a
    text is told of and not read: what it was made with is not known.
    """
    if isinstance(model, Blend):
        return model
    folder = runs / name
    if unknown := [path.stem for path in sorted(folder.glob("*.npy")) if not _text(path).exists()]:
        progress(f"{name}: of unknown settings, to be made again: {', '.join(unknown)}")
    if isinstance(model, Seeded):
        return Seeded(lambda seed: [_kept(fit, folder, data) for fit in model.variants(seed)])
    fits: Sequence[Fit] = model if isinstance(model, Sequence) else [model]
    return [_kept(fit, folder, data) for fit in fits]


def settings_of(value: object) -> str:
    """A fit as text: its function with all that is bound to it by `partial` and all that stands by default,
    functions among these likewise; any other value as it prints.

    Raises ValueError for a function that has its settings from where it was made.
    """
    if not callable(value):
        return repr(value)
    bound = value if isinstance(value, partial) else partial(value)
    function: Callable[..., object] = bound.func
    if getattr(function, "__closure__", None):
        raise ValueError(f"{function.__qualname__} hides its settings in a closure; bind them with partial")
    defaults = {p.name: p.default for p in inspect.signature(function).parameters.values()}
    stated = {n: v for n, v in defaults.items() if v is not inspect.Parameter.empty} | bound.keywords
    parts = [settings_of(argument) for argument in bound.args]
    parts += [f"{name}={settings_of(setting)}" for name, setting in sorted(stated.items())]
    return f"{function.__qualname__}({', '.join(parts)})"


def _kept(fit: Fit, folder: Path, data: str) -> Fit:
    settings = settings_of(fit)

    def fitted(known: AsOf) -> Recommend:
        recommenders: list[Recommend] = []

        def recommend(users: np.ndarray, k: int) -> np.ndarray:
            asked = f"{data}\ncut {known.cut}\n{k} pins\n{len(users)} users {digest_of(*users)}\n{settings}\n"
            path = folder / f"{digest_of(asked)}.npy"
            if not (path.exists() and _text(path).exists()):
                if not recommenders:
                    recommenders.append(fit(known))
                folder.mkdir(parents=True, exist_ok=True)
                part = path.with_suffix(".part.npy")
                np.save(part, recommenders[0](users, k))
                part.replace(path)
                _text(path).write_text(asked)
            return np.load(path)

        return recommend

    return fitted


def _text(path: Path) -> Path:
    return path.with_suffix(".txt")
