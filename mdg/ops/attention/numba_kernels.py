"""numba kernels of the encoders' attention. Importing this module imports numba.

The work is cut into items: a segment of the queries of one head of one image. Within it, blocks of queries meet chunks
of keys in products of small matrices, and the softmax of a block goes on from chunk to chunk (Dao et al.,
FlashAttention, NeurIPS 2022): scores live in the cache and nowhere else. The backward pass computes them again; each
segment collects gradients of the keys and values of its own, which the caller adds.

Legend: B batch, N queries, M keys, h heads, d head dim; F features, d rounded up to whole vectors; Q queries of a
block; X keys of a chunk, P chunks, K = P X keys rounded up; S segments.
"""

from __future__ import annotations

import math

import numpy as np

from mdg.ops.numba_math import LANES, NEGLIGIBLE, exp2, f32, jit, make_products, max_of, part, transpose_block

ROWS = 6  # with 4 vectors they keep 24 of 32 registers busy, and each vector that is loaded serves six times
QUERIES = 16 * ROWS
KEYS = 384  # a multiple of ROWS and of LANES, so that no product reaches into the next chunk
LN_2 = f32(math.log(2))

_products = make_products(ROWS, 4)


@part
def _copy(x, strides, b, head, start, stop, d, factor, to_F):
    """Tokens ``start .. stop - 1`` of one head times a factor; rows of zeros follow."""
    for n in range(start, stop):
        place = b * strides[0] + n * strides[1] + head * strides[2]
        for feature in range(d):
            to_F[n - start, feature] = x[place + feature] * factor
    to_F[stop - start :] = f32(0)


@part
def _transpose(from_KF, to_PFX):
    P, F, X = to_PFX.shape
    for p in range(P):
        for x in range(0, X, LANES):
            for feature in range(0, F, LANES):
                transpose_block(from_KF, (p * X + x) * F + feature, F, to_PFX, (p * F + feature) * X + x, X)


@part
def _scores(S_QX, q_QF, keys_PFX, p, d, width):
    """Products of all queries of the block with the first ``width`` keys of chunk p, and what fills the last vector."""
    (Q, X), F = S_QX.shape, q_QF.shape[1]
    vectors = (width + LANES - 1) // LANES
    for vector in range(0, vectors, 4):  # its keys stay in the first cache for all queries
        for row in range(0, Q, ROWS):
            _products(
                S_QX, row * X + vector * LANES, X, LANES, False,
                q_QF, row * F, F, 1,
                keys_PFX, p * F * X + vector * LANES, X, LANES,
                d, min(4, vectors - vector),
            )  # fmt: skip


@part
def _sum_over_keys(out_QF, add, P_QX, x_KF, p, width):
    """``out_q (+)= sum_x p_qx x_x`` over the first ``width`` keys of chunk p."""
    (Q, X), F = P_QX.shape, out_QF.shape[1]
    for row in range(0, Q, ROWS):
        _products(
            out_QF, row * F, F, LANES, add,
            P_QX, row * X, X, 1,
            x_KF, p * X * F, F, LANES,
            width, F // LANES,
        )  # fmt: skip


@part
def _sum_over_queries(out_KF, P_QX, x_QF, p, width):
    """``out_x += sum_q p_qx x_q`` for the first ``width`` keys of chunk p, and others to the next multiple of ROWS."""
    (Q, X), F = P_QX.shape, x_QF.shape[1]
    for key in range(0, width, ROWS):
        _products(
            out_KF, (p * X + key) * F, F, LANES, True,
            P_QX, key, 1, X,
            x_QF, 0, F, LANES,
            Q, F // LANES,
        )  # fmt: skip


@part
def _softmax(S_QX, width, out_QF, max_Q, sum_Q):
    """Scores (in powers of two) become weights relative to the largest score so far; sums so far follow it."""
    Q, X = S_QX.shape
    vectors = (width + LANES - 1) // LANES
    for q in range(Q):
        S_QX[q, width : vectors * LANES] = f32(-np.inf)
        before = max_Q[q]
        largest = max_of(S_QX, q * X, vectors, before)
        total = f32(0)
        for x in range(vectors * LANES):
            exponent = S_QX[q, x] - largest
            power = f32(0) if exponent < NEGLIGIBLE else exp2(exponent)
            S_QX[q, x] = power
            total += power
        factor = f32(0) if before - largest < NEGLIGIBLE else exp2(before - largest)
        sum_Q[q] = sum_Q[q] * factor + total
        max_Q[q] = largest
        if factor != f32(1):
            for feature in range(out_QF.shape[1]):
                out_QF[q, feature] *= factor


@part
def _softmax_backward(S_QX, dS_QX, width, lse_Q, delta_Q):
    """Scores become weights; their gradients ``dp`` become those of the scores, ``p (dp - sum_j p_j dp_j)``."""
    for q in range(S_QX.shape[0]):
        shift, delta = lse_Q[q], delta_Q[q]
        for x in range(width):
            exponent = S_QX[q, x] - shift
            weight = f32(0) if exponent < NEGLIGIBLE else exp2(exponent)
            S_QX[q, x] = weight
            dS_QX[q, x] = weight * (dS_QX[q, x] - delta)
        S_QX[q, width:] = f32(0)
        dS_QX[q, width:] = f32(0)


@part
def _locate(item, segments, heads):
    return item // segments // heads, item // segments % heads, item % segments


