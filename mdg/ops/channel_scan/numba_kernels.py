"""numba kernels of the channel scan. Importing this module imports numba.

The innermost loops run over the D features, 16 at a time, as vectors that stay in the registers of the processor while
the states pass by. Exponentials are powers of two by a polynomial. Arrays are taken as flat.

Legend: see ``mdg.ops.channel_scan``; the features are last (``W_SRD``, ``A_SND``), and D is a multiple of 16; V lanes
of a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from mdg.ops.numba_math import LANES, LOG2_E, f32, jit, part
from mdg.ops.numba_vectors import add, exp2, fill, fma, load, mul, put, softplus, spread, store, sub, total


@part
def _step_sizes(projected_BLP, place, W_SRD, bias_SD, s, d):
    """``dt`` of 16 features from d on; ``place`` is that of the first projected number."""
    _, R, D = W_SRD.shape
    delta = load(bias_SD, s * D + d)
    for r in range(R):
        delta = fma(load(W_SRD, (s * R + r) * D + d), spread(projected_BLP, place + r), delta)
    return softplus(delta)


@lru_cache(maxsize=8)
def make_forward(D: int, N: int, R: int) -> Callable[..., None]:
    """The forward kernel for D features, N states and a step size of rank R, for sequences ``start .. stop - 1``."""
    P = R + 2 * N

    @jit
    def forward(u_BLD, projected_BLP, W_SRD, bias_SD, A2_SND, skip_SD, y_BLD, start, stop):
        S, L = W_SRD.shape[0], u_BLD.shape[1]
        h_ND = np.empty((N, D), f32)
        for b in range(start, stop):
            for s in range(S):
                h_ND[:] = f32(0)
                for i in range(L):
                    step = b * L + (i if s == 0 else L - 1 - i)
                    place = (step * S + s) * P
                    for d in range(0, D, LANES):
                        dt, u = _step_sizes(projected_BLP, place, W_SRD, bias_SD, s, d), load(u_BLD, step * D + d)
                        x, y = mul(dt, u), mul(load(skip_SD, s * D + d), u)
                        if s > 0:
                            y = add(y, load(y_BLD, step * D + d))
                        for n in range(N):
                            B = spread(projected_BLP, place + R + n)
                            C = spread(projected_BLP, place + R + N + n)
                            a = exp2(mul(dt, load(A2_SND, (s * N + n) * D + d)))
                            h = fma(a, load(h_ND, n * D + d), mul(B, x))
                            store(h_ND, n * D + d, h)
                            y = fma(C, h, y)
                        store(y_BLD, step * D + d, y)

    return forward


@lru_cache(maxsize=8)
def make_backward(D: int, N: int, R: int) -> Callable[..., None]:
    """The backward kernel; it computes the states of one sequence again, which stay in cache.

    With ``a_l = exp(dt_l A)`` and ``x_l = dt_l u_l``, the gradient ``g_l`` of the state runs against the scan:
    ``g_l = C_l dy_l + a_{l+1} g_{l+1}``. Then ``dC_l = h_l dy_l``, ``dB_l = g_l x_l``, ``dx_l = g_l B_l`` and the
    exponent ``dt_l A`` receives ``g_l a_l h_{l-1}``, each summed over what it is broadcast over.
    """
    P = R + 2 * N

    @jit
    def backward(
        grad_y_BLD, u_BLD, projected_BLP, W_SRD, bias_SD, A2_SND, A_SND, skip_SD,
        grad_u_BLD, grad_projected_BLP, grad_W_SRD, grad_bias_SD, grad_A_SND, grad_skip_SD, start, stop,
    ):  # fmt: skip
        S, L = W_SRD.shape[0], u_BLD.shape[1]
        a_LND, h_LND = np.empty((L, N, D), f32), np.zeros((L + 1, N, D), f32)  # h[i] is the state before step i
        dt_LD, g_ND = np.empty((L, D), f32), np.empty((N, D), f32)
        sums_PV = np.empty((P, LANES), f32)  # gradients of the projected numbers, to be summed over the lanes
        for b in range(start, stop):
            for s in range(S):
                for i in range(L):
                    step = b * L + (i if s == 0 else L - 1 - i)
                    place = (step * S + s) * P
                    for d in range(0, D, LANES):
                        dt = _step_sizes(projected_BLP, place, W_SRD, bias_SD, s, d)
                        store(dt_LD, i * D + d, dt)
                        x = mul(dt, load(u_BLD, step * D + d))
                        for n in range(N):
                            at = (i * N + n) * D + d
                            a = exp2(mul(dt, load(A2_SND, (s * N + n) * D + d)))
                            store(a_LND, at, a)
                            B = spread(projected_BLP, place + R + n)
                            store(h_LND, at + N * D, fma(a, load(h_LND, at), mul(B, x)))
                g_ND[:] = f32(0)
                for i in range(L - 1, -1, -1):
                    step = b * L + (i if s == 0 else L - 1 - i)
                    place = (step * S + s) * P
                    sums_PV[:] = f32(0)
                    for d in range(0, D, LANES):
                        dt, u = load(dt_LD, i * D + d), load(u_BLD, step * D + d)
                        grad_y, x = load(grad_y_BLD, step * D + d), mul(dt, u)
                        grad_dt, grad_x = fill(f32(0)), fill(f32(0))
                        for n in range(N):
                            at, at_A = (i * N + n) * D + d, (s * N + n) * D + d
                            B = spread(projected_BLP, place + R + n)
                            C = spread(projected_BLP, place + R + N + n)
                            g = fma(C, grad_y, load(g_ND, n * D + d))
                            of_B, of_C = (R + n) * LANES, (R + N + n) * LANES
                            store(sums_PV, of_B, fma(g, x, load(sums_PV, of_B)))
                            store(sums_PV, of_C, fma(load(h_LND, at + N * D), grad_y, load(sums_PV, of_C)))
                            grad_x = fma(g, B, grad_x)
                            g = mul(g, load(a_LND, at))
                            store(g_ND, n * D + d, g)
                            grad_exponent = mul(g, load(h_LND, at))
                            store(grad_A_SND, at_A, fma(grad_exponent, dt, load(grad_A_SND, at_A)))
                            grad_dt = fma(grad_exponent, load(A_SND, at_A), grad_dt)
                        of_D = s * D + d
                        grad_u = fma(grad_x, dt, mul(load(skip_SD, of_D), grad_y))
                        if s > 0:
                            grad_u = add(grad_u, load(grad_u_BLD, step * D + d))
                        store(grad_u_BLD, step * D + d, grad_u)
                        store(grad_skip_SD, of_D, fma(grad_y, u, load(grad_skip_SD, of_D)))
                        # The derivative of softplus is 1 - exp(-softplus).
                        slope = sub(fill(f32(1)), exp2(mul(dt, fill(-LOG2_E))))
                        grad_delta = mul(fma(grad_x, u, grad_dt), slope)
                        store(grad_bias_SD, of_D, add(grad_delta, load(grad_bias_SD, of_D)))
                        for r in range(R):
                            of_W = (s * R + r) * D + d
                            rank = spread(projected_BLP, place + r)
                            store(sums_PV, r * LANES, fma(grad_delta, load(W_SRD, of_W), load(sums_PV, r * LANES)))
                            store(grad_W_SRD, of_W, fma(grad_delta, rank, load(grad_W_SRD, of_W)))
                    for p in range(P):
                        put(grad_projected_BLP, place + p, total(load(sums_PV, p * LANES)))

    return backward
