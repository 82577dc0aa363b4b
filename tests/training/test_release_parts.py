"""Which of several trained versions a release takes."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from training import release_parts

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
        return {"log_loss": self.tested[model][1]}

    def params(self, model: str, version: int) -> dict[str, str]:
        return {"test": self.tested[model][0]}


def chosen(**tested: tuple[str, float]) -> str | None:
    part = release_parts._ranker(Versions(tested), SPACE, None)  # type: ignore[arg-type]
    return None if part is None else part.model


def test_of_rankers_tested_on_the_same_days_the_lowest_log_loss_is_taken() -> None:
    assert chosen(pinnability_gbdt=(LATER, 0.25), transact=(LATER, 0.24)) == "transact"
    assert chosen(pinnability_gbdt=(LATER, 0.23), transact=(LATER, 0.24)) == "pinnability_gbdt"


def test_a_log_loss_of_earlier_days_says_nothing_beside_one_of_later_days() -> None:
    assert chosen(pinnability_gbdt=(EARLIER, 0.10), transact=(LATER, 0.24)) == "transact"


def test_without_a_ranker_there_is_none() -> None:
    assert chosen() is None