@jit
def forward(q, q_at, k, k_at, v, v_at, M, out_BNhd, lse_BhN, scale2, segment, start, stop):
    """Items ``start .. stop - 1``. Inputs are flat, with strides; scale2 is ``scale / ln 2``; lse, the logarithm of the
    sum of exponentials, has base 2. A segment has ``segment`` queries."""
    _, N, h, d = out_BNhd.shape
    chunks = (M + KEYS - 1) // KEYS
    F = (d + LANES - 1) // LANES * LANES
    keys_PFX = np.empty((chunks, F, KEYS), f32)
    copy_KF = np.zeros((chunks * KEYS, F), f32)
    q_QF, out_QF, S_QX = np.zeros((QUERIES, F), f32), np.empty((QUERIES, F), f32), np.empty((QUERIES, KEYS), f32)
    max_Q, sum_Q = np.empty(QUERIES, f32), np.empty(QUERIES, f32)
    segments = (N + segment - 1) // segment
    for item in range(start, stop):
        b, head, part = _locate(item, segments, h)
        _copy(k, k_at, b, head, 0, M, d, f32(1), copy_KF)
        _transpose(copy_KF, keys_PFX)
        _copy(v, v_at, b, head, 0, M, d, f32(1), copy_KF)
        end = min(N, (part + 1) * segment)
        for first in range(part * segment, end, QUERIES):
            last = min(first + QUERIES, end)
            rows = (last - first + ROWS - 1) // ROWS * ROWS
            _copy(q, q_at, b, head, first, last, d, f32(scale2), q_QF)
            max_Q[:] = f32(-np.inf)
            sum_Q[:] = f32(0)
            out_QF[:] = f32(0)
            for p in range(chunks):
                width = min(KEYS, M - p * KEYS)
                _scores(S_QX[:rows], q_QF, keys_PFX, p, d, width)
                _softmax(S_QX[:rows], width, out_QF, max_Q, sum_Q)
                _sum_over_keys(out_QF, True, S_QX[:rows], copy_KF, p, width)
            for n in range(first, last):
                factor = f32(1) / sum_Q[n - first]
                for feature in range(d):
                    out_BNhd[b, n, head, feature] = out_QF[n - first, feature] * factor
                lse_BhN[b, head, n] = max_Q[n - first] + np.log2(sum_Q[n - first])


@jit
def backward(
    grad, grad_at, q, q_at, k, k_at, v, v_at, out, out_at, lse_BhN, dq_BNhd, dk_SBMhd, dv_SBMhd,
    scale, scale2, segment, start, stop,
):  # fmt: skip
    """Items ``start .. stop - 1``, as for ``forward``; each writes the share of its segment in dk and dv."""
    _, N, h, d = dq_BNhd.shape
    segments, _, M = dk_SBMhd.shape[:3]
    chunks = (M + KEYS - 1) // KEYS
    F = (d + LANES - 1) // LANES * LANES
    keys_PFX, values_PFX = np.empty((chunks, F, KEYS), f32), np.empty((chunks, F, KEYS), f32)
    keys_KF, dk_KF = np.zeros((chunks * KEYS, F), f32), np.zeros((chunks * KEYS, F), f32)
    dv_KF = np.zeros((chunks * KEYS, F), f32)
    q_QF, grad_QF, out_QF = np.zeros((QUERIES, F), f32), np.zeros((QUERIES, F), f32), np.zeros((QUERIES, F), f32)
    S_QX, dS_QX = np.empty((QUERIES, KEYS), f32), np.empty((QUERIES, KEYS), f32)
    lse_Q, delta_Q = np.empty(QUERIES, f32), np.empty(QUERIES, f32)
    for item in range(start, stop):
        b, head, part = _locate(item, segments, h)
        _copy(v, v_at, b, head, 0, M, d, f32(1), keys_KF)  # on their way, values are needed transposed only
        _transpose(keys_KF, values_PFX)
        _copy(k, k_at, b, head, 0, M, d, f32(1), keys_KF)
        _transpose(keys_KF, keys_PFX)
        dk_KF[:] = f32(0)
        dv_KF[:] = f32(0)
        end = min(N, (part + 1) * segment)
        for first in range(part * segment, end, QUERIES):
            last = min(first + QUERIES, end)
            rows = (last - first + ROWS - 1) // ROWS * ROWS
            _copy(q, q_at, b, head, first, last, d, f32(scale2), q_QF)
            _copy(grad, grad_at, b, head, first, last, d, f32(1), grad_QF)
            _copy(out, out_at, b, head, first, last, d, f32(1), out_QF)
            for n in range(QUERIES):
                delta = f32(0)
                for feature in range(F):
                    delta += grad_QF[n, feature] * out_QF[n, feature]
                delta_Q[n] = delta
                lse_Q[n] = lse_BhN[b, head, first + n] if first + n < last else f32(0)
            for p in range(chunks):
                width = min(KEYS, M - p * KEYS)
                _scores(S_QX[:rows], q_QF, keys_PFX, p, d, width)
                _scores(dS_QX[:rows], grad_QF, values_PFX, p, d, width)
                _softmax_backward(S_QX[:rows], dS_QX[:rows], width, lse_Q, delta_Q)
                _sum_over_keys(out_QF, p > 0, dS_QX[:rows], keys_KF, p, width)
                _sum_over_queries(dv_KF, S_QX[:rows], grad_QF, p, width)
                _sum_over_queries(dk_KF, dS_QX[:rows], q_QF, p, width)
            for n in range(first, last):
                for feature in range(d):
                    dq_BNhd[b, n, head, feature] = out_QF[n - first, feature] * f32(scale)
        for m in range(M):
            for feature in range(d):
                dk_SBMhd[part, b, m, head, feature] = dk_KF[m, feature] * LN_2  # q had scale / ln 2 in it
                dv_SBMhd[part, b, m, head, feature] = dv_KF[m, feature]
