"""A folder of contract tables as it was brought: its files, its types, its batches.

Everything that can be refused without reading rows is refused here, before anything enters: files that are
not Parquet, columns that are missing or of the wrong type, ids of two forms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError

from validation.errors import (
    BadContractFile,
    MissingColumn,
    MissingTable,
    MixedIds,
    NaiveTimestamp,
    UnreadableFile,
    WrongType,
)
from validation.ids import IdForm
from validation.tables import ACTION, AD_ID, EVENT_ID, REQUEST_ID, TABLES, Contract, EntityKind, Table

CONTRACT_FILE = "contract.yaml"

_FOUND_AT_THE_DOOR = {"string_ids", "vector_dims"}
"""Keys of the contract that nobody declares."""

BATCH_ROWS = 500_000
"""Rows of an event table held at once."""
BATCH_ROWS_WIDE = 50_000
"""Rows at once of a table that may carry texts, pictures and vectors."""

LABELS = (EVENT_ID, REQUEST_ID, AD_ID)
"""Columns that name an event, an answer or a campaign: int64, or strings that are hashed for good."""


@dataclass(frozen=True)
class SourceTable:
    """One table of the source: its files in name order."""

    spec: Table
    files: tuple[Path, ...]
    rows: int
    """Row count by the Parquet footers."""
    columns: tuple[str, ...]
    """Contract columns that at least one file brings."""
    unused: tuple[str, ...]
    """Columns that the contract does not know; they are left out."""
    schema: pa.Schema
    """Every column of every file, dictionaries decoded: what the quarantine keeps."""

    def batches(self) -> Iterator[tuple[int, Path, pa.Table]]:
        """(number of the first row, file, rows) through every file; rows are numbered from 0 over the table.

        Raises UnreadableFile for a file that turns out to be torn, or holds text that is not UTF-8.
        """
        size = BATCH_ROWS if self.spec.by_day else BATCH_ROWS_WIDE
        first = 0
        for path in self.files:
            try:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(batch_size=size):
                        _check_text(batch, path)
                        yield first, path, pa.Table.from_batches([batch])
                        first += batch.num_rows
            except (pa.ArrowInvalid, OSError) as error:
                raise UnreadableFile(f"{path}: {error}; write the file again") from error


@dataclass(frozen=True)
class Source:
    """A source folder that passed every check on its form."""

    folder: Path
    tables: dict[str, SourceTable]
    """By name, in the order in which they pass the door."""
    contract: Contract | None
    """What contract.yaml declares; None where there is no such file."""
    forms: dict[EntityKind, IdForm]
    """The form of every kind of id that the source holds."""
    unknown: tuple[str, ...]
    """Parquet files and folders that are no contract table."""


@dataclass
class _Forms:
    """The first place where each kind of id was met, to name both places of a contradiction."""

    seen: dict[EntityKind, tuple[IdForm, str]] = field(default_factory=dict)

    def add(self, kind: EntityKind, form: IdForm, where: str) -> None:
        known, place = self.seen.setdefault(kind, (form, where))
        if known is not form:
            raise MixedIds(
                f"{where} holds {form.value}s but {place} holds {known.value}s; "
                f"bring {kind.value} ids in one form everywhere"
            )


def open_source(folder: Path) -> Source:
    """Finds and checks the tables of `folder`. Reads footers only.

    Raises a ContractError subclass naming the file and the mend; MissingTable where nothing is found.
    """
    if not folder.is_dir():
        raise MissingTable(f"{folder} is not a folder; give a folder of contract tables")
    forms = _Forms()
    tables: dict[str, SourceTable] = {}
    for name, spec in TABLES.items():
        files = _files(folder, name)
        if files:
            tables[name] = _open_table(folder, spec, files, forms)
    if not tables:
        raise MissingTable(
            f"{folder} holds no contract table; expected <table>.parquet or <table>/ of {', '.join(TABLES)}"
        )
    return Source(
        folder=folder,
        tables=tables,
        contract=read_contract(folder),
        forms={kind: form for kind, (form, _) in forms.seen.items()},
        unknown=_unknown(folder),
    )


def read_contract(folder: Path) -> Contract | None:
    """contract.yaml of `folder`, None where absent. Raises BadContractFile naming the key that is wrong."""
    path = folder / CONTRACT_FILE
    if not path.exists():
        return None
    try:
        declared = yaml.safe_load(path.read_text()) or {}
        if not isinstance(declared, dict):
            raise BadContractFile(f"{path}: expected keys and values, found {type(declared).__name__}")
        return Contract.model_validate(declared)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadContractFile(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        what = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        allowed = ", ".join(k for k in Contract.model_fields if k not in _FOUND_AT_THE_DOOR)
        raise BadContractFile(f"{path}: {what}; the keys are {allowed}") from error


def write_contract(folder: Path, contract: Contract) -> Path:
    """Writes contract.yaml of a source folder; what the door finds out by itself is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CONTRACT_FILE
    declared = contract.model_dump(mode="json", exclude=_FOUND_AT_THE_DOOR)
    path.write_text(yaml.safe_dump(declared, sort_keys=False, allow_unicode=True))
    return path


