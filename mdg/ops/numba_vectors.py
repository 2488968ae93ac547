"""Vectors of 16 floats as values of numba's language, for loops over many arrays at once.

LLVM turns such a loop into vector instructions only where it has compared the places of all arrays first, at every
entry, and a loop over a few vectors then spends most of its time on that. Here the kernel itself says what is a vector.
Importing this module imports numba; what :mod:`mdg.ops.numba_math` says of changes holds here too.

Arrays are taken as flat: ``load(X, x)`` is ``X.flat[x : x + 16]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from mdg.ops import numba_math as nm
from mdg.ops.numba_math import LANES, LOG2_E, VECTOR, across_lanes, address, as_vector, data, everywhere, f32, part

CONTRACT = ("contract",)
S3, S5, S7, S9, S11, S13 = (f32(1 / odd) for odd in (3, 5, 7, 9, 11, 13))  # series of the inverse tanh


class VectorType(types.Type):
    """16 floats."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


vector = VectorType()


@register_model(VectorType)
class VectorModel(models.PrimitiveModel):
    """In a register of LLVM."""

    def __init__(self, manager, numba_type):
        super().__init__(manager, numba_type, VECTOR)


def _make(operands: int, build: Callable[..., Any]) -> Callable[..., Any]:
    """An operation on vectors; ``build`` gets LLVM's builder and the operands."""

    def codegen(context, builder, signature, arguments):
        return build(builder, *arguments)

    signature = vector(*[vector] * operands)
    takes = {
        1: lambda context, a: (signature, codegen),
        2: lambda context, a, b: (signature, codegen),
        3: lambda context, a, b, c: (signature, codegen),
    }
    return intrinsic(takes[operands])


add = _make(2, lambda builder, a, b: builder.fadd(a, b, flags=CONTRACT))
sub = _make(2, lambda builder, a, b: builder.fsub(a, b, flags=CONTRACT))
mul = _make(2, lambda builder, a, b: builder.fmul(a, b, flags=CONTRACT))
div = _make(2, lambda builder, a, b: builder.fdiv(a, b))
# ``a b + c``, in one instruction where the processor has it.
fma = _make(3, lambda builder, a, b, c: builder.fadd(builder.fmul(a, b, flags=CONTRACT), c, flags=CONTRACT))
# ``a`` where it is not below ``b``, else ``b``; what is no number stays.
at_least = _make(2, lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), b, a))


def _nearest_integer(builder, a: ir.Value) -> ir.Value:
    kind = ir.FunctionType(VECTOR, [VECTOR])
    return builder.call(builder.module.declare_intrinsic(f"llvm.rint.v{LANES}f32", (), kind), [a])


def _times_power_of_two(builder, a: ir.Value, exponent: ir.Value) -> ir.Value:
    integers = ir.VectorType(nm.I32, LANES)
    shifted = builder.shl(builder.fptosi(exponent, integers), ir.Constant(integers, [23] * LANES))
    return builder.bitcast(builder.add(builder.bitcast(a, integers), shifted), VECTOR)


nearest_integer, times_power_of_two = _make(1, _nearest_integer), _make(2, _times_power_of_two)


@intrinsic
def load(context, X, x):
    """16 numbers from X[x] on."""

    def codegen(context, builder, signature, arguments):
        place = address(builder, data(context, builder, X, arguments[0]), arguments[1])
        return builder.load(as_vector(builder, place), align=4)

    return vector(X, types.intp), codegen


@intrinsic
def store(context, X, x, value):
    """Writes 16 numbers from X[x] on."""

    def codegen(context, builder, signature, arguments):
        place = address(builder, data(context, builder, X, arguments[0]), arguments[1])
        builder.store(arguments[2], as_vector(builder, place), align=4)
        return context.get_dummy_value()

    return types.void(X, types.intp, vector), codegen


@intrinsic
def fill(context, number):
    """A vector with the number in all lanes."""

    def codegen(context, builder, signature, arguments):
        return everywhere(builder, arguments[0])

    return vector(types.float32), codegen


@intrinsic
def spread(context, X, x):
    """A vector with X[x] in all lanes."""

    def codegen(context, builder, signature, arguments):
        place = address(builder, data(context, builder, X, arguments[0]), arguments[1])
        return everywhere(builder, builder.load(place, align=4))

    return vector(X, types.intp), codegen


@intrinsic
def put(context, X, x, number):
    """Writes one number to X[x]."""

    def codegen(context, builder, signature, arguments):
        builder.store(arguments[2], address(builder, data(context, builder, X, arguments[0]), arguments[1]), align=4)
        return context.get_dummy_value()

    return types.void(X, types.intp, types.float32), codegen


@intrinsic
def total(context, a):
    """The sum of all lanes, always in the same order."""

    def codegen(context, builder, signature, arguments):
        summed = across_lanes(builder, arguments[0], lambda builder, a, b: builder.fadd(a, b))
        return builder.extract_element(summed, nm.I32(0))

    return types.float32(vector), codegen


@part
def exp2(x):
    """:func:`mdg.ops.numba_math.exp2` of each lane."""
    clamped = at_least(x, fill(nm.LOWEST))
    whole = nearest_integer(clamped)
    rest = sub(clamped, whole)
    polynomial = fma(fill(nm.E6), rest, fill(nm.E5))
    polynomial = fma(polynomial, rest, fill(nm.E4))
    polynomial = fma(polynomial, rest, fill(nm.E3))
    polynomial = fma(polynomial, rest, fill(nm.E2))
    polynomial = fma(polynomial, rest, fill(nm.E1))
    return times_power_of_two(fma(polynomial, rest, fill(f32(1))), whole)


@part
def softplus(x):
    """``log(1 + exp(x))`` in float32, as ``max(x, 0) + 2 artanh(t / (2 + t))`` with ``t = exp(-|x|)``."""
    zero = fill(f32(0))
    above = at_least(x, zero)
    t = exp2(mul(sub(x, add(above, above)), fill(LOG2_E)))  # x - 2 max(x, 0) is -|x|
    s = div(t, add(fill(f32(2)), t))
    q = mul(s, s)
    series = fma(fill(S13), q, fill(S11))
    series = fma(series, q, fill(S9))
    series = fma(series, q, fill(S7))
    series = fma(series, q, fill(S5))
    series = fma(series, q, fill(S3))
    return fma(add(s, s), fma(series, q, fill(f32(1))), above)
