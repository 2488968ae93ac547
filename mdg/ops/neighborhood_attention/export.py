"""Neighborhood attention in operations that every runtime knows, for maps of a size that may be open.

As in ``tiled.py`` the map is cut into tiles of queries, and the keys of a tile are one window. Where the size of the
map is open, tile and window have sides of their own, so that nothing but the number of tiles depends on it, and what
lies outside of a small map is masked. Softmax and scale are written out: an exporter takes the square root of the
scale, which the model has negative.

Legend: B batch, H height, W width, h heads, d head dim; R, S tiles along H, W and T = R*S; i, j rows and columns of
queries in a tile; m, n rows and columns of keys in a window; G = B*h.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mdg.ops.neighborhood_attention.tiled import TILE, gather_tiles


def exportable_neighborhood_attention(
    q_BHWhd: Tensor, k_BHWhd: Tensor, v_BHWhd: Tensor, kernel_size: int, scale: float
) -> Tensor:
    """What the operator is inside of :func:`mdg.ops.modes.exporting`: see ``mdg.ops.neighborhood_attention``."""
    B, H, W, h, d = q_BHWhd.shape
    query_Ri, key_Rm, mask_Rim = _side(H, kernel_size, q_BHWhd)
    query_Sj, key_Sn, mask_Sjn = _side(W, kernel_size, q_BHWhd)
    (R, i), (S, j), m, n = query_Ri.shape, query_Sj.shape, key_Rm.shape[1], key_Sn.shape[1]
    q_TGQd = gather_tiles(q_BHWhd * scale, query_Ri, query_Sj)
    k_TGKd, v_TGKd = (gather_tiles(x, key_Rm, key_Sn) for x in (k_BHWhd, v_BHWhd))
    mask_RSijmn = mask_Rim[:, None, :, None, :, None] + mask_Sjn[None, :, None, :, None, :]
    scores_TGQK = q_TGQd @ k_TGKd.transpose(-1, -2) + mask_RSijmn.reshape(R * S, 1, i * j, m * n)
    out_TGQd = scores_TGQK.softmax(dim=-1) @ v_TGKd
    out_BRiSjhd = out_TGQd.reshape(R, S, B, h, i, j, d).permute(2, 0, 4, 1, 5, 3, 6)
    return out_BRiSjhd.reshape(B, R * i, S * j, h, d)[:, :H, :W]


def _divisor(side: int) -> int:
    """The side of a tile for an open side of a map: the largest that is known to divide it. Nothing is left over then,
    and the number of tiles is a size that the graph has already."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # of a module that takes a second

    return next(
        tile for tile in (TILE, TILE // 2, TILE // 4, 1) if tile == 1 or statically_known_true(side % tile == 0)
    )


def _side(side: int, kernel_size: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Along one side, per tile: positions of queries ``[R, i]`` and keys ``[R, m]``, and the mask ``[R, i, m]`` to add
    to scores: 0 for who sees whom, -inf else.

    Queries past the end repeat the last one; their outputs are cut off.
    """
    if isinstance(side, int):
        kernel, tile = min(kernel_size, side), min(TILE, side)
        tiles, span = (side + tile - 1) // tile, min(tile + kernel - 1, side)
    else:
        kernel, tile = kernel_size, _divisor(side)
        tiles, span = side // tile, tile + kernel - 1
    last = torch.arange(side, device=like.device)[-1]  # exporters calculate with an open size only as a tensor
    query_Ri = torch.minimum(torch.arange(tiles * tile, device=like.device), last).reshape(tiles, tile)
    start_Ri = torch.minimum(query_Ri - kernel // 2, last + 1 - kernel).clamp(min=0)
    first_R1 = torch.minimum(start_Ri[:, :1], last + 1 - span).clamp(min=0)
    key_Rm = first_R1 + torch.arange(span, device=like.device)
    stop_Ri = torch.minimum(start_Ri + kernel, last + 1)
    seen_Rim = (key_Rm[:, None, :] >= start_Ri[:, :, None]) & (key_Rm[:, None, :] < stop_Ri[:, :, None])
    mask_Rim = torch.zeros(seen_Rim.shape, dtype=like.dtype, device=like.device).masked_fill(~seen_Rim, -torch.inf)
    return query_Ri, torch.minimum(key_Rm, last), mask_Rim
