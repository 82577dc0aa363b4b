"""Blocks of registers of float32 as numba values, and matrix products made of them.

numba vectorises loops by itself, but keeps no tile of a product in registers, and a loop over a few dozen
numbers goes by the one at its end. Here a kernel says which numbers stand beside each other; memory is
C-contiguous float32 arrays, read and written LANES columns at a time.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 8
"""Numbers in a register."""
ROWS, VECTORS = 4, 3
"""A product's tile: so many rows by registers fill 12 registers with sums, and no CPU waits for one of them."""
DEEP = 4
"""Products added to a tile's sums between two looks at whether that was all."""

JIT = {"cache": True, "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, "_nrt": False}
"""Without numba's runtime: kernels make no array, and counting who holds which would cost them a fiftieth."""
INNER = {**JIT, "inline": "always"}
"""Of what a kernel is made of: otherwise compiled once for itself and again within every caller."""
_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _BITS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)
_BYTES = ir.IntType(8).as_pointer()
_FUSED = ("contract", "nnan", "nsz")


class _Registers(types.Type):
    """The type of a block: `rows` registers below each other, `columns` beside each other."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        super().__init__(f"{rows} x {columns} registers")

    def places(self) -> itertools.product[tuple[int, int]]:
        return itertools.product(range(self.rows), range(self.columns))


_shapes = {(r, c): _Registers(r, c) for r in (1, ROWS) for c in range(1, VECTORS + 1)}
_lanes, _column = _shapes[1, 1], _shapes[ROWS, 1]


@register_model(_Registers)
class _RegistersModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: _Registers) -> None:
        super().__init__(dmm, fe_type, ir.ArrayType(_VECTOR, fe_type.rows * fe_type.columns))


def _wider(*kinds: _Registers) -> _Registers | None:
    """What two make number by number, one row or column standing for every one; None if they do not fit."""
    rows, columns = {k.rows for k in kinds} - {1}, {k.columns for k in kinds} - {1}
    if len(rows) > 1 or len(columns) > 1:
        return None
    return _shapes[max(rows, default=1), max(columns, default=1)]


def _register(builder: ir.IRBuilder, kind: _Registers, value: ir.Value, row: int, column: int) -> ir.Value:
    return builder.extract_value(value, row % kind.rows * kind.columns + column % kind.columns)


def _block(builder: ir.IRBuilder, vectors: Sequence[ir.Value]) -> ir.Value:
    made = ir.Constant(ir.ArrayType(_VECTOR, len(vectors)), ir.Undefined)
    for n, vector in enumerate(vectors):
        made = builder.insert_value(made, vector, n)
    return made


def _each(make: Callable[..., ir.Value]) -> Callable[..., ir.Value]:
    """Lowering: `make` (builder, registers) of those that stand in the same place of every block."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        made = []
        for place in sig.return_type.places():
            given = (_register(builder, kind, a, *place) for kind, a in zip(sig.args, args, strict=True))
            made.append(make(builder, *given))
        return _block(builder, made)

    return lower


def _operator(function: Callable[..., Any], instruction: str) -> None:
    kinds = [pair for pair in itertools.product(_shapes.values(), repeat=2) if _wider(*pair)]
    lower = _each(lambda builder, *pair: getattr(builder, instruction)(*pair, flags=_FUSED))

    class Template(ConcreteTemplate):
        cases = tuple(signature(_wider(*pair), *pair) for pair in kinds)

    infer_global(function)(Template)
    for pair in kinds:
        lower_builtin(function, *pair)(lower)


for _function in (operator.add, operator.sub, operator.mul, operator.truediv):
    _operator(_function, "f" + _function.__name__.removeprefix("true"))


def _added(builder: ir.IRBuilder, *pair: ir.Value) -> ir.Value:
    return builder.fadd(*pair, flags=_FUSED)


