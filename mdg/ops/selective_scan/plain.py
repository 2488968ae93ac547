"""Selective scan in plain torch, for any device and with gradients.

Two custom operators, forward and backward, each a loop over steps. ``torch.compile`` sees them as opaque, so the loop
is never unrolled into a graph. Sequences are independent and go through in chunks: on a CPU the state of a chunk stays
in cache. Nothing of size ``B * L * D * N`` is saved between the two; the backward recomputes the states of a chunk.

Legend: B sequences, L steps, D channels, N states per channel, c sequences of a chunk. Inside a chunk the sequences are
the last, contiguous dimension, so that every product and sum is vectorised over them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mdg.ops.autograd import make_differentiable

# Numbers in the state [N, D, c] of a chunk on a CPU: below 2**16 the calls cost more than the arithmetic, above 2**18
# the buffers fall out of cache.
CPU_STATE_NUMEL = 2**17
# Numbers in all states [L, N, D, c] of a chunk elsewhere: few launches; the backward holds two such tensors (512 MiB).
GPU_HISTORY_NUMEL = 2**26


@torch.library.custom_op("mdg::selective_scan", mutates_args=())
def scan_forward(
    u_BLD: Tensor,
    delta_BLD: Tensor,
    A_DN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_D: Tensor,
    delta_bias_D: Tensor,
    delta_softplus: bool,
    reverse: bool,
) -> Tensor:
    """Backend ``torch``: see ``mdg.ops.selective_scan``."""
    A_ND1, D_D1 = A_DN.t().unsqueeze(-1), D_D.unsqueeze(-1)
    y_BLD = u_BLD.new_empty(u_BLD.shape)
    for chunk in _chunks(u_BLD, A_DN):
        u_LDc, B_LNc, C_LNc = (_sequences_last(x[chunk]) for x in (u_BLD, B_BLN, C_BLN))
        dt_LDc = _step_size(_sequences_last(delta_BLD[chunk]), delta_bias_D, delta_softplus)
        y_LDc = D_D1 * u_LDc
        h_NDc = A_ND1.new_zeros(*A_ND1.shape[:2], u_LDc.shape[-1])
        buffer_NDc = torch.empty_like(h_NDc)
        for step in _steps(u_LDc, reverse):
            torch.mul(A_ND1, dt_LDc[step], out=buffer_NDc)
            h_NDc.mul_(buffer_NDc.exp_()).addcmul_(B_LNc[step, :, None], dt_LDc[step] * u_LDc[step])
            y_LDc[step] += torch.mul(h_NDc, C_LNc[step, :, None], out=buffer_NDc).sum(0)
        y_BLD[chunk] = y_LDc.permute(2, 0, 1)
    return y_BLD


@torch.library.custom_op("mdg::selective_scan_backward", mutates_args=())
def scan_backward(
    grad_y_BLD: Tensor,
    u_BLD: Tensor,
    delta_BLD: Tensor,
    A_DN: Tensor,
    B_BLN: Tensor,
    C_BLN: Tensor,
    D_D: Tensor,
    delta_bias_D: Tensor,
    delta_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    per_sequence = [x.new_empty(x.shape) for x in (u_BLD, delta_BLD, B_BLN, C_BLN)]
    grad_A_DN, grad_D_D, grad_bias_D = (x.new_zeros(x.shape) for x in (A_DN, D_D, delta_bias_D))
    for chunk in _chunks(u_BLD, A_DN):
        u_LDc, delta_LDc, B_LNc, C_LNc, grad_y_LDc = (
            _sequences_last(x[chunk]) for x in (u_BLD, delta_BLD, B_BLN, C_BLN, grad_y_BLD)
        )
        dt_LDc = _step_size(delta_LDc, delta_bias_D, delta_softplus)
        *grads, grad_A_NDc = _chunk_backward(grad_y_LDc, u_LDc, dt_LDc, A_DN, B_LNc, C_LNc, reverse)
        grads[0].addcmul_(grad_y_LDc, D_D.unsqueeze(-1))
        if delta_softplus:
            grads[1].mul_(torch.sigmoid(delta_LDc + delta_bias_D.unsqueeze(-1)))
        for whole, part_LXc in zip(per_sequence, grads, strict=True):
            whole[chunk] = part_LXc.permute(2, 0, 1)
        grad_A_DN += grad_A_NDc.sum(-1).t()
        grad_D_D += (grad_y_LDc * u_LDc).sum((0, 2))
        grad_bias_D += grads[1].sum((0, 2))
    grad_u, grad_delta, grad_B, grad_C = per_sequence
    return grad_u, grad_delta, grad_A_DN, grad_B, grad_C, grad_D_D, grad_bias_D


def _chunk_backward(
    grad_y_LDc: Tensor, u_LDc: Tensor, dt_LDc: Tensor, A_DN: Tensor, B_LNc: Tensor, C_LNc: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u (without the skip), dt, B, C and, per sequence, A.

    With ``a_l = exp(dt_l A)`` and ``x_l = dt_l u_l``, the gradient ``g_l`` of the state runs against the scan:
    ``g_l = C_l dy_l + a_{l+1} g_{l+1}``. Then ``dC_l = h_l dy_l``, ``dB_l = g_l x_l``, ``dx_l = g_l B_l`` and the
    exponent ``dt_l A`` receives ``g_l a_l h_{l-1}``, each summed over what it is broadcast over.
    """
    A_ND1 = A_DN.t().unsqueeze(-1)
    x_LDc = dt_LDc * u_LDc
    a_LNDc, h_LNDc = _states(x_LDc, dt_LDc, A_ND1, B_LNc, reverse)
    grad_x_LDc, grad_dt_LDc = torch.empty_like(u_LDc), torch.empty_like(u_LDc)
    grad_B_LNc, grad_C_LNc = torch.empty_like(B_LNc), torch.empty_like(C_LNc)
    g_NDc, grad_A_NDc, buffer_NDc = (torch.zeros_like(h_LNDc[0]) for _ in range(3))
    scan = list(_steps(u_LDc, reverse))
    for step, previous in zip(reversed(scan), [*reversed(scan[:-1]), None], strict=True):
        g_NDc.addcmul_(C_LNc[step, :, None], grad_y_LDc[step])
        torch.sum(torch.mul(h_LNDc[step], grad_y_LDc[step], out=buffer_NDc), 1, out=grad_C_LNc[step])
        torch.sum(torch.mul(g_NDc, x_LDc[step], out=buffer_NDc), 1, out=grad_B_LNc[step])
        torch.sum(torch.mul(g_NDc, B_LNc[step, :, None], out=buffer_NDc), 0, out=grad_x_LDc[step])
        g_NDc.mul_(a_LNDc[step])
        if previous is None:  # the state before the first step is zero
            grad_dt_LDc[step] = 0
            continue
        grad_exponent_NDc = torch.mul(h_LNDc[previous], g_NDc, out=h_LNDc[step])
        grad_A_NDc.addcmul_(grad_exponent_NDc, dt_LDc[step])
        torch.sum(grad_exponent_NDc.mul_(A_ND1), 0, out=grad_dt_LDc[step])
    grad_dt_LDc.addcmul_(grad_x_LDc, u_LDc)
    return grad_x_LDc.mul_(dt_LDc), grad_dt_LDc, grad_B_LNc, grad_C_LNc, grad_A_NDc


