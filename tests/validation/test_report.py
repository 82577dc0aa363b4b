"""The report page: whole in itself, and safe with whatever the rows hold."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from tests.validation.conftest import Door, actions
from validation.report import LATEST


class Outside(HTMLParser):
    """Everything a page would fetch, and every tag that is left open."""

    void = frozenset({"meta", "link", "img", "br", "hr", "input", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe"):
            self.fetched.append(tag)
        self.fetched += [v or "" for k, v in attrs if k in ("src", "srcset")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


def test_the_page_fetches_nothing_and_is_well_formed(door: Door) -> None:
    door.write(actions=actions(action=["save", "repinn", "click", "hide"]))
    page = door.open().page.read_text()
    outside = Outside()
    outside.feed(page)
    assert outside.fetched == []
    assert outside.open == []
    assert not re.search(r"https?://|@import|url\(", page)


def test_the_page_says_what_happened(door: Door) -> None:
    door.write(actions=actions(action=["save", "repinn", "click", "hide"]))
    report = door.open()
    page = report.page.read_text()
    assert "actions: unknown action" in page
    assert "action=repinn" in page
    assert str(report.tables["actions"].quarantine) in page
    assert "The checkpoint was left out" in page
    assert (report.page.parent / LATEST).read_text() == page


def test_rows_cannot_write_into_the_page(door: Door) -> None:
    door.write(actions=actions(action=["save", "<script>alert(1)</script>", "click", "hide"]))
    page = door.open().page.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_long_value_is_cut(door: Door) -> None:
    door.write(actions=actions(action=["save", "x" * 5000, "click", "hide"]))
    assert len(door.open().page.read_text()) < 12_000