def _larger(builder: ir.IRBuilder, *pair: ir.Value) -> ir.Value:
    """Of as many numbers as there are."""
    return builder.select(builder.fcmp_ordered(">", *pair, flags=_FUSED), *pair)


def _spread(builder: ir.IRBuilder, number: ir.Value) -> ir.Value:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_BITS, [0] * LANES))


class _Rows:
    """An array argument of an intrinsic, addressed by row and column."""

    def __init__(self, context: Any, builder: ir.IRBuilder, kind: types.Array, value: ir.Value) -> None:
        array = context.make_array(kind)(context, builder, value)
        self.builder, self.data = builder, builder.bitcast(array.data, _BYTES)
        self.shape = cgutils.unpack_tuple(builder, array.shape)
        self.strides = cgutils.unpack_tuple(builder, array.strides)  # bytes
        if kind.layout == "C":
            self.strides[-1] = ir.Constant(_I64, 4)

    def rows(self, count: int, *place: ir.Value) -> list[ir.Value]:
        """Pointers to `count` places below each other."""
        pointer = self.data
        for i, stride in zip(place, self.strides, strict=True):
            pointer = self.builder.gep(pointer, [self.builder.mul(i, stride)])
        pointers = [pointer]
        for _ in range(1, count):
            pointers.append(self.builder.gep(pointers[-1], [self.strides[0]]))
        return pointers

    def number(self, pointer: ir.Value) -> ir.Value:
        return self.builder.load(self.builder.bitcast(pointer, _F32.as_pointer()))

    def read(self, pointer: ir.Value, column: int = 0) -> ir.Value:
        return self.builder.load(self._beside(pointer, column, _VECTOR), align=4)

    def write(self, vector: ir.Value, pointer: ir.Value, column: int = 0) -> None:
        self.builder.store(vector, self._beside(pointer, column, vector.type), align=4)

    def _beside(self, pointer: ir.Value, column: int, kind: ir.Type) -> ir.Value:
        moved = self.builder.gep(pointer, [ir.Constant(_I64, 4 * column * LANES)])
        return self.builder.bitcast(moved, kind.as_pointer())


def _loaded(kind: _Registers, arguments: Sequence[types.Type]) -> tuple[Any, Any]:
    """An intrinsic that reads a block; array, i and j are its last arguments."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        array = _Rows(context, builder, sig.args[-3], args[-3])
        pointers = array.rows(kind.rows, *args[-2:])
        return _block(builder, [array.read(pointers[row], column) for row, column in kind.places()])

    return kind(*arguments[:-2], types.intp, types.intp), lower


@intrinsic
def load(typing_context, array, i, j):  # type: ignore[no-untyped-def]
    """A register: array[i, j : j + LANES]."""
    return _loaded(_lanes, (array, i, j))


@intrinsic
def loads(typing_context, array, i, j):  # type: ignore[no-untyped-def]
    """A column: array[i : i + ROWS, j : j + LANES]."""
    return _loaded(_column, (array, i, j))


@intrinsic
def like(typing_context, block, array, i, j):  # type: ignore[no-untyped-def]
    """As many rows and registers of `array` from i and j on as `block` has."""
    return _loaded(block, (block, array, i, j))


@intrinsic
def row_like(typing_context, block, array, i, j):  # type: ignore[no-untyped-def]
    """As many registers of array[i] from j on as a row of `block` has."""
    return _loaded(_shapes[1, block.columns], (block, array, i, j))


@intrinsic
def store(typing_context, array, i, j, block):  # type: ignore[no-untyped-def]
    """array[i : , j : ] = block, as far as it goes."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        out = _Rows(context, builder, sig.args[0], args[0])
        pointers = out.rows(block.rows, *args[1:3])
        for row, column in block.places():
            out.write(_register(builder, block, args[3], row, column), pointers[row], column)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, block), lower


