"""Which of several trained versions a release takes."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from training import release, release_parts
from training.pipelines.search_space import PIN_SPACE_TAG
from training.release_parts import ReleaseError
from validation.manifest import Part

SPACE = "content@1"
EARLIER, LATER = "2026-11-19 00:00 to 2026-11-20 00:00 UTC", "2026-11-26 00:00 to 2026-11-27 00:00 UTC"


@dataclass(frozen=True)
class Versions:
    """A registry of one version a model: (days it was tested on, log loss)."""

    tested: dict[str, tuple[str, float]]

    def versions(self, model: str) -> list[int]:
        return [1] if model in self.tested else []

    def version(self, model: str, version: int) -> SimpleNamespace:
        return SimpleNamespace(tags={"space": SPACE})

    def metrics(self, model: str, version: int) -> dict[str, float]:
        heads = ("engage", "save", "hide") if model == "transact" else ("engage",)
        return {"log_loss": self.tested[model][1], **{f"heads/{head}/auc": 0.7 for head in heads}}

    def params(self, model: str, version: int) -> dict[str, str]:
        return {"test": self.tested[model][0]}


def chosen(**tested: tuple[str, float]) -> str | None:
    part = release_parts._ranker(Versions(tested), SPACE, None)  # type: ignore[arg-type]
    return None if part is None else part.model


def test_of_rankers_tested_on_the_same_days_the_lowest_log_loss_is_taken() -> None:
    assert chosen(pinnability_gbdt=(LATER, 0.25), transact=(LATER, 0.24)) == "transact"
    assert chosen(pinnability_gbdt=(LATER, 0.23), transact=(LATER, 0.24)) == "pinnability_gbdt"


def test_of_rankers_that_are_level_the_one_with_more_heads_is_taken() -> None:
    assert chosen(pinnability_gbdt=(LATER, 0.2400), transact=(LATER, 0.2415)) == "transact"
    assert chosen(pinnability_logistic=(LATER, 0.2415), pinnability_gbdt=(LATER, 0.2400)) == "pinnability_gbdt"


def test_a_log_loss_of_earlier_days_says_nothing_beside_one_of_later_days() -> None:
    assert chosen(pinnability_gbdt=(EARLIER, 0.10), transact=(LATER, 0.24)) == "transact"


def test_without_a_ranker_there_is_none() -> None:
    assert chosen() is None


def test_search_by_meaning_over_pins_of_another_release_is_refused() -> None:
    class Tagged:
        def version(self, model: str, version: int) -> SimpleNamespace:
            return SimpleNamespace(tags={"content_space": SPACE, PIN_SPACE_TAG: "pinsage@1"})

    def parts(pinsage: int) -> dict[str, Part]:
        made = [("content", 1), ("pinsage", pinsage), ("searchsage", 4)]
        return {name: Part(model=name, version=v, space=f"{name}@{v}") for name, v in made}

    assert release._spaces(Tagged(), parts(1)) == [SPACE, "pinsage@1", "searchsage@4"]  # type: ignore[arg-type]
    with pytest.raises(ReleaseError, match="searchsage@4 stands on pinsage@1, which is not of this release"):
        release._spaces(Tagged(), parts(2))  # type: ignore[arg-type]