def _states(x_LDc: Tensor, dt_LDc: Tensor, A_ND1: Tensor, B_LNc: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """Decays ``exp(dt_l A)`` and states ``h_l`` of every step of a chunk, ``[L, N, D, c]`` each."""
    a_LNDc = (A_ND1 * dt_LDc.unsqueeze(1)).exp_()
    h_LNDc = torch.empty_like(a_LNDc)
    previous = None
    for step in _steps(x_LDc, reverse):
        torch.mul(B_LNc[step, :, None], x_LDc[step], out=h_LNDc[step])
        if previous is not None:
            h_LNDc[step].addcmul_(a_LNDc[step], h_LNDc[previous])
        previous = step
    return a_LNDc, h_LNDc


def _chunks(u_BLD: Tensor, A_DN: Tensor) -> Iterator[slice]:
    batch, length, _ = u_BLD.shape
    limit = CPU_STATE_NUMEL if u_BLD.device.type == "cpu" else GPU_HISTORY_NUMEL // max(length, 1)
    size = max(limit // max(A_DN.numel(), 1), 1)
    return (slice(start, start + size) for start in range(0, batch if length else 0, size))


def _steps(x_LXc: Tensor, reverse: bool) -> range:
    length = x_LXc.shape[0]
    return range(length - 1, -1, -1) if reverse else range(length)


def _sequences_last(x_cLX: Tensor) -> Tensor:
    # Shares memory with the input where the chunk is a single sequence: read only.
    return x_cLX.permute(1, 2, 0).contiguous()


def _step_size(delta_LDc: Tensor, delta_bias_D: Tensor, delta_softplus: bool) -> Tensor:
    dt_LDc = delta_LDc + delta_bias_D.unsqueeze(-1)
    return F.softplus(dt_LDc) if delta_softplus else dt_LDc


make_differentiable(scan_forward, scan_backward, tensors=7)
