"""Channel scan on CUDA through Triton: state in registers, nothing materialised, both directions in one pass.

Legend: see ``mdg.ops.channel_scan``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mdg.ops.autograd import make_differentiable
from mdg.ops.triton_launch import interpreted_only_by_name, no_triton

why_not_automatic = interpreted_only_by_name
MAX_LENGTH = 256  # whole sequences live in registers; this is 4 times the longest of the model
MAX_FEATURES = 64
PROGRAMS = 4096  # upper bound of the backward's grid, and so of the rows of partial sums


def triton_channel_scan(
    u_BLD: Tensor, projected_BLP: Tensor, dt_weight_SDR: Tensor, dt_bias_SD: Tensor, A_SDN: Tensor, D_SD: Tensor
) -> Tensor:
    """Backend ``triton``: see ``mdg.ops.channel_scan``."""
    W_SRD, A_SND = dt_weight_SDR.transpose(1, 2), A_SDN.transpose(1, 2)
    return channel_scan_forward(u_BLD, projected_BLP, W_SRD, dt_bias_SD, A_SND, D_SD)


def why_not(u_BLD: Tensor, projected_BLP: Tensor, *parameters: Tensor) -> str | None:
    """Triton is missing, the tensors are not on CUDA, they are float64, or sequences are too long for registers."""
    absent = no_triton(u_BLD)
    if absent is not None:
        return absent
    if any(x.dtype == torch.float64 for x in (u_BLD, projected_BLP, *parameters)):
        return "it computes in float32 and an input is float64"
    if u_BLD.shape[1] > MAX_LENGTH or u_BLD.shape[2] > MAX_FEATURES:
        return (
            f"it keeps whole sequences in registers, up to {MAX_LENGTH} steps of {MAX_FEATURES} features, and got "
            f"{u_BLD.shape[1]} of {u_BLD.shape[2]}"
        )
    return None


@torch.library.custom_op("mdg::channel_scan_triton", mutates_args=())
def channel_scan_forward(
    u_BLD: Tensor, projected_BLP: Tensor, W_SRD: Tensor, bias_SD: Tensor, A_SND: Tensor, D_SD: Tensor
) -> Tensor:
    from mdg.ops.channel_scan.triton_kernels import forward_kernel  # a machine without a GPU may lack Triton

    inputs = [x.contiguous() for x in (u_BLD, projected_BLP, W_SRD, bias_SD, A_SND, D_SD)]
    y_BLD = torch.empty_like(inputs[0])
    if y_BLD.numel():
        forward_kernel[(u_BLD.shape[0],)](*inputs, y_BLD, u_BLD.shape[1], **constants(u_BLD, W_SRD, A_SND, 16))
    return y_BLD


@torch.library.custom_op("mdg::channel_scan_triton_backward", mutates_args=())
def channel_scan_backward(
    grad_BLD: Tensor, u_BLD: Tensor, projected_BLP: Tensor, W_SRD: Tensor, bias_SD: Tensor, A_SND: Tensor, D_SD: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from mdg.ops.channel_scan.triton_kernels import backward_kernel

    inputs = [x.contiguous() for x in (grad_BLD, u_BLD, projected_BLP, W_SRD, bias_SD, A_SND, D_SD)]
    B, L, _ = u_BLD.shape
    per_step = [torch.empty_like(x) for x in inputs[1:3]]
    # Every program adds up its own share of the parameters' gradients: no atomics, the same sum every time.
    if not u_BLD.numel():
        return per_step[0], per_step[1], *_sums([x.new_empty(0, *x.shape) for x in inputs[3:]])
    sequences = -(-B // PROGRAMS)
    programs = -(-B // sequences)
    shares = [x.new_empty(programs, *x.shape) for x in inputs[3:]]
    backward_kernel[(programs,)](*inputs, *per_step, *shares, B, L, sequences, **constants(u_BLD, W_SRD, A_SND, 8))
    return per_step[0], per_step[1], *_sums(shares)


def _sums(shares: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_W, grad_bias, grad_A, grad_D = (share.sum(0) for share in shares)
    return grad_W, grad_bias, grad_A, grad_D


def constants(u_BLD: Tensor, W_SRD: Tensor, A_SND: Tensor, rows_per_warp: int) -> dict[str, int]:
    """What the kernels are compiled for."""
    S, R, D = W_SRD.shape
    T = max(2, 1 << (u_BLD.shape[1] - 1).bit_length())
    return {"S": S, "D": D, "N": A_SND.shape[1], "R": R, "T": T, "num_warps": min(max(T // rows_per_warp, 1), 8)}


make_differentiable(channel_scan_forward, channel_scan_backward, tensors=6)
