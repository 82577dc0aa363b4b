"""What importing Feast leaves out, and that nobody else goes without."""

from __future__ import annotations

import pytest
import typeguard

import feature_repo  # noqa: F401


class _Asked:
    def twice(self, number: int) -> int:
        return number * 2


def test_classes_of_feast_are_left_as_they_are() -> None:
    theirs = type("Entity", (), {"__module__": "feast.entity"})
    assert typeguard.typechecked(theirs) is theirs
    assert typeguard.typechecked()(theirs) is theirs


def test_everybody_elses_are_checked() -> None:
    with pytest.raises(typeguard.TypeCheckError):
        typeguard.typechecked(_Asked)().twice("2")