@intrinsic
def spread(typing_context, number):  # type: ignore[no-untyped-def]
    """A register with a float32 in every lane."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _block(builder, [_spread(builder, args[0])])

    return _lanes(types.float32), lower


@intrinsic
def spreads(typing_context, array, i, j):  # type: ignore[no-untyped-def]
    """A column of ROWS numbers, array[i, j : j + ROWS], each in every lane of its register."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        rows = _Rows(context, builder, sig.args[0], args[0])
        (pointer,) = rows.rows(1, *args[1:])
        numbers = [builder.gep(pointer, [ir.Constant(_I64, 4 * n)]) for n in range(ROWS)]
        return _block(builder, [_spread(builder, rows.number(at)) for at in numbers])

    return _column(array, types.intp, types.intp), lower


@intrinsic
def larger(typing_context, a, b):  # type: ignore[no-untyped-def]
    """The larger of two, number by number."""
    return _wider(a, b)(a, b), _each(_larger)


@intrinsic
def root(typing_context, block):  # type: ignore[no-untyped-def]
    """Square roots."""

    def make(builder: ir.IRBuilder, vector: ir.Value) -> ir.Value:
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        function = builder.module.declare_intrinsic(f"llvm.sqrt.v{LANES}f32", (), kind)
        return builder.call(function, [vector], fastmath=_FUSED)

    return block(block), _each(make)


@intrinsic
def times_power(typing_context, block, exponent):  # type: ignore[no-untyped-def]
    """block 2^n, n the integer in the last bits of `exponent`, by adding to the exponents' bits: both the
    factors and the products are normal numbers."""

    def make(builder: ir.IRBuilder, *args: ir.Value) -> ir.Value:
        bits, n = (builder.bitcast(a, _BITS) for a in args)
        moved = builder.shl(n, ir.Constant(_BITS, [23] * LANES))
        return builder.bitcast(builder.add(bits, moved), _VECTOR)

    return block(block, exponent), _each(make)


def _turned(builder: ir.IRBuilder, rows: ir.Value) -> list[ir.Value]:
    """A column transposed: ROWS registers, of the numbers n, n + ROWS, ... of its rows one behind the other."""

    def both(left: ir.Value, right: ir.Value, places: Sequence[int]) -> ir.Value:
        """`places` of every four numbers of `left`, those from 4 on of `right`."""
        mask = [at + p % 4 + (LANES if p >= 4 else 0) for at in range(0, LANES, 4) for p in places]
        return builder.shuffle_vector(left, right, ir.Constant(_BITS, mask))

    first, second, third, fourth = (_register(builder, _column, rows, n, 0) for n in range(ROWS))
    made = []
    for halves in ((0, 4, 1, 5), (2, 6, 3, 7)):
        upper, lower = both(first, second, halves), both(third, fourth, halves)
        made += [both(upper, lower, (0, 1, 4, 5)), both(upper, lower, (2, 3, 6, 7))]
    return made


def _parts(builder: ir.IRBuilder, vector: ir.Value) -> list[ir.Value]:
    """A register's numbers, ROWS at a time."""
    masks = [list(range(at, at + ROWS)) for at in range(0, LANES, ROWS)]
    kind, nothing = ir.VectorType(_I32, ROWS), ir.Constant(_VECTOR, ir.Undefined)
    return [builder.shuffle_vector(vector, nothing, ir.Constant(kind, mask)) for mask in masks]


@intrinsic
def store_turned(typing_context, array, i, j, column):  # type: ignore[no-untyped-def]
    """array[i : i + LANES, j : j + ROWS] = column, transposed."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        out = _Rows(context, builder, sig.args[0], args[0])
        pointers = out.rows(LANES, *args[1:3])
        for n, vector in enumerate(_turned(builder, args[3])):
            for part, pointer in zip(_parts(builder, vector), pointers[n::ROWS], strict=True):
                out.write(part, pointer)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, column), lower


def _across(make: Callable[..., ir.Value], sig: Any) -> tuple[Any, Any]:
    """An intrinsic that stores what `make` (builder, two registers) leaves of each register of a column."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        def one(vectors: Sequence[ir.Value]) -> ir.Value:
            return reduce(lambda *pair: make(builder, *pair), vectors)

        out = _Rows(context, builder, sig.args[0], args[0])
        (pointer,) = out.rows(1, *args[1:3])
        out.write(one(_parts(builder, one(_turned(builder, args[3])))), pointer)
        return context.get_dummy_value()

    return sig, lower


