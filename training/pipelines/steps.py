"""The steps of a training run: what each needs, which of them a run takes, and why it left some out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from training.pipelines import ads, content, lexical, light, pinnersage, pinsage, pixie, searchsage, transact
from training.pipelines.pinnability import Kind
from training.pipelines.retrievers import CONDITIONAL, DCM, PINNERFORMER, TWO_TOWER
from validation.lake import Lake

FEATURES = "features"

NEEDS: dict[str, tuple[str, ...]] = {
    FEATURES: ("pins", "actions"),
    content.MODEL: ("pins",),
    lexical.MODEL: ("pins",),
    pinsage.MODEL: ("pins", "actions"),
    searchsage.MODEL: ("pins", "actions"),
    pixie.MODEL: ("pins", "actions"),
    PINNERFORMER: ("pins", "actions"),
    DCM: ("pins", "actions"),
    CONDITIONAL: ("pins", "actions", "follows"),
    TWO_TOWER: ("pins", "actions"),
    pinnersage.MODEL: ("pins", "actions"),
    **{kind.model: ("pins", "actions") for kind in Kind},
    transact.MODEL: ("pins", "actions"),
    light.MODEL: ("pins", "actions", "impressions"),
    ads.MODEL: ("pins", "actions", "ads", "impressions"),
}
"""Tables each step cannot do without, in the order the steps run; all but the features have a model's name."""

STEPS = tuple(NEEDS)

RANKERS = (*(kind.model for kind in Kind), transact.MODEL)
"""Models that learn from the rows of impressions."""

INSIDE = (pinnersage.MODEL, searchsage.MODEL)
"""Models that stand on PinSage's space."""


class UnknownStep(ValueError):
    """A step was asked for that no run has."""


def check_names(steps: Iterable[str]) -> None:
    """Raises UnknownStep for those that are none, naming what there is."""
    unknown = [name for name in steps if name not in STEPS]
    if unknown:
        raise UnknownStep(f"unknown step {', '.join(unknown)}; the steps are {', '.join(STEPS)}")


@dataclass
class Chosen:
    """The steps of one run. Raises UnknownStep for one that there is not."""

    wanted: tuple[str, ...]
    force: bool
    """Wanted steps are redone even where nothing changed."""
    lake: Lake
    progress: Callable[[str], None]
    skipped: dict[str, str] = field(default_factory=dict)
    """Steps left out, with the reason."""

    def __post_init__(self) -> None:
        check_names(self.wanted)

    def reach(self, step: str) -> bool:
        """Whether a wanted step is this one or comes after it."""
        return any(STEPS.index(wanted) >= STEPS.index(step) for wanted in self.wanted)

    def forced(self, step: str) -> bool:
        return self.force and step in self.wanted

    def can_or_skip(self, step: str) -> bool:
        """Whether the lake has the tables the step needs; skips it where it has not."""
        missing = [table for table in NEEDS[step] if not self.lake.has(table)]
        if missing:
            self.skip(step, f"the data has no {' and no '.join(missing)}")
        return not missing

    def take_or_skip(self, step: str) -> bool:
        """Whether the step is wanted, and the lake has its tables; skips a wanted one where it has not."""
        return step in self.wanted and self.can_or_skip(step)

    def skip(self, step: str, reason: str) -> None:
        self.skipped[step] = reason
        self.progress(f"{step}: skipped, {reason}")

    def skip_after(self, step: str, reason: str) -> None:
        """Skip every wanted step that comes after this one."""
        for name in self.wanted:
            if STEPS.index(name) > STEPS.index(step):
                self.skip(name, reason)
