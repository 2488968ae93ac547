"""Triton kernels of neighbourhood attention. Importing this module imports Triton.

One program serves a tile of ``TILE x TILE`` queries of one head. Their windows overlap, and together they are one
rectangle of keys, through which the program goes in blocks: the scores of a block are one matrix product, a softmax is
kept up to date on the way (Milakov and Gimelshein, 2018; Dao et al., FlashAttention, 2022), and a mask takes out the
keys that a query's own window does not hold. Scores never reach memory. The gradient of the keys and values goes the
other way round, from a tile of keys through the rectangle of the queries that see one of them, so that every sum has
one owner: no atomics, the same bits every time.

Legend: see ``mdg.ops.neighborhood_attention``; Q the queries (or, in the last kernel, keys) of a tile, K a block of
keys (queries), D the head dim padded to a power of two that tensor cores take. ``KH``, ``KW`` are the sides of the
windows, never larger than the map. Tensors are contiguous.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _window_start(position, side, kernel):
    """The first key of a window: it shifts inward at a border."""
    return tl.minimum(tl.maximum(position - kernel // 2, 0), side - kernel)


@triton.jit
def _first_seer(key, kernel):
    """The first query whose window holds a key."""
    return tl.where(key < kernel, 0, key - kernel + 1 + kernel // 2)


@triton.jit
def _last_seer(key, side, kernel):
    """The last query whose window holds a key."""
    return tl.where(key >= side - kernel, side - 1, key + kernel // 2)


@triton.jit
def _tile(H, W, heads, TILE: tl.constexpr):
    """First row and column of this program's tile; the place of its image and head, in positions and in vectors."""
    tiles_H, tiles_W = tl.cdiv(H, TILE), tl.cdiv(W, TILE)
    program = tl.program_id(0)
    head = program % heads
    tile = program // heads
    row = (tile // tiles_W) % tiles_H * TILE
    column = tile % tiles_W * TILE
    image = (tile // (tiles_W * tiles_H)).to(tl.int64)
    return row, column, image * H * W * heads + head


@triton.jit
def _seen(row_query, column_query, row_key, column_key, H, W, KH: tl.constexpr, KW: tl.constexpr):
    """Whether the windows of queries hold keys; queries and keys broadcast against each other."""
    first_row, first_column = _window_start(row_query, H, KH), _window_start(column_query, W, KW)
    rows = (row_key >= first_row) & (row_key < first_row + KH)
    return rows & (column_key >= first_column) & (column_key < first_column + KW)


@triton.jit
def _keys_of(row, column, H, W, KH: tl.constexpr, KW: tl.constexpr, TILE: tl.constexpr):
    """The rectangle of keys that a tile of queries sees: first row, rows, first column, columns."""
    first_row, first_column = _window_start(row, H, KH), _window_start(column, W, KW)
    rows = _window_start(tl.minimum(row + TILE, H) - 1, H, KH) + KH - first_row
    columns = _window_start(tl.minimum(column + TILE, W) - 1, W, KW) + KW - first_column
    return first_row, rows, first_column, columns


@triton.jit
def _square(row, column, first, H, W, heads, d: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr):
    """The positions of a tile: rows, columns, which lie on the map; places of their vectors and of the vectors'
    numbers, and which of these there are."""
    positions, features = tl.arange(0, TILE * TILE), tl.arange(0, D)
    row_Q, column_Q = row + positions // TILE, column + positions % TILE
    inside_Q = (row_Q < H) & (column_Q < W)
    place_Q = first + (row_Q * W + column_Q) * heads
    mask = inside_Q[:, None] & (features < d)[None, :]
    return row_Q, column_Q, inside_Q, place_Q, place_Q[:, None] * d + features[None, :], mask


@triton.jit
def _block(
    begin,
    first_row,
    rows,
    first_column,
    columns,
    first,
    W,
    heads,
    d: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """So many positions of a rectangle, from ``begin`` on; as :func:`_square`."""
    positions, features = begin + tl.arange(0, BLOCK), tl.arange(0, D)
    row_K, column_K = first_row + positions // columns, first_column + positions % columns
    there_K = positions < rows * columns
    place_K = first + (row_K * W + column_K) * heads
    mask = there_K[:, None] & (features < d)[None, :]
    return row_K, column_K, there_K, place_K, place_K[:, None] * d + features[None, :], mask


@triton.jit
def forward_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, H, W, heads, scale,
    KH: tl.constexpr, KW: tl.constexpr, d: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs, and the logarithm of each softmax's sum, of a tile of queries; grid ``[B * tiles * heads]``."""
    row, column, first = _tile(H, W, heads, TILE)
    row_Q, column_Q, inside_Q, place_Q, places, mask = _square(row, column, first, H, W, heads, d, D, TILE)
    q_QD = tl.load(q_ptr + places, mask=mask, other=0.0)
    first_row, rows, first_column, columns = _keys_of(row, column, H, W, KH, KW, TILE)
    largest_Q = tl.full([TILE * TILE], float("-inf"), tl.float32)
    sum_Q = tl.zeros([TILE * TILE], tl.float32)
    out_QD = tl.zeros([TILE * TILE, D], tl.float32)
    for begin in range(0, rows * columns, BLOCK):
        row_K, column_K, there_K, place_K, block_places, block_mask = _block(
            begin, first_row, rows, first_column, columns, first, W, heads, d, D, BLOCK
        )
        k_KD = tl.load(k_ptr + block_places, mask=block_mask, other=0.0)
        v_KD = tl.load(v_ptr + block_places, mask=block_mask, other=0.0)
        seen_QK = _seen(row_Q[:, None], column_Q[:, None], row_K[None, :], column_K[None, :], H, W, KH, KW)
        score_QK = tl.dot(q_QD, tl.trans(k_KD), input_precision=PRECISION) * scale
        score_QK = tl.where(seen_QK & there_K[None, :], score_QK, float("-inf"))
        new_Q = tl.maximum(largest_Q, tl.max(score_QK, axis=1))
        base_Q = tl.where(new_Q == float("-inf"), 0.0, new_Q)  # of a query that has not seen a key yet
        weight_QK = tl.exp2((score_QK - base_Q[:, None]) * LOG2_E)
        shrink_Q = tl.exp2((largest_Q - base_Q) * LOG2_E)
        sum_Q = sum_Q * shrink_Q + tl.sum(weight_QK, axis=1)
        out_QD = out_QD * shrink_Q[:, None]
        out_QD += tl.dot(weight_QK.to(v_KD.dtype), v_KD, input_precision=PRECISION)
        largest_Q = new_Q
    out_QD = out_QD / sum_Q[:, None]
    tl.store(out_ptr + places, out_QD.to(out_ptr.dtype.element_ty), mask=mask)
    tl.store(lse_ptr + place_Q, largest_Q + tl.log2(sum_Q) / LOG2_E, mask=inside_Q)


@triton.jit
def backward_query_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, gout_ptr, gq_ptr, delta_ptr, H, W, heads, scale,
    KH: tl.constexpr, KW: tl.constexpr, d: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile of queries, and ``delta``, the product of each output with its gradient; grid as above."""
    row, column, first = _tile(H, W, heads, TILE)
    row_Q, column_Q, inside_Q, place_Q, places, mask = _square(row, column, first, H, W, heads, d, D, TILE)
    q_QD = tl.load(q_ptr + places, mask=mask, other=0.0)
    gout_QD = tl.load(gout_ptr + places, mask=mask, other=0.0)
    out_QD = tl.load(out_ptr + places, mask=mask, other=0.0)
    lse_Q = tl.load(lse_ptr + place_Q, mask=inside_Q, other=0.0)
    delta_Q = tl.sum(out_QD.to(tl.float32) * gout_QD.to(tl.float32), axis=1)
    tl.store(delta_ptr + place_Q, delta_Q, mask=inside_Q)
    first_row, rows, first_column, columns = _keys_of(row, column, H, W, KH, KW, TILE)
    gq_QD = tl.zeros([TILE * TILE, D], tl.float32)
    for begin in range(0, rows * columns, BLOCK):
        row_K, column_K, there_K, place_K, block_places, block_mask = _block(
            begin, first_row, rows, first_column, columns, first, W, heads, d, D, BLOCK
        )
        k_KD = tl.load(k_ptr + block_places, mask=block_mask, other=0.0)
        v_KD = tl.load(v_ptr + block_places, mask=block_mask, other=0.0)
        seen_QK = _seen(row_Q[:, None], column_Q[:, None], row_K[None, :], column_K[None, :], H, W, KH, KW)
        score_QK = tl.dot(q_QD, tl.trans(k_KD), input_precision=PRECISION) * scale
        weight_QK = tl.exp2((score_QK - lse_Q[:, None]) * LOG2_E)
        weight_QK = tl.where(seen_QK & there_K[None, :] & inside_Q[:, None], weight_QK, 0.0)
        gweight_QK = tl.dot(gout_QD, tl.trans(v_KD), input_precision=PRECISION)
        gscore_QK = weight_QK * (gweight_QK - delta_Q[:, None]) * scale
        gq_QD += tl.dot(gscore_QK.to(k_KD.dtype), k_KD, input_precision=PRECISION)
    tl.store(gq_ptr + places, gq_QD.to(gq_ptr.dtype.element_ty), mask=mask)


@triton.jit
def backward_key_kernel(
    q_ptr, k_ptr, v_ptr, lse_ptr, gout_ptr, delta_ptr, gk_ptr, gv_ptr, H, W, heads, scale,
    KH: tl.constexpr, KW: tl.constexpr, d: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile of keys and of their values; Q are the keys here and K the queries; grid as above."""
    row, column, first = _tile(H, W, heads, TILE)
    row_Q, column_Q, inside_Q, place_Q, places, mask = _square(row, column, first, H, W, heads, d, D, TILE)
    k_QD = tl.load(k_ptr + places, mask=mask, other=0.0)
    v_QD = tl.load(v_ptr + places, mask=mask, other=0.0)
    first_row, first_column = _first_seer(row, KH), _first_seer(column, KW)
    rows = _last_seer(tl.minimum(row + TILE, H) - 1, H, KH) + 1 - first_row
    columns = _last_seer(tl.minimum(column + TILE, W) - 1, W, KW) + 1 - first_column
    gk_QD = tl.zeros([TILE * TILE, D], tl.float32)
    gv_QD = tl.zeros([TILE * TILE, D], tl.float32)
    for begin in range(0, rows * columns, BLOCK):
        row_K, column_K, there_K, place_K, block_places, block_mask = _block(
            begin, first_row, rows, first_column, columns, first, W, heads, d, D, BLOCK
        )
        q_KD = tl.load(q_ptr + block_places, mask=block_mask, other=0.0)
        gout_KD = tl.load(gout_ptr + block_places, mask=block_mask, other=0.0)
        lse_K = tl.load(lse_ptr + place_K, mask=there_K, other=0.0)
        delta_K = tl.load(delta_ptr + place_K, mask=there_K, other=0.0)
        seen_QK = _seen(row_K[None, :], column_K[None, :], row_Q[:, None], column_Q[:, None], H, W, KH, KW)
        score_QK = tl.dot(k_QD, tl.trans(q_KD), input_precision=PRECISION) * scale
        weight_QK = tl.exp2((score_QK - lse_K[None, :]) * LOG2_E)
        weight_QK = tl.where(seen_QK & there_K[None, :] & inside_Q[:, None], weight_QK, 0.0)
        gv_QD += tl.dot(weight_QK.to(gout_KD.dtype), gout_KD, input_precision=PRECISION)
        gweight_QK = tl.dot(v_QD, tl.trans(gout_KD), input_precision=PRECISION)
        gscore_QK = weight_QK * (gweight_QK - delta_K[None, :]) * scale
        gk_QD += tl.dot(gscore_QK.to(q_KD.dtype), q_KD, input_precision=PRECISION)
    tl.store(gk_ptr + places, gk_QD.to(gk_ptr.dtype.element_ty), mask=mask)
    tl.store(gv_ptr + places, gv_QD.to(gv_ptr.dtype.element_ty), mask=mask)
