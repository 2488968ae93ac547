"""Neighborhood attention in plain torch, for any device and with gradients.

The map is cut into tiles of about 8x8 queries. Neighbouring queries share most of their keys, so the keys of a tile are
one window slightly larger than the tile, and one ``scaled_dot_product_attention`` with a mask serves all tiles: the
tiles are its batch. Memory is linear in ``H * W``.

Legend: B batch, H height, W width, h heads, d head dim; R, S tiles along H, W and T = R*S; i, j rows and columns of
queries in a tile and Q = i*j; m, n rows and columns of keys in a window and K = m*n.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mdg.ops.tables import cached_tables

TILE = 8  # fastest or near it for kernels of 5 to 13 on maps of 15x20 to 120x160, forward and backward


class Tables(NamedTuple):
    """Which rows and columns each tile reads, and which of its keys each query may see."""

    query_rows_Ri: Tensor
    query_cols_Sj: Tensor
    key_rows_Rm: Tensor
    key_cols_Sn: Tensor
    mask_T1QK: Tensor


def tiled_neighborhood_attention(
    q_BHWhd: Tensor, k_BHWhd: Tensor, v_BHWhd: Tensor, kernel_size: int, scale: float
) -> Tensor:
    """Backend ``tiled``: see ``mdg.ops.neighborhood_attention``."""
    B, H, W, h, d = q_BHWhd.shape
    if scale < 0 and q_BHWhd.device.type != "cpu":  # fused kernels take the maximum before they scale
        q_BHWhd, scale = -q_BHWhd, -scale
    tables = _tables_like(q_BHWhd, kernel_size)
    out_TGQd = F.scaled_dot_product_attention(  # G = B*h, so that one mask per tile serves all images and heads
        gather_tiles(q_BHWhd, tables.query_rows_Ri, tables.query_cols_Sj),
        gather_tiles(k_BHWhd, tables.key_rows_Rm, tables.key_cols_Sn),
        gather_tiles(v_BHWhd, tables.key_rows_Rm, tables.key_cols_Sn),
        attn_mask=tables.mask_T1QK,
        scale=scale,
    )
    (R, i), (S, j) = tables.query_rows_Ri.shape, tables.query_cols_Sj.shape
    out_BRiSjhd = out_TGQd.view(R, S, B, h, i, j, d).permute(2, 0, 4, 1, 5, 3, 6)
    return out_BRiSjhd.reshape(B, R * i, S * j, h, d)[:, :H, :W]


def gather_tiles(x_BHWhd: Tensor, rows_Rm: Tensor, cols_Sn: Tensor) -> Tensor:
    """``[T, B*h, m*n, d]``. Rows first, then columns: the backward of each step adds up whole contiguous slices."""
    B, _, _, h, d = x_BHWhd.shape
    (R, m), (S, n) = rows_Rm.shape, cols_Sn.shape
    x = x_BHWhd.index_select(1, rows_Rm.flatten()).index_select(2, cols_Sn.flatten())
    return x.view(B, R, m, S, n, h, d).permute(1, 3, 0, 5, 2, 4, 6).reshape(R * S, B * h, m * n, d)


def _tables_like(x_BHWhd: Tensor, kernel_size: int) -> Tables:
    _, H, W, _, _ = x_BHWhd.shape
    arguments = (H, W, kernel_size, x_BHWhd.dtype, x_BHWhd.device)
    # While tracing, the tables are part of the graph: a cached tensor would be a stale constant there, and a
    # symbolic one (a subclass of Tensor) must not enter the cache.
    if torch.compiler.is_compiling() or type(x_BHWhd) not in (Tensor, torch.nn.Parameter):
        return _make_tables(*arguments)
    return _cached_tables(*arguments)


@cached_tables
def _cached_tables(H: int, W: int, kernel_size: int, dtype: torch.dtype, device: torch.device) -> Tables:
    return _make_tables(H, W, kernel_size, dtype, device)


def _make_tables(H: int, W: int, kernel_size: int, dtype: torch.dtype, device: torch.device) -> Tables:
    query_rows_Ri, key_rows_Rm, seen_Rim = _side_tables(H, kernel_size, device)
    query_cols_Sj, key_cols_Sn, seen_Sjn = _side_tables(W, kernel_size, device)
    seen_RSijmn = seen_Rim[:, None, :, None, :, None] & seen_Sjn[None, :, None, :, None, :]
    seen_T1QK = seen_RSijmn.flatten(4, 5).flatten(2, 3).flatten(0, 1).unsqueeze(1)
    mask_T1QK = torch.zeros(seen_T1QK.shape, dtype=dtype, device=device).masked_fill_(~seen_T1QK, float("-inf"))
    return Tables(query_rows_Ri, query_cols_Sj, key_rows_Rm, key_cols_Sn, mask_T1QK)


def _side_tables(side: int, kernel_size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Along one side, per tile: positions of queries ``[R, i]`` and keys ``[R, m]``, and who sees whom ``[R, i, m]``.

    Queries past the end repeat the last one; their outputs are cut off.
    """
    kernel = min(kernel_size, side)
    tile = min(TILE, side)
    tiles = (side + tile - 1) // tile
    span = min(tile + kernel - 1, side)
    query_Ri = torch.arange(tiles * tile, device=device).clamp(max=side - 1).view(tiles, tile)
    start_Ri = (query_Ri - kernel // 2).clamp(0, side - kernel)
    key_Rm = start_Ri[:, :1].clamp(max=side - span) + torch.arange(span, device=device)
    seen_Rim = (key_Rm[:, None, :] >= start_Ri[:, :, None]) & (key_Rm[:, None, :] < start_Ri[:, :, None] + kernel)
    return query_Ri, key_Rm, seen_Rim