@intrinsic
def store_sums(typing_context, array, i, j, column):  # type: ignore[no-untyped-def]
    """array[i, j : j + ROWS] = the sum of each register of `column`."""
    return _across(_added, types.void(array, types.intp, types.intp, column))


@intrinsic
def store_largest(typing_context, array, i, j, column):  # type: ignore[no-untyped-def]
    """array[i, j : j + ROWS] = the largest number of each register of `column`."""
    return _across(_larger, types.void(array, types.intp, types.intp, column))


def _tile(vectors: int) -> Any:
    """A block of ROWS rows of left @ right, from row `i` on."""

    @intrinsic
    def tile(typing_context, left, right, i):  # type: ignore[no-untyped-def]
        kind = _shapes[ROWS, vectors]

        def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            a, b = (_Rows(context, builder, sig.args[n], args[n]) for n in (0, 1))
            none = ir.Constant(_I64, 0)
            before = builder.block
            body, end = builder.append_basic_block("depth"), builder.append_basic_block("done")
            builder.branch(body)
            builder.position_at_end(body)
            k = builder.phi(_I64)
            sums = {place: builder.phi(_VECTOR) for place in kind.places()}
            made = dict(sums)
            for deep in range(DEEP):
                at = builder.add(k, ir.Constant(_I64, deep))
                (row,) = b.rows(1, at, none)
                beside = [b.read(row, n) for n in range(vectors)]
                factors = [_spread(builder, a.number(pointer)) for pointer in a.rows(ROWS, args[2], at)]
                for place in kind.places():
                    product = builder.fmul(factors[place[0]], beside[place[1]], flags=_FUSED)
                    made[place] = _added(builder, made[place], product)
            after = builder.add(k, ir.Constant(_I64, DEEP))
            k.add_incoming(none, before)
            k.add_incoming(after, body)
            for place, one in sums.items():
                one.add_incoming(ir.Constant(_VECTOR, [0.0] * LANES), before)
                one.add_incoming(made[place], body)
            builder.cbranch(builder.icmp_signed("<", after, b.shape[0]), body, end)
            builder.position_at_end(end)
            return _block(builder, [made[place] for place in kind.places()])

        return kind(left, right, types.intp), lower

    return tile


_two, _three = _tile(2), _tile(3)


@numba.njit(**JIT)
def taken(wide, at):  # type: ignore[no-untyped-def]
    """Registers of the next strip: VECTORS, but two and two rather than one alone, which waits for itself."""
    left = (wide - at) // LANES
    return 2 if left == VECTORS + 1 else min(left, VECTORS)


@numba.njit(**INNER)
def tiled(ending, left, rows, right, wide, to, more, last):  # type: ignore[no-untyped-def]
    """`ending` (tile, i, j, strip, to, more, last) for all of left[:rows] @ `right`, while it is in registers.

    `left` is (rows, >= k), `right` a matrix (k, wide) in strips (n, k, VECTORS LANES) of `taken` registers
    each; k is a multiple of DEEP, `rows` of ROWS. `tile` is a block of ROWS rows from i and the columns from j,
    where `strip` begins. The last three are handed on as they are.
    """
    at = strip = 0
    while at < wide:
        vectors, part = taken(wide, at), right[strip]
        if vectors == 3:
            for i in range(0, rows, ROWS):
                ending(_three(left, part, i), i, at, strip, to, more, last)
        else:
            for i in range(0, rows, ROWS):
                ending(_two(left, part, i), i, at, strip, to, more, last)
        at += vectors * LANES
        strip += 1
