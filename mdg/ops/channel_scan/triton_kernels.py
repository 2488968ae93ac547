"""Triton kernels of the channel scan. Importing this module imports Triton.

One program holds whole sequences in registers: a tile ``[L, D]`` per quantity, and a loop over the N states. The
recurrence along L is an associative scan, so that all steps run at once; no state ever reaches memory. Both directions
and the skip are one pass, float32 inside whatever the tensors are.

Legend: see ``mdg.ops.channel_scan``; T is L padded to a power of two. Tensors are contiguous, features last
(``W_SRD``, ``A_SND``).
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _combine(decay_1, state_1, decay_2, state_2):
    return decay_1 * decay_2, decay_2 * state_1 + state_2


@triton.jit
def _softplus(x):
    # log(1 + t) loses small t; as 2 artanh(t / (2 + t)) it does not.
    t = tl.exp2(-tl.abs(x) * LOG2_E)
    s = t / (2.0 + t)
    q = s * s
    series = ((((((q / 13 + 1.0 / 11) * q) + 1.0 / 9) * q + 1.0 / 7) * q + 1.0 / 5) * q + 1.0 / 3) * q + 1.0
    return tl.maximum(x, 0.0) + 2.0 * s * series


@triton.jit
def _step_size(p_rows, W_rows, bias_D, first, mask_T, mask_D, D: tl.constexpr, R: tl.constexpr, T: tl.constexpr):
    """Step sizes ``[T, D]``; 0, which changes no state, where ``mask_T`` is false."""
    Dp: tl.constexpr = triton.next_power_of_2(D)
    features = tl.arange(0, Dp)
    delta = tl.zeros([T, Dp], tl.float32) + bias_D[None, :]
    for r in tl.static_range(R):
        p_T = tl.load(p_rows + first + r, mask=mask_T, other=0.0).to(tl.float32)
        delta += p_T[:, None] * tl.load(W_rows + r * D + features, mask=mask_D, other=0.0)[None, :]
    return tl.where(mask_T[:, None] & mask_D[None, :], _softplus(delta), 0.0)


@triton.jit
def forward_kernel(
    u_ptr, p_ptr, W_ptr, bias_ptr, A_ptr, skip_ptr, y_ptr, L,
    S: tl.constexpr, D: tl.constexpr, N: tl.constexpr, R: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """``y`` of one sequence; grid ``[B]``."""
    Dp: tl.constexpr = triton.next_power_of_2(D)
    P: tl.constexpr = S * (R + 2 * N)
    row = tl.program_id(0).to(tl.int64) * L
    steps, features = tl.arange(0, T), tl.arange(0, Dp)
    mask_T, mask_D = steps < L, features < D
    mask = mask_T[:, None] & mask_D[None, :]
    places = (row + steps[:, None]) * D + features[None, :]
    p_rows = p_ptr + (row + steps) * P
    u = tl.load(u_ptr + places, mask=mask, other=0.0).to(tl.float32)
    y = tl.zeros([T, Dp], tl.float32)
    for s in tl.static_range(S):
        first = s * (R + 2 * N)
        bias_D = tl.load(bias_ptr + s * D + features, mask=mask_D, other=0.0)
        dt = _step_size(p_rows, W_ptr + s * R * D, bias_D, first, mask_T, mask_D, D, R, T)
        x = dt * u
        y += tl.load(skip_ptr + s * D + features, mask=mask_D, other=0.0)[None, :] * u
        for n in range(N):
            A_D = tl.load(A_ptr + (s * N + n) * D + features, mask=mask_D, other=0.0) * LOG2_E
            B_T = tl.load(p_rows + first + R + n, mask=mask_T, other=0.0).to(tl.float32)
            C_T = tl.load(p_rows + first + R + N + n, mask=mask_T, other=0.0).to(tl.float32)
            decay = tl.exp2(dt * A_D[None, :])
            _, h = tl.associative_scan((decay, B_T[:, None] * x), 0, _combine, reverse=s == 1)
            y += C_T[:, None] * h
    tl.store(y_ptr + places, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def backward_kernel(
    gy_ptr, u_ptr, p_ptr, W_ptr, bias_ptr, A_ptr, skip_ptr,
    gu_ptr, gp_ptr, gW_ptr, gbias_ptr, gA_ptr, gskip_ptr, B, L, sequences,
    S: tl.constexpr, D: tl.constexpr, N: tl.constexpr, R: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Gradients of ``sequences`` sequences; the shares of the parameters' gradients go to rows of their own.

    With ``a_l = exp(dt_l A)``, ``b_l = dt_l u_l B_l`` and ``h_l = a_l h_{l-1} + b_l``, the gradient of the state runs
    against the scan: ``g_l = C_l dy_l + a_{l+1} g_{l+1}``. The exponent ``dt_l A`` receives ``g_l a_l h_{l-1}``, which
    is ``g_l (h_l - b_l)``: nothing has to be shifted along L except the step sizes, which are computed again.
    """
    Dp: tl.constexpr = triton.next_power_of_2(D)
    P: tl.constexpr = S * (R + 2 * N)
    program = tl.program_id(0)
    steps, features = tl.arange(0, T), tl.arange(0, Dp)
    mask_T, mask_D = steps < L, features < D
    mask = mask_T[:, None] & mask_D[None, :]
    for index in range(sequences):
        sequence = program * sequences + index
        if sequence < B:
            row = sequence.to(tl.int64) * L
            places = (row + steps[:, None]) * D + features[None, :]
            p_rows, gp_rows = p_ptr + (row + steps) * P, gp_ptr + (row + steps) * P
            u = tl.load(u_ptr + places, mask=mask, other=0.0).to(tl.float32)
            gy = tl.load(gy_ptr + places, mask=mask, other=0.0).to(tl.float32)
            gu = tl.zeros([T, Dp], tl.float32)
            for s in tl.static_range(S):
                first = s * (R + 2 * N)
                bias_D = tl.load(bias_ptr + s * D + features, mask=mask_D, other=0.0)
                skip_D = tl.load(skip_ptr + s * D + features, mask=mask_D, other=0.0)
                W_rows = W_ptr + s * R * D
                dt = _step_size(p_rows, W_rows, bias_D, first, mask_T, mask_D, D, R, T)
                # The step that follows in the order of the scan.
                towards = 1 - 2 * s
                has_next = (steps + towards >= 0) & (steps + towards < L) & mask_T
                dt_next = _step_size(p_rows + towards * P, W_rows, bias_D, first, has_next, mask_D, D, R, T)
                x = dt * u
                gx, gdt = tl.zeros([T, Dp], tl.float32), tl.zeros([T, Dp], tl.float32)
                for n in range(N):
                    A_D = tl.load(A_ptr + (s * N + n) * D + features, mask=mask_D, other=0.0)
                    B_T = tl.load(p_rows + first + R + n, mask=mask_T, other=0.0).to(tl.float32)
                    C_T = tl.load(p_rows + first + R + N + n, mask=mask_T, other=0.0).to(tl.float32)
                    b = B_T[:, None] * x
                    decay = tl.exp2(dt * (A_D * LOG2_E)[None, :])
                    decay_next = tl.exp2(dt_next * (A_D * LOG2_E)[None, :])
                    _, h = tl.associative_scan((decay, b), 0, _combine, reverse=s == 1)
                    _, g = tl.associative_scan((decay_next, C_T[:, None] * gy), 0, _combine, reverse=s == 0)
                    tl.store(gp_rows + first + R + n, tl.sum(g * x, axis=1).to(gp_ptr.dtype.element_ty), mask=mask_T)
                    tl.store(
                        gp_rows + first + R + N + n, tl.sum(h * gy, axis=1).to(gp_ptr.dtype.element_ty), mask=mask_T
                    )
                    gx += B_T[:, None] * g
                    exponent = g * (h - b)
                    gdt += exponent * A_D[None, :]
                    _accumulate(
                        gA_ptr + ((program * S + s) * N + n) * D, tl.sum(exponent * dt, axis=0), index, features, mask_D
                    )
                gu += gx * dt + skip_D[None, :] * gy
                # The derivative of softplus is 1 - exp(-softplus).
                gdelta = (gdt + gx * u) * (1.0 - tl.exp2(-dt * LOG2_E))
                _accumulate(gbias_ptr + (program * S + s) * D, tl.sum(gdelta, axis=0), index, features, mask_D)
                _accumulate(gskip_ptr + (program * S + s) * D, tl.sum(gy * u, axis=0), index, features, mask_D)
                for r in tl.static_range(R):
                    W_D = tl.load(W_rows + r * D + features, mask=mask_D, other=0.0)
                    p_T = tl.load(p_rows + first + r, mask=mask_T, other=0.0).to(tl.float32)
                    gp_T = tl.sum(gdelta * W_D[None, :], axis=1)
                    tl.store(gp_rows + first + r, gp_T.to(gp_ptr.dtype.element_ty), mask=mask_T)
                    share = gW_ptr + ((program * S + s) * R + r) * D
                    _accumulate(share, tl.sum(gdelta * p_T[:, None], axis=0), index, features, mask_D)
            tl.store(gu_ptr + places, gu.to(gu_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _accumulate(share, value_D, index, features, mask_D):
    """Adds to this program's row; the first sequence writes it, so that rows need no zeroing."""
    before = tl.load(share + features, mask=mask_D & (index > 0), other=0.0)
    tl.store(share + features, before + value_D, mask=mask_D)
