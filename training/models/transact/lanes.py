"""Vectors of float32 as numba values, each a register, and matrix products made of them.

numba vectorises loops by itself, but keeps no tile of a product in registers, and a loop over a few dozen
numbers goes by the one at its end. Here a kernel says which numbers stand beside each other; memory is 2-D
C-contiguous float32 arrays, read and written LANES columns at a time.
"""

from __future__ import annotations

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

JIT = {"cache": True, "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, "_nrt": False}
"""Without numba's runtime: kernels make no array, and counting who holds which would cost them a fiftieth."""
INNER = {**JIT, "inline": "always"}
"""Of what a kernel is made of: otherwise compiled once for itself and again within every caller."""
_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _BITS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)
_COLUMN, _BYTES = ir.ArrayType(_VECTOR, ROWS), ir.IntType(8).as_pointer()
_MAXIMUM = f"llvm.maxnum.v{LANES}f32"
_FUSED = ("contract", "nnan", "nsz")


class _Registers(types.Type):
    """The type of `count` of them."""

    def __init__(self, name: str, count: int) -> None:
        self.count = count
        super().__init__(name)


lanes, column = _Registers("lanes", 1), _Registers("column", ROWS)
"""A register, and ROWS of them that stand below each other in an array."""


@register_model(_Registers)
class _RegistersModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: _Registers) -> None:
        super().__init__(dmm, fe_type, _VECTOR if fe_type.count == 1 else _COLUMN)


def _vectors(builder: ir.IRBuilder, kind: types.Type, value: ir.Value) -> list[ir.Value]:
    if kind == lanes:
        return [value] * ROWS
    return [builder.extract_value(value, n) for n in range(ROWS)]


def _column(builder: ir.IRBuilder, vectors: Sequence[ir.Value]) -> ir.Value:
    made = ir.Constant(_COLUMN, ir.Undefined)
    for n, vector in enumerate(vectors):
        made = builder.insert_value(made, vector, n)
    return made


def _each(
    builder: ir.IRBuilder, sig: Any, args: Any, make: Callable[[ir.Value, ir.Value], ir.Value]
) -> ir.Value:
    """`make` of two registers, or of each of a column's and what stands beside it."""
    if sig.return_type == lanes:
        return make(*args)
    left, right = (_vectors(builder, kind, value) for kind, value in zip(sig.args, args, strict=True))
    return _column(builder, [make(*pair) for pair in zip(left, right, strict=True)])


def _operator(function: Callable[..., Any], instruction: str) -> None:
    kinds = [(lanes, lanes), (column, column), (column, lanes)]

    class Template(ConcreteTemplate):
        cases = tuple(signature(left, left, right) for left, right in kinds)

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _each(builder, sig, args, lambda *pair: getattr(builder, instruction)(*pair, flags=_FUSED))

    infer_global(function)(Template)
    for left, right in kinds:
        lower_builtin(function, left, right)(lower)


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_function, _instruction)


def _called(builder: ir.IRBuilder, name: str, out: ir.Type, *args: ir.Value) -> ir.Value:
    kind = ir.FunctionType(out, [a.type for a in args])
    return builder.call(builder.module.declare_intrinsic(name, (), kind), args, fastmath=_FUSED)


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

    def at(self, *place: ir.Value) -> ir.Value:
        pointer = self.data
        for i, stride in zip(place, self.strides, strict=True):
            pointer = self.builder.gep(pointer, [self.builder.mul(i, stride)])
        return pointer

    def rows(self, *place: ir.Value) -> list[ir.Value]:
        """ROWS places below each other."""
        pointers = [self.at(*place)]
        for _ in range(1, ROWS):
            pointers.append(self.builder.gep(pointers[-1], [self.strides[0]]))
        return pointers

    def number(self, pointer: ir.Value) -> ir.Value:
        return self.builder.load(self.builder.bitcast(pointer, _F32.as_pointer()))

    def read(self, pointer: ir.Value, register: int = 0) -> ir.Value:
        return self.builder.load(self._vector(pointer, register), align=4)

    def write(self, vector: ir.Value, pointer: ir.Value) -> None:
        self.builder.store(vector, self._vector(pointer, 0), align=4)

    def _vector(self, pointer: ir.Value, register: int) -> ir.Value:
        moved = self.builder.gep(pointer, [ir.Constant(_I64, 4 * register * LANES)])
        return self.builder.bitcast(moved, _VECTOR.as_pointer())


@intrinsic
def load(typing_context, array, i, j):  # type: ignore[no-untyped-def]
    """array[i, j : j + LANES]."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        rows = _Rows(context, builder, sig.args[0], args[0])
        return rows.read(rows.at(args[1], args[2]))

    return lanes(array, types.intp, types.intp), lower


@intrinsic
def store(typing_context, array, i, j, vector):  # type: ignore[no-untyped-def]
    """array[i, j : j + LANES] = vector."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        rows = _Rows(context, builder, sig.args[0], args[0])
        rows.write(args[3], rows.at(args[1], args[2]))
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, lanes), lower


@intrinsic
def loads(typing_context, array, i, j):  # type: ignore[no-untyped-def]
    """`load` of ROWS rows from `i`."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        rows = _Rows(context, builder, sig.args[0], args[0])
        return _column(builder, [rows.read(pointer) for pointer in rows.rows(*args[1:])])

    return column(array, types.intp, types.intp), lower


@intrinsic
def stores(typing_context, array, i, j, rows):  # type: ignore[no-untyped-def]
    """`store` of ROWS rows from `i`."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        rows = _Rows(context, builder, sig.args[0], args[0])
        for vector, pointer in zip(_vectors(builder, column, args[3]), rows.rows(*args[1:3]), strict=True):
            rows.write(vector, pointer)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, column), lower


