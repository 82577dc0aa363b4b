"""What stops an ingest before anything enters: one named error each, all of them `ContractError`."""

from __future__ import annotations


class ContractError(ValueError):
    """The source does not meet the data contract; the message names the offender and the mend."""


class MissingTable(ContractError):
    """A table that every data set needs is in neither the source nor the lake."""


class EmptyTable(ContractError):
    """A table that every data set needs has no rows, or none that may enter."""


class MissingColumn(ContractError):
    """A required column is absent."""


class WrongType(ContractError):
    """A column has a type the contract does not know."""


class NaiveTimestamp(WrongType):
    """A time column has no zone, so nobody knows when its rows happened."""


class UnreadableFile(ContractError):
    """A file is not Parquet, or is torn."""


class BadContractFile(ContractError):
    """contract.yaml does not parse, or contradicts the lake's."""


class MixedIds(ContractError):
    """Ids of one kind are integers in one place and strings in another."""


class CheckpointFailed(ContractError):
    """A critical expectation failed on what was about to enter."""


class IngestBusy(ContractError):
    """Another ingest holds the lake."""