def _files(folder: Path, table: str) -> tuple[Path, ...]:
    """`<table>.parquet`, or every Parquet file below `<table>/`; both is a question nobody can answer."""
    single, many = folder / f"{table}.parquet", folder / table
    if single.is_dir():
        return tuple(sorted(single.rglob("*.parquet")))
    found = tuple(sorted(many.rglob("*.parquet"))) if many.is_dir() else ()
    if single.exists() and found:
        raise UnreadableFile(f"{folder} holds both {table}.parquet and {table}/; keep one of them")
    return (single,) if single.exists() else found


def _unknown(folder: Path) -> tuple[str, ...]:
    names = {
        p.name.removesuffix(".parquet")
        for p in folder.iterdir()
        if p.suffix == ".parquet" or (p.is_dir() and any(p.rglob("*.parquet")))
    }
    return tuple(sorted(names - set(TABLES)))


def _open_table(folder: Path, spec: Table, files: tuple[Path, ...], forms: _Forms) -> SourceTable:
    rows = 0
    schemas: list[pa.Schema] = []
    for path in files:
        where = spec.name if len(files) == 1 else str(path.relative_to(folder))
        try:
            with pq.ParquetFile(path) as file:
                schema, count = file.schema_arrow, file.metadata.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise UnreadableFile(f"{path} is not a readable Parquet file: {error}") from error
        _check_schema(spec, schema, where, forms)
        schemas.append(pa.schema([pa.field(f.name, plain(f.type)) for f in schema]))
        rows += count
    try:
        schema = pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowTypeError as error:
        raise WrongType(f"the files of {spec.name} disagree on a column's type: {error}") from error
    known = tuple(n for n in schema.names if n in spec.schema.names)
    return SourceTable(spec, files, rows, known, tuple(n for n in schema.names if n not in known), schema)


def _check_schema(spec: Table, schema: pa.Schema, where: str, forms: _Forms) -> None:
    missing = [c for c in spec.required if c not in schema.names]
    if missing:
        raise MissingColumn(
            f"{where}: required column {', '.join(missing)} is missing; "
            f"{spec.name} needs {', '.join(spec.required)}, this file has {', '.join(schema.names)}"
        )
    for name in schema.names:
        if schema.names.count(name) > 1:
            raise WrongType(f"{where}.{name}: the column is there twice")
        if name in spec.schema.names:
            _check_type(spec, name, schema.field(name).type, where, forms)


def _check_text(batch: pa.RecordBatch, path: Path) -> None:
    """Arrow reads any bytes as text; whoever turns them into Python strings would fail with no file named."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise UnreadableFile(
                f"{path}: column {name} is not UTF-8 ({error}); write the file again with its text as UTF-8"
            ) from error


def _check_type(spec: Table, name: str, found: pa.DataType, where: str, forms: _Forms) -> None:
    """One column's type against its lake type; notes the form of ids."""
    found = plain(found)
    wanted = spec.schema.field(name).type
    if pa.types.is_null(found):
        return
    listed = _is_list(wanted)
    if listed and not _is_list(found):
        raise WrongType(f"{where}.{name} is {found}; expected a list of {wanted.value_type}")
    if listed:
        found, wanted = plain(found.value_type), wanted.value_type
    kind = spec.ids.get(name)
    if kind is not None or name in LABELS:
        if not (_is_text(found) or pa.types.is_integer(found)):
            raise WrongType(
                f"{where}.{name} is {found}; ids are int64 or string"
                + (" (pandas makes floats of integers with gaps: use its Int64)" if _is_float(found) else "")
            )
        if kind is not None:
            form = IdForm.STRING if _is_text(found) else IdForm.INTEGER
            forms.add(kind, form, f"{where}.{name}")
    elif pa.types.is_timestamp(wanted):
        if not pa.types.is_timestamp(found):
            raise WrongType(f"{where}.{name} is {found}; expected a timestamp with a zone")
        if found.tz is None:
            raise NaiveTimestamp(f"{where}.{name} is {found}, without zone; give UTC timestamps")
    elif name == ACTION or pa.types.is_string(wanted):
        if not _is_text(found):
            raise WrongType(f"{where}.{name} is {found}; expected string")
    elif pa.types.is_integer(wanted):
        if not pa.types.is_integer(found):
            raise WrongType(f"{where}.{name} is {found}; expected {wanted}")
    elif not (_is_float(found) or (pa.types.is_integer(found) and not listed)):
        raise WrongType(f"{where}.{name} is {found}; expected {'a list of ' if listed else ''}{wanted}")


def plain(found: pa.DataType) -> pa.DataType:
    """The type of the values behind a dictionary."""
    return found.value_type if pa.types.is_dictionary(found) else found


def _is_text(found: pa.DataType) -> bool:
    return pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found)


def _is_float(found: pa.DataType) -> bool:
    return pa.types.is_floating(found)


def _is_list(found: pa.DataType) -> bool:
    return pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found)
