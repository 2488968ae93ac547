"""numba kernels of the channel scan. Importing this module imports numba.

The innermost loops run over the D features, which fill the vector registers of a CPU; their length is a constant of
the compiled kernel. Exponentials are powers of two by a polynomial, which vectorise where a call to the C library would
not. Legend: see ``mdg.ops.channel_scan``; the features are last (``W_SRD``, ``A_SND``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numba
import numpy as np

from mdg.ops.numba_math import FAST, LOG2_E, exp2, f32, jit

S3, S5, S7, S9, S11, S13 = (f32(1 / odd) for odd in (3, 5, 7, 9, 11, 13))  # series of the inverse tanh


@numba.njit(inline="always", fastmath=FAST, error_model="numpy")
def softplus(x):
    """``log(1 + exp(x))`` in float32, as ``max(x, 0) + 2 artanh(t / (2 + t))`` with ``t = exp(-|x|)``."""
    t = exp2(-abs(x) * LOG2_E)
    s = t / (f32(2) + t)
    q = s * s
    series = (((((S13 * q + S11) * q + S9) * q + S7) * q + S5) * q + S3) * q
    above = f32(0) if x < f32(0) else x
    return above + f32(2) * s * (series + f32(1))


@lru_cache(maxsize=8)
def make_forward(D: int, N: int, R: int) -> Callable[..., None]:
    """The forward kernel for D features, N states and a step size of rank R, for sequences ``start .. stop - 1``."""
    P = R + 2 * N

    @jit
    def forward(u_BLD, projected_BLP, W_SRD, bias_SD, A2_SND, skip_SD, y_BLD, start, stop):
        S, L = W_SRD.shape[0], u_BLD.shape[1]
        h_ND = np.empty((N, D), f32)
        dt_D, x_D, y_D = np.empty(D, f32), np.empty(D, f32), np.empty(D, f32)
        for b in range(start, stop):
            for s in range(S):
                first = s * P
                h_ND[:] = f32(0)
                for i in range(L):
                    step = i if s == 0 else L - 1 - i
                    for d in range(D):
                        delta = bias_SD[s, d]
                        for r in range(R):
                            delta += W_SRD[s, r, d] * projected_BLP[b, step, first + r]
                        dt = softplus(delta)
                        dt_D[d] = dt
                        x_D[d] = dt * u_BLD[b, step, d]
                        y_D[d] = skip_SD[s, d] * u_BLD[b, step, d]
                    for n in range(N):
                        B = projected_BLP[b, step, first + R + n]
                        C = projected_BLP[b, step, first + R + N + n]
                        for d in range(D):
                            h = exp2(dt_D[d] * A2_SND[s, n, d]) * h_ND[n, d] + B * x_D[d]
                            h_ND[n, d] = h
                            y_D[d] += C * h
                    if s == 0:
                        for d in range(D):
                            y_BLD[b, step, d] = y_D[d]
                    else:
                        for d in range(D):
                            y_BLD[b, step, d] += y_D[d]

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
        a_LND, h_LND = np.empty((L, N, D), f32), np.empty((L + 1, N, D), f32)  # h[i] is the state before step i
        dt_LD, x_LD = np.empty((L, D), f32), np.empty((L, D), f32)
        g_ND, grad_dt_D, grad_x_D = np.empty((N, D), f32), np.empty(D, f32), np.empty(D, f32)
        h_LND[0] = f32(0)
        for b in range(start, stop):
            for s in range(S):
                first = s * P
                for i in range(L):
                    step = i if s == 0 else L - 1 - i
                    for d in range(D):
                        delta = bias_SD[s, d]
                        for r in range(R):
                            delta += W_SRD[s, r, d] * projected_BLP[b, step, first + r]
                        dt = softplus(delta)
                        dt_LD[i, d] = dt
                        x_LD[i, d] = dt * u_BLD[b, step, d]
                    for n in range(N):
                        B = projected_BLP[b, step, first + R + n]
                        for d in range(D):
                            a = exp2(dt_LD[i, d] * A2_SND[s, n, d])
                            a_LND[i, n, d] = a
                            h_LND[i + 1, n, d] = a * h_LND[i, n, d] + B * x_LD[i, d]
                g_ND[:] = f32(0)
                for i in range(L - 1, -1, -1):
                    step = i if s == 0 else L - 1 - i
                    grad_dt_D[:] = f32(0)
                    grad_x_D[:] = f32(0)
                    for n in range(N):
                        B = projected_BLP[b, step, first + R + n]
                        C = projected_BLP[b, step, first + R + N + n]
                        grad_B, grad_C = f32(0), f32(0)
                        for d in range(D):
                            grad_y = grad_y_BLD[b, step, d]
                            g = g_ND[n, d] + C * grad_y
                            grad_C += h_LND[i + 1, n, d] * grad_y
                            grad_B += g * x_LD[i, d]
                            grad_x_D[d] += g * B
                            g *= a_LND[i, n, d]
                            g_ND[n, d] = g
                            grad_exponent = g * h_LND[i, n, d]
                            grad_A_SND[s, n, d] += grad_exponent * dt_LD[i, d]
                            grad_dt_D[d] += grad_exponent * A_SND[s, n, d]
                        grad_projected_BLP[b, step, first + R + n] = grad_B
                        grad_projected_BLP[b, step, first + R + N + n] = grad_C
                    for d in range(D):
                        dt, u, grad_y = dt_LD[i, d], u_BLD[b, step, d], grad_y_BLD[b, step, d]
                        grad_u = grad_x_D[d] * dt + skip_SD[s, d] * grad_y
                        grad_u_BLD[b, step, d] = grad_u if s == 0 else grad_u_BLD[b, step, d] + grad_u
                        grad_skip_SD[s, d] += grad_y * u
                        # The derivative of softplus is 1 - exp(-softplus).
                        grad_delta = (grad_dt_D[d] + grad_x_D[d] * u) * (f32(1) - exp2(-dt * LOG2_E))
                        grad_dt_D[d] = grad_delta
                        grad_bias_SD[s, d] += grad_delta
                    for r in range(R):
                        grad_rank = f32(0)
                        for d in range(D):
                            grad_rank += grad_dt_D[d] * W_SRD[s, r, d]
                            grad_W_SRD[s, r, d] += grad_dt_D[d] * projected_BLP[b, step, first + r]
                        grad_projected_BLP[b, step, first + r] = grad_rank

    return backward
