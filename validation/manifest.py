"""The release manifest: one immutable statement of everything that serves together.

A *space* is one trained embedding model version, written `content@7`; vectors of two spaces never meet.
A *release* names, for each part, its model name and version, its space and collection, and the data it
saw. It is itself an MLflow model version (`homefeed`), so that promotion moves one alias.
"""

from __future__ import annotations

import re
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

RELEASE_MODEL = "homefeed"
"""MLflow registered model whose versions are releases."""

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"

ADS = "ads"
"""Role of the ads model, whose absence costs the ads surface and nothing else."""

MANIFEST_FILE = "manifest.json"
"""The manifest's artifact, at the root of a release version's files."""

_SPACE = re.compile(r"^(?P<model>[a-z][a-z0-9_]*)@(?P<version>[1-9][0-9]*)$")


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Space(Frozen):
    """One embedding model version: the name that vectors, rows and collections of it carry."""

    model: str
    version: int

    @classmethod
    def parse(cls, text: str) -> Space:
        """`content@7` -> Space. Raises ValueError naming the text otherwise."""
        match = _SPACE.match(text)
        if match is None:
            raise ValueError(f"{text!r} is not a space; spaces are written model@version, as in content@7")
        return cls(model=match["model"], version=int(match["version"]))

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"

    @property
    def collection(self) -> str:
        """The Milvus collection of this space's pins, `pins__content__7`."""
        return f"pins__{self.model}__{self.version}"


class Part(Frozen):
    """One model version in a release."""

    model: str
    """Registered model name in MLflow."""
    version: int
    space: str | None = None
    """The space its vectors live in (its own, if it makes one), `content@7`."""
    collection: str | None = None
    """The Milvus collection it searches."""
    feature_service: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    files: dict[str, str] | None = None
    """SHA-256 of each of the version's files by its path, 64 hex digits, as the release was made of them; None
    where that was not written down."""

    @property
    def name(self) -> str:
        """`model@version`."""
        return f"{self.model}@{self.version}"


class CollectionCheck(Frozen):
    """What was measured on a collection after it was re-opened."""

    collection: str
    space: str
    dim: int
    rows: int
    recall_at_100: float
    """Mean over held queries, against brute force on the same vectors."""
    filtered_fill: float
    """Share of the k asked for that a topic-filtered search returned, capped by what exists."""
    filtered_recall_at_100: float | None = None
    """The same recall for topic-filtered searches; None where it was not measured."""


class DataChecks(Frozen):
    """What the expectation suites found in the data of a release."""

    expectations: int
    rows: dict[str, int]
    """Rows looked at, by table."""
    failed: tuple[str, ...] = ()
    """Critical expectations that do not hold."""
    warnings: tuple[str, ...] = ()


class ReleaseManifest(Frozen):
    """Everything a service needs to answer, and everything a reader needs to know where it came from."""

    name: str = RELEASE_MODEL
    created_at: datetime
    git_commit: str
    dataset: str
    """The contract's name."""
    data_start: datetime
    data_end: datetime
    """Interval of the actions the parts were trained on, UTC; `data_end` is exclusive."""
    parts: dict[str, Part]
    """By role: `content`, `lexical`, `pinsage`, `searchsage`, `pixie`, `pinnersage`, `pinnerformer`, `dcm`,
    `conditional`, `two_tower`, `light`, `ranker`, `ads`."""
    light_by: str = "two_tower"
    """Role of the part that orders candidates before heavy ranking, `light` or `two_tower`; `merge`: none, the
    order of the merge stands."""
    sources: tuple[str, ...]
    """Candidate sources this release can serve, in funnel order."""
    skipped: dict[str, str] = Field(default_factory=dict)
    """Parts or sources left out, with the reason (a table the data set does not have)."""
    collections: tuple[CollectionCheck, ...]
    metrics: dict[str, float]
    """The release's own evaluation, as `<task>/<metric>[/<slice>]`, what the gates read."""
    data_checks: DataChecks | None = None
    """Of the lake on the days from `data_start` to `data_end`; None where nothing was checked."""
    evaluation: str
    """Identifies the frozen evaluation the metrics were measured on; two releases compare only where equal."""

    def spaces(self) -> tuple[str, ...]:
        """Distinct spaces of the release, sorted."""
        return tuple(sorted({p.space for p in self.parts.values() if p.space}))
