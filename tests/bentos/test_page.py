"""The page is plain modules that import what exists and ask nothing of the network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "bentos" / "page"
MODULES = sorted(PAGE.glob("*.js"))


def test_nothing_comes_from_elsewhere() -> None:
    for path in PAGE.iterdir():
        for address in re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"')]*", path.read_text()):
            assert address.endswith("www.w3.org/2000/svg"), f"{path.name} asks for {address}"


@pytest.mark.parametrize("module", MODULES, ids=lambda p: p.name)
def test_imports_name_what_the_other_module_exports(module: Path) -> None:
    text = module.read_text()
    for names, target in re.findall(r"import \{([^}]+)\} from \"\./([^\"]+)\"", text):
        exported = set(
            re.findall(r"export (?:async )?(?:function|const|class) (\w+)", (PAGE / target).read_text())
        )
        for name in (n.strip() for n in names.split(",")):
            assert name in exported, f"{module.name} imports {name}, which {target} does not export"
            assert len(re.findall(rf"\b{name}\b", text)) > 1, (
                f"{module.name} imports {name} and does not use it"
            )


def test_every_id_the_script_asks_for_is_in_the_page() -> None:
    ids = set(re.findall(r'id="([\w-]+)"', (PAGE / "index.html").read_text()))
    for module in MODULES:
        for asked in re.findall(r'\b(?:at|getElementById)\("([\w-]+)"\)', module.read_text()):
            assert asked in ids, f"{module.name} asks for #{asked}"


def test_text_from_the_data_is_never_read_as_markup() -> None:
    """innerHTML is for drawings of our own: what is put in is numbers, or our own icon paths."""
    for module in MODULES:
        for put in re.findall(r"innerHTML = (`[^`]*`|\"[^\"]*\")", module.read_text()):
            for value in re.findall(r"\$\{([^}]*)\}", put):
                assert re.match(r"at\(|size\b|paths\[", value), f"{module.name} puts {value} into markup"


def test_every_reason_of_the_service_has_a_name_and_a_colour() -> None:
    from bentos.why import KINDS

    reasons, styles = (PAGE / "reasons.js").read_text(), (PAGE / "styles.css").read_text()
    for kind in KINDS:
        assert re.search(rf"^  {kind}: \{{ label", reasons, re.M) and f"--{kind}:" in styles


def test_the_page_travels_with_the_package() -> None:
    from importlib.resources import files

    assert (files("bentos") / "page" / "index.html").is_file()
