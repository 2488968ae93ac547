"""What the numba kernels share: how they are compiled, floating-point rules, a fast ``exp2``, products and
transposition of small matrices. Importing this module imports numba.

Compiling takes a minute, so what was compiled is kept on disk. A cache is no promise, though: it may be impossible to
write, full or damaged. Importing kernels never fails for that, and neither does calling them. After a change here
remove the ``__pycache__`` folders of ``mdg/ops``: numba compiles a cached kernel again only when the kernel's own file
has changed.

numba turns loops into vector instructions well where they are elementwise, not where sums should stay in registers.
Those few are written in LLVM's vectors of 16 floats, which LLVM maps to the registers of any CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

f32 = np.float32
LOG2_E = f32(1.4426950408889634)
# No reordering of single sums and no assumption that numbers are finite: a NaN in the input must come out, so
# comparisons are written such that it takes the branch that keeps it.
FAST = {"contract", "nsz"}
# Sums over many elements may be reordered; that is what makes them vector sums. error_model="numpy" does the same for
# divisions: Python's check for zero is a branch.
FAST_SUMS = {"contract", "nsz", "arcp", "reassoc"}
# Chebyshev fit of (exp2(x) - 1) / x on -0.5..0.5; exp2 comes out within 1e-7 relative.
E1, E2, E3, E4, E5, E6 = (
    f32(c)
    for c in (
        0.6931471880293425,
        0.2402265092234266,
        0.055503571042527775,
        0.009618056669896128,
        0.0013390867351436937,
        0.00015461447459821253,
    )
)
LOWEST = f32(-125.0)  # exp2 below it would leave the normal numbers; 2e-38 serves as zero
# Softmax weights below 2**-100 become zero; near 2**-126 numbers lose digits and, on some CPUs, speed.
NEGLIGIBLE = f32(-100.0)
LANES = 16
# Vectors that a product may be wide. Sums stay in registers, and CPUs without registers of 16 floats have few.
WIDEST_PRODUCT = 4 if "+avx512f" in get_host_cpu_features() else 1

I32, I64, F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
VECTOR = ir.VectorType(F32, LANES)


@intrinsic
def _nearest_integer(context, x):
    def codegen(context, builder, signature, arguments):
        return builder.call(builder.module.declare_intrinsic("llvm.rint", [F32]), arguments)

    return types.float32(types.float32), codegen


@intrinsic
def _times_power_of_two(context, x, exponent):
    """``x * 2**exponent`` for an integral float, by adding it to the exponent bits."""

    def codegen(context, builder, signature, arguments):
        shifted = builder.shl(builder.fptosi(arguments[1], I32), ir.Constant(I32, 23))
        return builder.bitcast(builder.add(builder.bitcast(arguments[0], I32), shifted), F32)

    return types.float32(types.float32, types.float32), codegen


@numba.njit(inline="always", fastmath=FAST, error_model="numpy")
def exp2(x):
    """``2**x`` in float32 for x up to 127."""
    clamped = LOWEST if x < LOWEST else x
    whole = _nearest_integer(clamped)
    part = clamped - whole
    polynomial = (((((E6 * part + E5) * part + E4) * part + E3) * part + E2) * part + E1) * part + f32(1)
    return _times_power_of_two(polynomial, whole)


def data(context, builder, array_type: types.Array, array: ir.Value) -> ir.Value:
    return context.make_array(array_type)(context, builder, array).data


def address(builder, base: ir.Value, offset: ir.Value, *terms: tuple[int | ir.Value, ir.Value]) -> ir.Value:
    """Pointer to element ``offset + sum(index * stride)``."""
    for index, stride in terms:
        offset = builder.add(offset, builder.mul(I64(index) if isinstance(index, int) else index, stride))
    return builder.gep(base, [offset], inbounds=True)


def as_vector(builder, pointer: ir.Value) -> ir.Value:
    return builder.bitcast(pointer, VECTOR.as_pointer())


def everywhere(builder, number: ir.Value) -> ir.Value:
    """A vector with the number in all lanes."""
    unset = ir.Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(unset, number, I32(0))
    return builder.shuffle_vector(first, unset, ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))


def make_product(M: int, N: int) -> Callable[..., None]:
    """An intrinsic ``product(C, c, c_m, c_n, keep, A, a, a_m, a_t, B, b, b_t, b_n, T)``. For m < M, n < N and each lane

        ``C[c + m c_m + n c_n + lane] = sum_{t < T} A[a + m a_m + t a_t] B[b + t b_t + n b_n + lane]``

    plus what stood there if ``keep``. A, B, C are float32 arrays, taken as flat; the rest are offsets and strides in
    elements. The ``M N`` sums stay in registers.
    """

    @intrinsic
    def product(context, C, c, c_m, c_n, keep, A, a, a_m, a_t, B, b, b_t, b_n, T):
        def codegen(context, builder, signature, arguments):
            C, c, c_m, c_n, keep, A, a, a_m, a_t, B, b, b_t, b_n, T = arguments
            C, A, B = (
                data(context, builder, signature.args[place], array) for place, array in ((0, C), (5, A), (9, B))
            )
            blocks = [(m, n) for m in range(M) for n in range(N)]
            places = {(m, n): as_vector(builder, address(builder, C, c, (m, c_m), (n, c_n))) for m, n in blocks}
            sums = {block: cgutils.alloca_once(builder, VECTOR) for block in blocks}  # LLVM puts them into registers
            for block in blocks:
                before = builder.load(places[block], align=4)
                builder.store(builder.select(keep, before, ir.Constant(VECTOR, [0.0] * LANES)), sums[block])
            with cgutils.for_range(builder, T) as loop:
                t = loop.index
                vectors = [address(builder, B, b, (t, b_t), (n, b_n)) for n in range(N)]
                vectors = [builder.load(as_vector(builder, pointer), align=4) for pointer in vectors]
                for m in range(M):
                    factor = everywhere(builder, builder.load(address(builder, A, a, (m, a_m), (t, a_t))))
                    for n in range(N):
                        term = builder.fmul(factor, vectors[n], flags=("contract",))
                        total = builder.fadd(builder.load(sums[m, n]), term, flags=("contract",))
                        builder.store(total, sums[m, n])
            for block in blocks:
                builder.store(builder.load(sums[block]), places[block], align=4)
            return context.get_dummy_value()

        i = types.intp
        return types.void(C, i, i, i, types.boolean, A, i, i, i, B, i, i, i, i), codegen

    return product


def make_products(rows: int, widest: int, inline: bool = False) -> Callable[..., None]:
    """:func:`make_product` for ``rows`` rows and any number of vectors, the last argument of what it returns: as many
    at a time as ``widest`` and the processor allow. Inlined, a constant T unrolls and a constant ``keep`` vanishes."""
    widest = min(widest, WIDEST_PRODUCT)
    one, two, four = (make_product(rows, min(width, widest)) for width in (1, 2, 4))

    @numba.njit(forceinline=inline, nogil=True, fastmath=FAST_SUMS, error_model="numpy")
    def products(C, c, c_m, c_n, keep, A, a, a_m, a_t, B, b, b_t, b_n, T, N):
        n = 0
        if widest >= 4:
            while n + 4 <= N:
                four(C, c + n * c_n, c_m, c_n, keep, A, a, a_m, a_t, B, b + n * b_n, b_t, b_n, T)
                n += 4
        if widest >= 2:
            while n + 2 <= N:
                two(C, c + n * c_n, c_m, c_n, keep, A, a, a_m, a_t, B, b + n * b_n, b_t, b_n, T)
                n += 2
        while n < N:
            one(C, c + n * c_n, c_m, c_n, keep, A, a, a_m, a_t, B, b + n * b_n, b_t, b_n, T)
            n += 1

    return products


@intrinsic
def transpose_block(context, X, x, x_row, Y, y, y_row):
    """``Y[y + i y_row + j] = X[x + j x_row + i]`` for i, j < 16: four rounds that interleave the halves of the rows."""

    def codegen(context, builder, signature, arguments):
        X, x, x_row, Y, y, y_row = arguments
        X, Y = data(context, builder, signature.args[0], X), data(context, builder, signature.args[3], Y)
        order = [lane // 2 + lane % 2 * LANES for lane in range(LANES)]
        orders = [
            ir.Constant(ir.VectorType(I32, LANES), [lane + half * LANES // 2 for lane in order]) for half in (0, 1)
        ]
        rows = [as_vector(builder, address(builder, X, x, (n, x_row))) for n in range(LANES)]
        rows = [builder.load(row, align=4) for row in rows]
        for _ in range(LANES.bit_length() - 1):
            pairs = [(rows[n], rows[n + LANES // 2]) for n in range(LANES // 2)]
            rows = [builder.shuffle_vector(*pair, order) for pair in pairs for order in orders]
        for n, row in enumerate(rows):
            builder.store(row, as_vector(builder, address(builder, Y, y, (n, y_row))), align=4)
        return context.get_dummy_value()

    i = types.intp
    return types.void(X, i, i, Y, i, i), codegen


def across_lanes(builder, vector: ir.Value, combine: Callable[..., ir.Value]) -> ir.Value:
    """A vector with the combination of all lanes in each of them."""
    for distance in (8, 4, 2, 1):
        order = ir.Constant(ir.VectorType(I32, LANES), [lane ^ distance for lane in range(LANES)])
        vector = combine(builder, vector, builder.shuffle_vector(vector, vector, order))
    return vector


def _larger(builder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Where a is NaN, b."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _make_reduction(combine: Callable[..., ir.Value]) -> Callable[..., None]:
    @intrinsic
    def reduction(context, X, x):
        def codegen(context, builder, signature, arguments):
            place = as_vector(builder, address(builder, data(context, builder, X, arguments[0]), arguments[1]))
            builder.store(across_lanes(builder, builder.load(place, align=4), combine), place, align=4)
            return context.get_dummy_value()

        return types.void(X, types.intp), codegen

    return reduction


# ``max_lanes(X, x)`` and ``sum_lanes(X, x)`` replace 16 numbers from X[x] on, each by the largest or by the sum.
max_lanes = _make_reduction(lambda builder, a, b: _larger(builder, b, a))
sum_lanes = _make_reduction(lambda builder, a, b: builder.fadd(a, b))


@intrinsic
def max_of(context, X, x, V, least):
    """The largest of ``least`` and the numbers of V vectors from X[x] on, NaN left out."""

    def codegen(context, builder, signature, arguments):
        X, x, V, least = arguments
        X = data(context, builder, signature.args[0], X)
        largest = cgutils.alloca_once_value(builder, everywhere(builder, least))
        with cgutils.for_range(builder, V) as loop:
            place = address(builder, X, x, (loop.index, I64(LANES)))
            vector = builder.load(as_vector(builder, place), align=4)
            builder.store(_larger(builder, vector, builder.load(largest)), largest)
        return builder.extract_element(across_lanes(builder, builder.load(largest), _larger), I32(0))

    return types.float32(X, types.intp, types.intp, types.float32), codegen


class _Cache(FunctionCache):
    """A cache on disk; a file that is damaged, or that cannot be written, costs the time to compile."""

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)
        except Exception:  # a file cut off or written by another program can fail in any way
            return None

    def save_overload(self, *arguments: Any) -> None:
        try:
            super().save_overload(*arguments)
        except Exception:
            with suppress(Exception):
                self.flush()  # else a damaged index would stay


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a kernel that runs without the interpreter's lock, with its machine code kept on disk."""
    kernel = numba.njit(nogil=True, fastmath=FAST_SUMS, error_model="numpy")(function)
    with suppress(RuntimeError):  # no place for a cache; `why_not_cached` says so
        kernel._cache = _Cache(function)
    return kernel


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of what kernels are made of: it becomes a piece of the machine code of each kernel that calls it.

    As a function of its own it would exist twice, inside the kernel and beside it, optimised for different
    surroundings. Which of the two ran depended on whether this process had compiled the kernel or read it from disk,
    and the gradients of the first run on a machine were rounded differently from those of all later ones.
    """
    return numba.njit(nogil=True, fastmath=FAST_SUMS, error_model="numpy", forceinline=True)(function)


def why_not_cached() -> str | None:
    """numba can keep its machine code nowhere."""
    try:
        _Cache(why_not_cached)
    except RuntimeError:
        return "numba can write its cache nowhere, and would compile for minutes in every run (set NUMBA_CACHE_DIR)"
    return None