@intrinsic
def spreads(typing_context, array, i):  # type: ignore[no-untyped-def]
    """`spread` of ROWS numbers from `i` of a vector."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        rows = _Rows(context, builder, sig.args[0], args[0])
        return _column(builder, [_spread(builder, rows.number(pointer)) for pointer in rows.rows(args[1])])

    return column(array, types.intp), lower


@intrinsic
def spread(typing_context, number):  # type: ignore[no-untyped-def]
    """A float32 in every lane."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _spread(builder, args[0])

    return lanes(types.float32), lower


@intrinsic
def larger(typing_context, a, b):  # type: ignore[no-untyped-def]
    """The larger of two, lane by lane."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _each(builder, sig, args, lambda *pair: _called(builder, _MAXIMUM, _VECTOR, *pair))

    return a(a, b), lower


@intrinsic
def highest(typing_context, rows):  # type: ignore[no-untyped-def]
    """The largest of a column's registers, lane by lane."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return reduce(
            lambda *pair: _called(builder, _MAXIMUM, _VECTOR, *pair), _vectors(builder, column, args[0])
        )

    return lanes(column), lower


@intrinsic
def together(typing_context, rows):  # type: ignore[no-untyped-def]
    """The sum of a column's registers."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return reduce(lambda *pair: builder.fadd(*pair, flags=_FUSED), _vectors(builder, column, args[0]))

    return lanes(column), lower


@intrinsic
def largest(typing_context, vector):  # type: ignore[no-untyped-def]
    """The largest of a vector's numbers, a float32."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _called(builder, f"llvm.vector.reduce.fmax.v{LANES}f32", _F32, *args)

    return types.float32(lanes), lower


@intrinsic
def root(typing_context, vector):  # type: ignore[no-untyped-def]
    """Square roots."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _called(builder, f"llvm.sqrt.v{LANES}f32", _VECTOR, *args)

    return lanes(lanes), lower


@intrinsic
def times_power(typing_context, vector, exponent):  # type: ignore[no-untyped-def]
    """vector 2^n, n the integer in the last bits of `exponent`, by adding to the exponents' bits: both the
    factors and the products are normal numbers."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        bits, n = (builder.bitcast(a, _BITS) for a in args)
        moved = builder.shl(n, ir.Constant(_BITS, [23] * LANES))
        return builder.bitcast(builder.add(bits, moved), _VECTOR)

    return lanes(lanes, lanes), lower


def _tile(vectors: int) -> Any:
    """ROWS rows from `i` of what `product` makes, a column of registers beside the other."""

    @intrinsic
    def tile(typing_context, bias, a, b, at, i):  # type: ignore[no-untyped-def]
        def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            start, left, right = (_Rows(context, builder, sig.args[n], args[n]) for n in (0, 1, 2))
            at, i = args[3], args[4]
            begin = [_spread(builder, start.number(pointer)) for pointer in start.rows(i)]
            before = builder.block
            body, end = builder.append_basic_block("depth"), builder.append_basic_block("done")
            builder.branch(body)
            builder.position_at_end(body)
            k = builder.phi(_I64)
            sums = [[builder.phi(_VECTOR) for _ in range(vectors)] for _ in begin]
            row = right.at(k, at)
            beside = [right.read(row, n) for n in range(vectors)]
            after = builder.add(k, ir.Constant(_I64, 1))
            k.add_incoming(ir.Constant(_I64, 0), before)
            k.add_incoming(after, body)
            for pointer, first, own in zip(left.rows(i, k), begin, sums, strict=True):
                factor = _spread(builder, left.number(pointer))
                for n, one in enumerate(own):
                    product = builder.fmul(factor, beside[n], flags=_FUSED)
                    one.add_incoming(first, before)
                    one.add_incoming(builder.fadd(one, product, flags=_FUSED), body)
            builder.cbranch(builder.icmp_signed("<", after, left.shape[1]), body, end)
            builder.position_at_end(end)
            made = [[own[n].incomings[1][0] for own in sums] for n in range(vectors)]
            return context.make_tuple(builder, sig.return_type, [_column(builder, rows) for rows in made])

        return types.UniTuple(column, vectors)(bias, a, b, types.intp, types.intp), lower

    return tile


_two, _three = _tile(2), _tile(3)


@numba.njit(**INNER)
def tiled(ending, panel, out, to, more, bias, a, b, at, vectors):  # type: ignore[no-untyped-def]
    """`ending` (rows, i, j, panel, out, to, more) for all that `product` makes, while it is in registers.

    `rows` is a column, ROWS rows from i and LANES columns from j; the last four are handed on as they are.
    """
    for i in range(0, a.shape[0], ROWS):
        if vectors == 3:
            first, second, third = _three(bias, a, b, at, i)
            ending(first, i, 0, panel, out, to, more)
            ending(second, i, LANES, panel, out, to, more)
            ending(third, i, 2 * LANES, panel, out, to, more)
        else:
            first, second = _two(bias, a, b, at, i)
            ending(first, i, 0, panel, out, to, more)
            ending(second, i, LANES, panel, out, to, more)


@numba.njit(**JIT)
def stored(rows, i, j, panel, out, to, more):  # type: ignore[no-untyped-def]
    stores(out, i, to + j, rows)


@numba.njit(**JIT)
def product(out, to, bias, a, b, at, vectors):  # type: ignore[no-untyped-def]
    """out[:m, to : to + w] = bias[:m, None] + a @ b[:k, at : at + w], w = `vectors` LANES.

    `a` is (m, k), strides as they are; m a multiple of ROWS, k > 0, `vectors` 2 or VECTORS.
    """
    tiled(stored, None, out, to, None, bias, a, b, at, vectors)
