"""Vectors of float32 as numba values, each a register, and matrix products made of them.

numba vectorises loops by itself, but keeps no tile of a product in registers, and a loop over a few dozen
numbers goes by the one at its end. Here a kernel says which numbers stand beside each other; memory is 2-D
C-contiguous float32 arrays, read and written LANES columns at a time.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
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

JIT = {"cache": True, "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
INNER = {**JIT, "inline": "always"}
"""Of what a kernel is made of: otherwise compiled once for itself and again within every caller."""
_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _BITS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)
_FUSED = ("contract", "nnan", "nsz")


class _Lanes(types.Type):
    """The type of such a vector."""


lanes = _Lanes("lanes")


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: types.Type) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


def _operator(function: Callable[..., Any], instruction: str) -> None:
    class Template(ConcreteTemplate):
        cases = (signature(lanes, lanes, lanes),)

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return getattr(builder, instruction)(*args, flags=_FUSED)

    infer_global(function)(Template)
    lower_builtin(function, lanes, lanes)(lower)


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
        size = ir.Constant(_I64, 4)
        self.builder, self.data = builder, array.data
        self.shape = cgutils.unpack_tuple(builder, array.shape)
        self.strides = [builder.sdiv(s, size) for s in cgutils.unpack_tuple(builder, array.strides)]

    def at(self, *place: ir.Value | int) -> ir.Value:
        pointer = self.data
        for i, stride in zip(place, self.strides, strict=True):
            i = ir.Constant(_I64, i) if isinstance(i, int) else i
            pointer = self.builder.gep(pointer, [self.builder.mul(i, stride)])
        return pointer

    def read(self, pointer: ir.Value, register: int = 0) -> ir.Value:
        return self.builder.load(self._vector(pointer, register), align=4)

    def write(self, vector: ir.Value, pointer: ir.Value, register: int = 0) -> None:
        self.builder.store(vector, self._vector(pointer, register), align=4)

    def _vector(self, pointer: ir.Value, register: int) -> ir.Value:
        moved = self.builder.gep(pointer, [ir.Constant(_I64, register * LANES)])
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
def spread(typing_context, number):  # type: ignore[no-untyped-def]
    """A float32 in every lane."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _spread(builder, args[0])

    return lanes(types.float32), lower


@intrinsic
def larger(typing_context, a, b):  # type: ignore[no-untyped-def]
    """The larger of two, lane by lane."""

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _called(builder, f"llvm.maxnum.v{LANES}f32", _VECTOR, *args)

    return lanes(lanes, lanes), lower


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
    """ROWS rows from `i` of what `product` makes, their sums in registers."""

    @intrinsic
    def tile(typing_context, out, to, bias, a, b, at, i):  # type: ignore[no-untyped-def]
        def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            o, start, left, right = (_Rows(context, builder, sig.args[n], args[n]) for n in (0, 2, 3, 4))
            to, at, i = args[1], args[5], args[6]
            places = [builder.add(i, ir.Constant(_I64, row)) for row in range(ROWS)]
            begin = [_spread(builder, builder.load(start.at(place))) for place in places]
            before = builder.block
            body, end = builder.append_basic_block("depth"), builder.append_basic_block("done")
            builder.branch(body)
            builder.position_at_end(body)
            k = builder.phi(_I64)
            sums = [[builder.phi(_VECTOR) for _ in range(vectors)] for _ in places]
            row = right.at(k, at)
            beside = [right.read(row, n) for n in range(vectors)]
            after = builder.add(k, ir.Constant(_I64, 1))
            k.add_incoming(ir.Constant(_I64, 0), before)
            k.add_incoming(after, body)
            for place, first, own in zip(places, begin, sums, strict=True):
                factor = _spread(builder, builder.load(left.at(place, k)))
                for n, one in enumerate(own):
                    product = builder.fmul(factor, beside[n], flags=_FUSED)
                    one.add_incoming(first, before)
                    one.add_incoming(builder.fadd(one, product, flags=_FUSED), body)
            builder.cbranch(builder.icmp_signed("<", after, left.shape[1]), body, end)
            builder.position_at_end(end)
            for place, own in zip(places, sums, strict=True):
                for n, one in enumerate(own):
                    o.write(one.incomings[1][0], o.at(place, to), n)
            return context.get_dummy_value()

        kinds = (out, types.intp, bias, a, b, types.intp, types.intp)
        return types.void(*kinds), lower

    return tile


_one, _two, _three = _tile(1), _tile(2), _tile(3)


@numba.njit(**JIT)
def product(out, to, bias, a, b, at, vectors):  # type: ignore[no-untyped-def]
    """out[:m, to : to + w] = bias[:m, None] + a @ b[:k, at : at + w], w = `vectors` LANES.

    `a` is (m, k), strides as they are; m a multiple of ROWS, k > 0, 1 to VECTORS `vectors`.
    """
    for i in range(0, a.shape[0], ROWS):
        if vectors == 3:
            _three(out, to, bias, a, b, at, i)
        elif vectors == 2:
            _two(out, to, bias, a, b, at, i)
        else:
            _one(out, to, bias, a, b, at, i)
