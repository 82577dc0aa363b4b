"""The packed row: all features of one view for one key in one blob.

A stored feature is otherwise one protobuf value a cell, and Feast's plain route then spends 80 ms on 500 pins.
Little endian:

    head    event time us i64 | created us i64 | layout u32 | nulls u64 (bit i: feature i is absent)
    fixed   numbers, and arrays of a declared width, at fixed places
    varied  for each text or free array, in order: length u32 in elements (bytes for text), then the values

The layout number is a checksum of names and types: a row written under another schema is refused, not misread.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.protos.feast.types.Value_pb2 import Value

HEAD = np.dtype([("event_us", "<i8"), ("created_us", "<i8"), ("layout", "<u4"), ("nulls", "<u8")])
_HEAD = struct.Struct("<qqIQ")
_STAMP = struct.Struct("<qq")
_LENGTH = struct.Struct("<I")

WIDTH_TAG = "width"
"""Tag of an array field that always holds exactly this many values: it is stored at a fixed place."""

_NUMBERS = {"Float32": "<f4", "Float64": "<f8", "Int32": "<i4", "Int64": "<i8"}
_STRUCT = {"<f4": "f", "<f8": "d", "<i4": "i", "<i8": "q"}
_PROTO = {"Float32": "float_val", "Float64": "double_val", "Int32": "int32_val", "Int64": "int64_val"}
_PROTO_LIST = {k: v.replace("_val", "_list_val") for k, v in _PROTO.items()}


class LayoutError(ValueError):
    """A view that cannot be packed, a value that does not fit it, or a row of another layout."""


@dataclass(frozen=True)
class Column:
    """One feature's place in the row."""

    name: str
    kind: str
    """Feast's name of the element type: Float32, Int64, String, ..."""
    array: bool
    width: int | None
    """Values of a fixed-width array; None for a number or a free array."""

    @property
    def fixed(self) -> bool:
        return self.kind != "String" and (not self.array or self.width is not None)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("u1" if self.kind == "String" else _NUMBERS[self.kind])


