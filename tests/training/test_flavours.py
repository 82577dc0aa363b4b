"""Files that MLflow runs to load a model: each says what it is given, which MLflow else asks for in the log."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from training.model_log import FLAVOURS


@pytest.mark.parametrize("file", sorted(FLAVOURS.glob("[!_]*.py")), ids=lambda file: file.stem)
def test_a_flavour_says_that_it_is_given_a_table(file: Path) -> None:
    found = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)]
    (predict,) = [node for node in found if node.name == "predict"]
    told = {argument.arg: argument.annotation for argument in predict.args.args}
    assert told["model_input"] is not None and ast.unparse(told["model_input"]) == "pd.DataFrame"
