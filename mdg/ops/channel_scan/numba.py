"""Channel scan on a CPU through numba: compiled at first use, cached on disk, no compiler needed.

Sequences go through in chunks on a few threads; the chunks are those of the sizes of the input, whatever the number of
threads, so that a result does not depend on it. Legend: see ``mdg.ops.channel_scan``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mdg.ops.autograd import is_plain_call, make_differentiable
from mdg.ops.cpu_kernels import LOG2_E, equal_chunks, run_chunks, why_not_numba

STEPS_PER_CHUNK = 4096
FEATURES = 16  # of a vector of the kernels


def numba_channel_scan(
    u_BLD: Tensor, projected_BLP: Tensor, dt_weight_SDR: Tensor, dt_bias_SD: Tensor, A_SDN: Tensor, D_SD: Tensor
) -> Tensor:
    """Backend ``numba``: see ``mdg.ops.channel_scan``."""
    per_step = (u_BLD.float(), projected_BLP.float())
    parameters = (dt_weight_SDR.transpose(1, 2), dt_bias_SD, A_SDN.transpose(1, 2), D_SD)
    run = _forward if is_plain_call(*per_step, *parameters) else channel_scan_forward
    return run(*per_step, *parameters).to(u_BLD.dtype)


def why_not(u_BLD: Tensor, projected_BLP: Tensor, *parameters: Tensor) -> str | None:
    """numba cannot be used, the tensors are not on a CPU, or they are float64."""
    if u_BLD.device.type != "cpu":
        return f"it runs on a CPU and the input is on {u_BLD.device.type}"
    if any(x.dtype == torch.float64 for x in (u_BLD, projected_BLP, *parameters)):
        return "it computes in float32 and an input is float64"
    return why_not_numba()


# The layout of the kernels has the features last, W_SRD and A_SND, and whole vectors of them.


def _forward(
    u_BLD: Tensor, projected_BLP: Tensor, W_SRD: Tensor, bias_SD: Tensor, A_SND: Tensor, D_SD: Tensor
) -> Tensor:
    from mdg.ops.channel_scan.numba_kernels import make_forward  # importing numba takes a second

    features = u_BLD.shape[-1]
    u_BLD, W_SRD, bias_SD, A_SND, D_SD = _whole_vectors(u_BLD, W_SRD, bias_SD, A_SND, D_SD)
    y_BLD = torch.empty_like(u_BLD, memory_format=torch.contiguous_format)
    inputs = _arrays(u_BLD, projected_BLP, W_SRD, bias_SD, A_SND * LOG2_E, D_SD, y_BLD)
    kernel = make_forward(u_BLD.shape[-1], A_SND.shape[1], W_SRD.shape[1])
    run_chunks(lambda chunk, start, stop: kernel(*inputs, start, stop), _chunks(u_BLD.shape))
    return y_BLD[..., :features].contiguous()


channel_scan_forward = torch.library.custom_op("mdg::channel_scan", _forward, mutates_args=())


@torch.library.custom_op("mdg::channel_scan_backward", mutates_args=())
def channel_scan_backward(
    grad_BLD: Tensor, u_BLD: Tensor, projected_BLP: Tensor, W_SRD: Tensor, bias_SD: Tensor, A_SND: Tensor, D_SD: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from mdg.ops.channel_scan.numba_kernels import make_backward

    features = u_BLD.shape[-1]
    grad_BLD, u_BLD, W_SRD, bias_SD, A_SND, D_SD = _whole_vectors(grad_BLD, u_BLD, W_SRD, bias_SD, A_SND, D_SD)
    grad_u, grad_projected = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (u_BLD, projected_BLP)
    )
    chunks = _chunks(u_BLD.shape)
    # Every chunk adds up its own share of the parameters' gradients; the shares are then summed in order.
    shares = [x.new_zeros(len(chunks), *x.shape) for x in (W_SRD, bias_SD, A_SND, D_SD)]
    inputs = _arrays(
        grad_BLD, u_BLD, projected_BLP, W_SRD, bias_SD, A_SND * LOG2_E, A_SND, D_SD, grad_u, grad_projected
    )
    outputs = _arrays(*shares)
    kernel = make_backward(u_BLD.shape[-1], A_SND.shape[1], W_SRD.shape[1])
    run_chunks(lambda chunk, start, stop: kernel(*inputs, *(share[chunk] for share in outputs), start, stop), chunks)
    grad_W, grad_bias, grad_A, grad_D = (share.sum(0)[..., :features] for share in shares)
    return grad_u[..., :features].contiguous(), grad_projected, grad_W, grad_bias, grad_A, grad_D


def _whole_vectors(*tensors: Tensor) -> list[Tensor]:
    """Tensors of D features, with zeros behind them to a multiple of 16: none moves, none counts."""
    missing = -tensors[0].shape[-1] % FEATURES
    return [F.pad(x, (0, missing)) for x in tensors] if missing else list(tensors)


def _arrays(*tensors: Tensor) -> list:
    return [x.detach().contiguous().numpy() for x in tensors]


def _chunks(shape: torch.Size) -> list[tuple[int, int]]:
    sequences, length = shape[:2]
    return equal_chunks(sequences, max(1, STEPS_PER_CHUNK // max(length, 1)))


make_differentiable(channel_scan_forward, channel_scan_backward, tensors=6)