class RowLayout:
    """How rows of one view are packed and read back. Built once a view and kept."""

    def __init__(self, view: str, columns: Sequence[Column]) -> None:
        if len(columns) > 64:
            raise LayoutError(f"view {view} has {len(columns)} features; a packed row holds at most 64")
        self.view = view
        self.columns = tuple(columns)
        self.fixed = tuple(c for c in columns if c.fixed)
        self.varied = tuple(c for c in columns if not c.fixed)
        self.dtype = np.dtype(
            [
                ("head", HEAD),
                *((c.name, c.dtype, (c.width,)) if c.width else (c.name, c.dtype) for c in self.fixed),
            ]
        )
        """Structured type of head and fixed part."""
        text = ";".join(f"{c.name}:{c.kind}:{c.array:d}:{c.width}" for c in columns)
        self.number = zlib.crc32(f"{view}|{text}".encode())
        self._bits = {c.name: np.uint64(1 << i) for i, c in enumerate(columns)}
        # What `unpack` goes by: one read of the head and all numbers, and a place for everything else.
        sizes = {c.name: c.dtype.itemsize * c.width if c.width else _STRUCT[c.dtype.str] for c in self.fixed}
        self._plain = struct.Struct(
            _HEAD.format + "".join(f"{size}x" if isinstance(size, int) else size for size in sizes.values())
        )
        self._numbers = tuple(c.name for c in self.fixed if not c.width)
        self._arrays = tuple(
            (c.name, c.dtype, c.width, self.dtype.fields[c.name][1])  # type: ignore[index]
            for c in self.fixed
            if c.width
        )
        self._free = tuple(
            (c.name, None if c.kind == "String" else c.dtype, c.dtype.itemsize) for c in self.varied
        )

    @classmethod
    def of(cls, view: FeatureView) -> RowLayout:
        """The layout of a Feast view. Raises LayoutError for a feature type it cannot hold."""
        from feast.types import Array

        columns = []
        for feature in view.features:
            array = isinstance(feature.dtype, Array)
            kind = getattr(feature.dtype.base_type if array else feature.dtype, "name", "").title()
            if kind not in (*_NUMBERS, "String") or (array and kind == "String"):
                raise LayoutError(
                    f"feature {view.name}:{feature.name} has type {feature.dtype}; packed rows hold "
                    f"{', '.join(_NUMBERS)}, String and arrays of numbers"
                )
            width = feature.tags.get(WIDTH_TAG) if array else None
            columns.append(Column(feature.name, kind, array, int(width) if width else None))
        return cls(view.name, columns)

    # Writing -----------------------------------------------------------------------------------------------

    def pack(self, values: Mapping[str, Any], event_us: int, created_us: int) -> bytes:
        """One row from Python or NumPy values; an absent or None value is null.

        Raises LayoutError for a fixed-width array of another length.
        """
        fixed = np.zeros(1, self.dtype)
        row = fixed[0]
        nulls = 0
        varied: list[bytes] = []
        for i, column in enumerate(self.columns):
            value = values.get(column.name)
            if value is None:
                nulls |= 1 << i
                if not column.fixed:
                    varied.append(_LENGTH.pack(0))
            elif column.width is not None and len(value) != column.width:
                raise LayoutError(
                    f"{self.view}:{column.name} holds {column.width} values, this row has {len(value)}"
                )
            elif column.fixed:
                row[column.name] = value
            else:
                data = value.encode() if column.kind == "String" else np.asarray(value, column.dtype).tobytes()
                varied += (_LENGTH.pack(len(data) // column.dtype.itemsize), data)
        row["head"] = (event_us, created_us, self.number, nulls)
        return b"".join((fixed.tobytes(), *varied))

    def pack_batch(self, batch: pa.RecordBatch, event: str, created: str | None) -> list[bytes]:
        """Rows of an Arrow batch, column by column (no Python value is made for a fixed place).

        `event` and `created` name its timestamp columns. Raises LayoutError as `pack` does.
        """
        count = batch.num_rows
        fixed = np.zeros(count, self.dtype)
        nulls = np.zeros(count, np.uint64)
        varied: list[tuple[np.ndarray, memoryview, int]] = []
        for column in self.columns:
            values = _combined(batch.column(column.name))
            if values.null_count:
                absent = np.asarray(values.is_null())
                nulls[absent] |= self._bits[column.name]
            if column.fixed:
                self._fill(fixed, column, values)
            else:
                varied.append(_slices(values, column))
        fixed["head"]["event_us"] = _micros(batch.column(event))
        fixed["head"]["created_us"] = _micros(batch.column(created)) if created else fixed["head"]["event_us"]
        fixed["head"]["layout"] = self.number
        fixed["head"]["nulls"] = nulls
        size = self.dtype.itemsize
        flat = fixed.tobytes()
        rows = [flat[i : i + size] for i in range(0, count * size, size)]
        if not varied:
            return rows
        parts = []
        for offsets, data, itemsize in varied:
            bounds = offsets.tolist()
            parts.append(
                [
                    _LENGTH.pack(high - low) + data[low * itemsize : high * itemsize].tobytes()
                    for low, high in pairwise(bounds)
                ]
            )
        return [b"".join(pieces) for pieces in zip(rows, *parts, strict=True)]

    def _fill(self, fixed: np.ndarray, column: Column, values: pa.Array) -> None:
        if column.width is None:
            fill = float("nan") if column.kind.startswith("Float") else 0
            full = values.fill_null(fill) if values.null_count else values
            fixed[column.name] = full.to_numpy(zero_copy_only=False)
            return
        lengths = np.diff(values.offsets.to_numpy())
        present = ~np.asarray(values.is_null())
        wrong = present & (lengths != column.width)
        if wrong.any():
            raise LayoutError(
                f"{self.view}:{column.name} holds {column.width} values; {wrong.sum()} rows hold another "
                f"number, the first {lengths[wrong][0]}"
            )
        flat = values.flatten().to_numpy(zero_copy_only=False)
        fixed[column.name][present] = flat.reshape(-1, column.width)

    # Reading -----------------------------------------------------------------------------------------------

    def check(self, row: bytes) -> None:
        """Raises LayoutError when `row` was written under another schema of the view."""
        number = _HEAD.unpack_from(row)[2]
        if number != self.number:
            raise LayoutError(
                f"a row of view {self.view} was written under another schema (layout {number:08x}, now "
                f"{self.number:08x}); materialize the view again, or give the new schema a view of its own"
            )

    def unpack(self, row: bytes) -> dict[str, Any]:
        """Features of one row: int, float, str, NumPy arrays (read-only), None where null."""
        _, _, number, nulls, *numbers = self._plain.unpack_from(row)
        if number != self.number:
            self.check(row)
        values: dict[str, Any] = dict(zip(self._numbers, numbers, strict=True))
        for name, dtype, width, place in self._arrays:
            values[name] = np.frombuffer(row, dtype, count=width, offset=place)
        place = self.dtype.itemsize
        for name, dtype, size in self._free:
            (length,) = _LENGTH.unpack_from(row, place)
            start = place + _LENGTH.size
            place = start + length * size
            values[name] = (
                row[start:place].decode()
                if dtype is None
                else np.frombuffer(row, dtype, count=length, offset=start)
            )
        if nulls:
            values.update({c.name: None for i, c in enumerate(self.columns) if nulls >> i & 1})
        return values

    def unpack_fixed(self, rows: Sequence[bytes]) -> np.ndarray:
        """Head and fixed part of many rows as one structured array (n,) of `dtype`."""
        size = self.dtype.itemsize
        joined = b"".join(rows) if not self.varied else b"".join([row[:size] for row in rows])
        if len(joined) != size * len(rows):
            for row in rows:
                self.check(row)
            raise LayoutError(
                f"rows of view {self.view} are cut short: {len(joined)} bytes in {len(rows)} rows"
            )
        fixed = np.frombuffer(joined, self.dtype)
        if (fixed["head"]["layout"] != self.number).any():
            self.check(rows[int(np.flatnonzero(fixed["head"]["layout"] != self.number)[0])])
        return fixed

    def block(self, fixed: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Number features `names`, consecutive and of one type, as a contiguous (n, len(names)) array."""
        first = self.dtype.fields[names[0]]  # type: ignore[index]
        dtype, start = first[0], first[1]
        places = [self.dtype.fields[name][:2] for name in names]  # type: ignore[index]
        if places != [(dtype, start + i * dtype.itemsize) for i in range(len(names))]:
            raise LayoutError(f"{self.view}: features {', '.join(names)} do not lie side by side with one type")
        raw = fixed.view(np.uint8).reshape(len(fixed), self.dtype.itemsize)
        return np.ascontiguousarray(raw[:, start : start + len(names) * dtype.itemsize]).view(dtype)

    # Feast's own values ------------------------------------------------------------------------------------

    def pack_values(self, values: Mapping[str, Value], event_us: int, created_us: int) -> bytes:
        """One row from Feast's protobuf values."""
        plain: dict[str, Any] = {}
        for column in self.columns:
            value = values.get(column.name)
            which = value.WhichOneof("val") if value is not None else None
            if value is None or which is None or which == "null_val":
                continue
            found = getattr(value, which)
            plain[column.name] = list(found.val) if column.array else found
        return self.pack(plain, event_us, created_us)

    def unpack_values(self, row: bytes, names: Sequence[str] | None = None) -> dict[str, Value]:
        """Feast's protobuf values of one row, of the features `names` (all by default)."""
        from feast.protos.feast.types.Value_pb2 import Value

        plain = self.unpack(row)
        wanted = None if names is None else set(names)
        result: dict[str, Value] = {}
        for column in self.columns:
            if wanted is not None and column.name not in wanted:
                continue
            value, proto = plain[column.name], Value()
            if value is not None:
                if column.kind == "String":
                    proto.string_val = value
                elif column.array:
                    getattr(proto, _PROTO_LIST[column.kind]).val.extend(value.tolist())
                    getattr(proto, _PROTO_LIST[column.kind]).SetInParent()
                else:
                    setattr(proto, _PROTO[column.kind], value)
            result[column.name] = proto
        return result


def stamp(row: bytes) -> tuple[int, int]:
    """(event time, created time) of a packed row, Unix us: rows are newer in this order."""
    return _STAMP.unpack_from(row)


def _combined(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _micros(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Unix us of a timestamp column. Raises LayoutError on a null: a row without time has no order."""
    values = _combined(values)
    if values.null_count:
        raise LayoutError(f"{values.null_count} rows have no timestamp")
    return (
        values.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False).astype("datetime64[us]").view(np.int64)
    )


def _slices(values: pa.Array, column: Column) -> tuple[np.ndarray, memoryview, int]:
    """(offsets (n + 1,), the values' bytes, bytes an element) of a text or free array column."""
    if column.kind == "String":
        values = values.cast(pa.large_string())
        buffer = values.buffers()[2]
        offsets = np.frombuffer(values.buffers()[1], np.int64)[values.offset : values.offset + len(values) + 1]
        data = memoryview(buffer) if buffer is not None else memoryview(b"")
        return offsets, data, 1
    if values.null_count:
        # A null list may still span values in its buffers; rebuilt, it is empty.
        values = pa.array(values.to_pylist(), values.type)
    flat = values.flatten().to_numpy(zero_copy_only=False)
    offsets = values.offsets.to_numpy()
    flat = np.ascontiguousarray(flat, dtype=column.dtype)
    return offsets - offsets[0], memoryview(flat).cast("B"), column.dtype.itemsize
