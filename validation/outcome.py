"""What an ingest says of itself: counts, reasons, expectations; kept as JSON beside the report page."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExpectationOutcome(_Frozen):
    """One expectation of one suite, after the run."""

    table: str
    expectation: str
    """Great Expectations' name, `expect_column_values_to_be_unique`."""
    arguments: dict[str, str]
    severity: str
    success: bool
    observed: str | None = None
    unexpected_percent: float | None = None
    exception: str | None = None
    """Set where the expectation could not be evaluated, which counts as a critical failure."""

    @property
    def stops(self) -> bool:
        """True for a failure that lets nothing enter."""
        return not self.success and (self.severity == "critical" or self.exception is not None)

    def sentence(self) -> str:
        """The expectation as a person would say it, `pins.title: values to not be null (mostly 0.9)`."""
        words = self.expectation.removeprefix("expect_")
        for prefix in ("column_", "table_", "compound_columns_"):
            words = words.removeprefix(prefix)
        arguments = dict(self.arguments)
        column = arguments.pop("column", None) or arguments.pop("column_list", None)
        where = self.table if column is None else f"{self.table}.{column}"
        rest = ", ".join(f"{k} {v}" for k, v in arguments.items())
        return f"{where}: {words.replace('_', ' ')}" + (f" ({rest})" if rest else "")


class CheckpointOutcome(_Frozen):
    """Every expectation of one checkpoint run."""

    expectations: tuple[ExpectationOutcome, ...]
    rows: dict[str, int]
    """Sampled rows looked at, by table."""
    docs: Path | None = None
    """Front page of the Data Docs."""

    @property
    def stopping(self) -> tuple[ExpectationOutcome, ...]:
        return tuple(e for e in self.expectations if e.stops)

    @property
    def warnings(self) -> tuple[ExpectationOutcome, ...]:
        return tuple(e for e in self.expectations if not e.success and not e.stops)


class TableOutcome(_Frozen):
    """One table's passage. `read == new + updated + duplicate + refused`, always."""

    read: int
    new: int
    updated: int = 0
    """Rows that replaced the lake's row of the same key (entity tables)."""
    duplicate: int = 0
    """Rows equal to one that stays, in the source or in the lake: nothing to do."""
    quarantined: dict[str, int] = Field(default_factory=dict)
    """Refused rows by reason."""
    quarantine: Path | None = None
    """Where the refused rows are, as they came."""
    unused_columns: tuple[str, ...] = ()
    """Source columns the contract does not know, left out."""
    lake_rows: int = 0
    """Rows of the table in the lake afterwards."""

    @property
    def refused(self) -> int:
        return sum(self.quarantined.values())

    @property
    def kept(self) -> int:
        """Rows that are in the lake afterwards, whether or not they were there before."""
        return self.new + self.updated + self.duplicate


class IngestReport(_Frozen):
    """One run of the door."""

    id: str
    source: Path
    lake: Path
    started_at: datetime
    seconds: float
    tables: dict[str, TableOutcome]
    """By table, in the order in which they passed."""
    absent: tuple[str, ...] = ()
    """Contract tables that neither the source nor the lake has."""
    unknown: tuple[str, ...] = ()
    """Tables of the source that the contract does not know, left alone."""
    checkpoint: CheckpointOutcome | None = None
    actions_by_day: dict[date, int] = Field(default_factory=dict)
    """Actions in the lake afterwards, by UTC day."""
    page: Path
    """The report page."""

    @property
    def refused(self) -> int:
        return sum(t.refused for t in self.tables.values())
