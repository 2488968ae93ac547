"""numba kernel of the sum of resized maps. Importing this module imports numba.

A row of the result takes two rows of each coarse map. They are blended into one first, which then gives two of its
pixels to each pixel of the result: two products per number in place of four, and all of it in the cache.

Legend: B batch, H W finest map, h w a coarser one, C channels.
"""

from __future__ import annotations

import numpy as np

from mdg.ops.numba_math import f32, jit, part


@part
def _neighbours(place, size, sizes):
    """The two pixels of ``size`` between which pixel ``place`` of ``sizes`` lies, and the weight of the second."""
    position = max((place + 0.5) * size / sizes - 0.5, 0.0)
    low = min(int(position), size - 1)
    high = min(low + 1, size - 1)
    return low, high, f32(position - low)


@part
def _blend(row_wC, x_BhwC, b, y, H):
    """Row ``y`` of ``H``, between two rows of the map."""
    _, h, w, C = x_BhwC.shape
    low, high, weight = _neighbours(y, h, H)
    rest = f32(1) - weight
    for x in range(w):
        upper, lower, out = x_BhwC[b, low, x], x_BhwC[b, high, x], row_wC[x]
        for c in range(C):
            out[c] = rest * upper[c] + weight * lower[c]


@part
def _add(out_WC, row_wC, w):
    """Adds a row of ``w`` pixels, resized."""
    W, C = out_WC.shape
    for x in range(W):
        low, high, weight = _neighbours(x, w, W)
        rest = f32(1) - weight
        left, right, out = row_wC[low], row_wC[high], out_WC[x]
        for c in range(C):
            out[c] += rest * left[c] + weight * right[c]


@jit
def forward(finest_BHWC, coarser, out_BHWC, relu, start, stop):
    """Rows ``start .. stop - 1`` of all images' rows; ``coarser`` is a tuple of maps ``[B, h, w, C]``."""
    _, H, W, C = out_BHWC.shape
    widest = 1
    for x_BhwC in coarser:
        widest = max(widest, x_BhwC.shape[2])
    row_wC = np.empty((widest, C), f32)
    for row in range(start, stop):
        b, y = row // H, row % H
        out_WC = out_BHWC[b, y]
        out_WC[:] = finest_BHWC[b, y]
        for x_BhwC in coarser:
            _blend(row_wC, x_BhwC, b, y, H)
            _add(out_WC, row_wC, x_BhwC.shape[2])
        if relu:
            for x in range(W):
                out = out_WC[x]
                for c in range(C):
                    out[c] = f32(0) if out[c] < f32(0) else out[c]
