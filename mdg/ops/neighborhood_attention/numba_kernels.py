"""numba kernels of neighborhood attention. Importing this module imports numba.

The work is cut into items: one head of one image in a band of map rows. Within it, tiles of 4x4 queries go through
small products of matrices. The 4 queries of a tile's row, side by side, have windows on the same map rows, and 16
columns (or 32, ...) cover the windows of all four. 16 columns are one vector of scores; each query sees its part of it.
Keys and values are copied per band, once with the columns last for scores and once with the features last for sums.
The rows of a tile are next to each other so that a map row is read once from the cache for all of them.
A key that a query does not see has weight zero there, so a NaN in it may reach the other queries of the tile's row.

Legend: B batch, H height, W width, h heads, d head dim; F features, d rounded up to whole vectors; R map rows in reach
of a band; X columns, W and what a vector reads beyond it; Y rows of a tile; G queries of a tile's row; C vectors that
cover its columns; V vectors of scores of a query, window rows by C; L lanes of a vector and J = G L.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mdg.ops.numba_math import (
    LANES,
    NEGLIGIBLE,
    exp2,
    f32,
    jit,
    make_products,
    max_lanes,
    part,
    sum_lanes,
    transpose_block,
)

TILE_ROWS = 4
GROUP = 4  # queries side by side
JOINT = GROUP * LANES

_products = make_products(GROUP, 2, inline=True)


class Sizes(NamedTuple):
    rows: int  # of a window
    cols: int
    C: int
    F: int
    X: int
    R: int


@part
def _sizes(H, W, d, kernel, bands):
    rows, cols = min(kernel, H), min(kernel, W)
    C = (cols + GROUP - 1 + LANES - 1) // LANES
    F = (d + LANES - 1) // LANES * LANES
    return Sizes(rows, cols, C, F, W + C * LANES, min(H, (H + bands - 1) // bands + rows - 1))


@part
def _window_start(position, side, kernel):
    return min(max(position - kernel // 2, 0), side - kernel)


@part
def _locate(item, first, step, bands, H, h, rows):
    """Image, head, query rows ``y0 .. y1 - 1`` and the map rows ``r0 .. r1 - 1`` in their reach."""
    count = (bands - first + step - 1) // step
    band = first + step * (item % count)
    y0, y1 = band * H // bands, (band + 1) * H // bands
    r0, r1 = _window_start(y0, H, rows), _window_start(y1 - 1, H, rows) + rows
    return item // count // h, item // count % h, y0, y1, r0, r1


@part
def _copy(x, strides, b, head, y0, y1, W, d, to_RXF):
    for y in range(y0, y1):
        for w in range(W):
            place = b * strides[0] + y * strides[1] + w * strides[2] + head * strides[3]
            for feature in range(d):
                to_RXF[y - y0, w, feature] = x[place + feature]


@part
def _transpose(from_RXF, rows, W, to_RFX):
    _, X, F = from_RXF.shape
    for r in range(rows):
        for w in range(0, W, LANES):
            for feature in range(0, F, LANES):
                transpose_block(from_RXF, (r * X + w) * F + feature, F, to_RFX, (r * F + feature) * X + w, X)


@part
def _scores(S_YVJ, q_YXF, x, keys_RFX, row_Y, col, d, sizes):
    """``q . k`` of the tile at column x with all columns that its vectors cover, from ``col`` on."""
    rows, _, C, F, X, _ = sizes
    for c in range(C):
        for r in range(0, rows, 2):
            for y in range(len(row_Y)):
                _products(
                    S_YVJ, ((y * rows + r) * C + c) * JOINT, LANES, C * JOINT, False,
                    q_YXF, (y * X + x) * F, F, 1,
                    keys_RFX, (row_Y[y] + r) * F * X + col + c * LANES, X, F * X,
                    d, min(2, rows - r),
                )  # fmt: skip


@part
def _sum_values(out_YGF, P_YVJ, values_RXF, row_Y, col, span, sizes):
    """``sum_j p_j v_j`` over the ``span`` columns in which any query of the tile sees keys."""
    rows, _, C, F, X, _ = sizes
    out_YGF[:] = f32(0)
    for r in range(rows):
        for c in range(C):
            for y in range(len(row_Y)):
                _products(
                    out_YGF, y * GROUP * F, F, LANES, True,
                    P_YVJ, ((y * rows + r) * C + c) * JOINT, LANES, 1,
                    values_RXF, ((row_Y[y] + r) * X + col + c * LANES) * F, F, LANES,
                    min(LANES, span - c * LANES), F // LANES,
                )  # fmt: skip


@part
def _spread(grad_RXF, P_YVJ, x_YXF, x, row_Y, col, span, sizes):
    """Adds ``sum_g p_gj x_g`` to each key j that a query g of the tile sees: the transpose of ``_sum_values``."""
    rows, _, C, F, X, _ = sizes
    for r in range(rows):
        for y in range(len(row_Y)):
            for key in range(0, span, GROUP):
                _products(
                    grad_RXF, ((row_Y[y] + r) * X + col + key) * F, F, LANES, True,
                    P_YVJ, ((y * rows + r) * C + key // LANES) * JOINT + key % LANES, 1, LANES,
                    x_YXF, (y * X + x) * F, F, LANES,
                    GROUP, F // LANES,
                )  # fmt: skip


@part
def _who_sees(W, sizes):
    """Per group of queries, which lanes each of them sees: ``[groups, C, J]``."""
    groups = (W + GROUP - 1) // GROUP
    seen = np.empty((groups, sizes.C, JOINT), np.bool_)
    for group in range(groups):
        col = _window_start(group * GROUP, W, sizes.cols)
        for g in range(GROUP):
            # A query past the end sees what the last one sees; it is zero and its output is dropped.
            start = _window_start(min(group * GROUP + g, W - 1), W, sizes.cols) - col
            for c in range(sizes.C):
                for lane in range(LANES):
                    seen[group, c, g * LANES + lane] = start <= c * LANES + lane < start + sizes.cols
    return seen


@part
def _softmax(S_VJ, seen_CJ, scale2, max_J, sum_J):
    """Scores become ``exp2(scale2 s - max)``, zero where unseen; ``sum_J`` is what to divide them by."""
    V, C = S_VJ.shape[0], seen_CJ.shape[0]
    max_J[:] = f32(-np.inf)
    sum_J[:] = f32(0)
    for first in range(0, V, C):
        for c in range(C):
            for j in range(JOINT):
                score = S_VJ[first + c, j] * scale2 if seen_CJ[c, j] else f32(-np.inf)
                S_VJ[first + c, j] = score
                max_J[j] = score if score > max_J[j] else max_J[j]
    for g in range(GROUP):
        max_lanes(max_J, g * LANES)
    for v in range(V):
        for j in range(JOINT):
            exponent = S_VJ[v, j] - max_J[j]
            power = f32(0) if exponent < NEGLIGIBLE else exp2(exponent)
            S_VJ[v, j] = power
            sum_J[j] += power
    for g in range(GROUP):
        sum_lanes(sum_J, g * LANES)


@part
def _softmax_backward(P_VJ, dP_VJ, scale, sum_J, delta_J):
    """``P`` is divided by its sum and ``dP`` becomes the gradient ``p (dp - sum_j p_j dp_j) scale`` of the scores."""
    delta_J[:] = f32(0)
    for v in range(P_VJ.shape[0]):
        for j in range(JOINT):
            P_VJ[v, j] /= sum_J[j]
            delta_J[j] += P_VJ[v, j] * dP_VJ[v, j]
    for g in range(GROUP):
        sum_lanes(delta_J, g * LANES)
    for v in range(P_VJ.shape[0]):
        for j in range(JOINT):
            dP_VJ[v, j] = P_VJ[v, j] * (dP_VJ[v, j] - delta_J[j]) * scale


@part
def _tile_columns(x, W, cols):
    """First column in reach of the queries from x on and number of columns in their reach."""
    col = _window_start(x, W, cols)
    return col, _window_start(min(x + GROUP - 1, W - 1), W, cols) + cols - col


@part
def _write_gradient(from_RXF, to_BHWhd, b, head, r0, r1, new, old):
    """Map rows ``r0 .. r1 - 1``: those from ``new`` to ``old - 1`` are written, what is in the others is added to."""
    _, _, W, _, d = to_BHWhd.shape
    for r in range(r0, r1):
        for w in range(W):
            if not new <= r < old:
                for feature in range(d):
                    from_RXF[r - r0, w, feature] += to_BHWhd[b, r, w, head, feature]
            for feature in range(d):
                to_BHWhd[b, r, w, head, feature] = from_RXF[r - r0, w, feature]


@jit
def forward(q, q_at, k, k_at, v, v_at, out_BHWhd, kernel, scale2, first, step, bands, start, stop):
    """Items ``start .. stop - 1`` of every ``step``-th band. Inputs are flat, with strides; scale2 is scale / ln 2."""
    _, H, W, h, d = out_BHWhd.shape
    sizes = _sizes(H, W, d, kernel, bands)
    rows, cols, C, F, X, R = sizes
    copy_RXF, keys_RFX = np.zeros((R, X, F), f32), np.zeros((R, F, X), f32)
    q_YXF, out_YGF = np.zeros((TILE_ROWS, X, F), f32), np.empty((TILE_ROWS, GROUP, F), f32)
    P_YVJ, row_Y = np.empty((TILE_ROWS, rows * C, JOINT), f32), np.empty(TILE_ROWS, np.intp)
    max_J, sum_YJ = np.empty(JOINT, f32), np.empty((TILE_ROWS, JOINT), f32)
    seen = _who_sees(W, sizes)
    for item in range(start, stop):
        b, head, y0, y1, r0, r1 = _locate(item, first, step, bands, H, h, rows)
        _copy(k, k_at, b, head, r0, r1, W, d, copy_RXF)
        _transpose(copy_RXF, r1 - r0, W, keys_RFX)
        _copy(v, v_at, b, head, r0, r1, W, d, copy_RXF)
        for top in range(y0, y1, TILE_ROWS):
            height = min(TILE_ROWS, y1 - top)
            for y in range(height):
                row_Y[y] = _window_start(top + y, H, rows) - r0
            _copy(q, q_at, b, head, top, top + height, W, d, q_YXF)
            for x in range(0, W, GROUP):
                col, span = _tile_columns(x, W, cols)
                _scores(P_YVJ, q_YXF, x, keys_RFX, row_Y[:height], col, d, sizes)
                for y in range(height):
                    _softmax(P_YVJ[y], seen[x // GROUP], f32(scale2), max_J, sum_YJ[y])
                _sum_values(out_YGF, P_YVJ, copy_RXF, row_Y[:height], col, span, sizes)
                for y in range(height):
                    for g in range(min(GROUP, W - x)):
                        factor = f32(1) / sum_YJ[y, g * LANES]
                        for feature in range(d):
                            out_BHWhd[b, top + y, x + g, head, feature] = out_YGF[y, g, feature] * factor


@jit
def backward(
    grad, grad_at, q, q_at, k, k_at, v, v_at, dq_BHWhd, dk_BHWhd, dv_BHWhd,
    kernel, scale, scale2, first, step, bands, start, stop,
):  # fmt: skip
    """Every second band: those from ``first = 0`` on, and when all are done those from 1 on.

    Nothing but the inputs is needed. Keys in reach of two bands collect gradients from both, which is why two
    neighbours must not run at once; ``_bands`` of the calling module says why one band between them is enough.
    """
    _, H, W, h, d = dq_BHWhd.shape
    sizes = _sizes(H, W, d, kernel, bands)
    rows, cols, C, F, X, R = sizes
    keys_RXF, keys_RFX, values_RFX = np.zeros((R, X, F), f32), np.zeros((R, F, X), f32), np.zeros((R, F, X), f32)
    dk_RXF, dv_RXF = np.zeros((R, X, F), f32), np.zeros((R, X, F), f32)
    q_YXF, grad_YXF = np.zeros((TILE_ROWS, X, F), f32), np.zeros((TILE_ROWS, X, F), f32)
    dq_YGF, row_Y = np.empty((TILE_ROWS, GROUP, F), f32), np.empty(TILE_ROWS, np.intp)
    P_YVJ, dS_YVJ = np.empty((TILE_ROWS, rows * C, JOINT), f32), np.empty((TILE_ROWS, rows * C, JOINT), f32)
    lane_J, sum_J = np.empty(JOINT, f32), np.empty(JOINT, f32)
    seen = _who_sees(W, sizes)
    for item in range(start, stop):
        b, head, y0, y1, r0, r1 = _locate(item, first, step, bands, H, h, rows)
        _copy(k, k_at, b, head, r0, r1, W, d, keys_RXF)
        _transpose(keys_RXF, r1 - r0, W, keys_RFX)
        dv_RXF[:] = f32(0)
        _copy(v, v_at, b, head, r0, r1, W, d, dv_RXF)  # on their way, values are needed transposed only
        _transpose(dv_RXF, r1 - r0, W, values_RFX)
        dk_RXF[:] = f32(0)
        dv_RXF[:] = f32(0)
        for top in range(y0, y1, TILE_ROWS):
            height = min(TILE_ROWS, y1 - top)
            for y in range(height):
                row_Y[y] = _window_start(top + y, H, rows) - r0
            _copy(q, q_at, b, head, top, top + height, W, d, q_YXF)
            _copy(grad, grad_at, b, head, top, top + height, W, d, grad_YXF)
            for x in range(0, W, GROUP):
                col, span = _tile_columns(x, W, cols)
                _scores(P_YVJ, q_YXF, x, keys_RFX, row_Y[:height], col, d, sizes)
                _scores(dS_YVJ, grad_YXF, x, values_RFX, row_Y[:height], col, d, sizes)
                for y in range(height):
                    _softmax(P_YVJ[y], seen[x // GROUP], f32(scale2), lane_J, sum_J)
                    _softmax_backward(P_YVJ[y], dS_YVJ[y], f32(scale), sum_J, lane_J)
                _sum_values(dq_YGF, dS_YVJ, keys_RXF, row_Y[:height], col, span, sizes)
                _spread(dk_RXF, dS_YVJ, q_YXF, x, row_Y[:height], col, span, sizes)
                _spread(dv_RXF, P_YVJ, grad_YXF, x, row_Y[:height], col, span, sizes)
                for y in range(height):
                    for g in range(min(GROUP, W - x)):
                        for feature in range(d):
                            dq_BHWhd[b, top + y, x + g, head, feature] = dq_YGF[y, g, feature]
        # Even bands come first and write; odd ones add where the windows of a neighbour have been.
        new = r0 if first == 0 else _window_start(y0 - 1, H, rows) + rows
        old = r1 if first == 0 or y1 == H else _window_start(y1, H, rows)
        _write_gradient(dk_RXF, dk_BHWhd, b, head, r0, r1, new, old)
        _write_gradient(dv_RXF, dv_BHWhd, b, head, r0, r1, new, old)
