"""Imports run one way: infra -> training -> {validation, feature_repo}; bentos stands beside training."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("feature_repo", "training", "bentos", "validation", "infra")

# who may import what of ours; the longest matching prefix of the importing module rules
ALLOWED: dict[str, tuple[str, ...]] = {
    "validation": ("validation",),
    "feature_repo": ("feature_repo", "validation"),
    "training.models": (
        "training.models",
        "feature_repo.schema",
        "feature_repo.history",
        "feature_repo.sequence",
        "validation.tables",
        "validation.queries",
    ),
    "training": ("training", "feature_repo", "validation"),
    "bentos": ("bentos", "training.models", "feature_repo", "validation"),
    "infra": ("infra", "training", "feature_repo", "validation"),
}
UNPICKLING = (
    *("import pickle", "pickle.load", "cloudpickle", "import joblib", "import dill", "import shelve"),
    *("import marshal", "torch.load(", "read_pickle", "allow_pickle=True", "mlflow.pyfunc.load"),
)
"""Ways to run what a file says."""
STORES = ("feast", "mlflow", "pymilvus", "bentoml", "great_expectations")


def _modules() -> Iterator[tuple[str, Path]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in prefixes)


@pytest.mark.parametrize(("module", "path"), list(_modules()), ids=lambda v: v if isinstance(v, str) else "")
def test_imports_run_one_way(module: str, path: Path) -> None:
    rule = max((p for p in ALLOWED if _within(module, (p,))), key=len)
    wrong = [
        name for name in _imports(path) if name.split(".")[0] in ROOMS and not _within(name, ALLOWED[rule])
    ]
    assert not wrong, f"{module} may import only {ALLOWED[rule]}, and imports {wrong}"


def test_models_touch_no_store() -> None:
    wrong = [
        (module, name)
        for module, path in _modules()
        if _within(module, ("training.models",))
        for name in _imports(path)
        if _within(name, STORES)
    ]
    assert not wrong


def test_nothing_unpickles() -> None:
    text = {module: path.read_text() for module, path in _modules()}
    wrong = [(m, way) for m, t in text.items() for way in UNPICKLING if way in t]
    assert not wrong
