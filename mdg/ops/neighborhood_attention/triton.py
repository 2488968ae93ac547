"""Neighborhood attention on CUDA through Triton: no scores in memory, no library with compiled parts.

Legend: see ``mdg.ops.neighborhood_attention``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mdg.ops.triton_launch import interpreted_only_by_name, no_triton

why_not_automatic = interpreted_only_by_name
TILE = 8  # side of the square of queries that a program serves
MAX_HEAD_DIM = 64
MAX_KERNEL = 13
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def triton_neighborhood_attention(
    q_BHWhd: Tensor, k_BHWhd: Tensor, v_BHWhd: Tensor, kernel_size: int, scale: float
) -> Tensor:
    """Backend ``triton``: see ``mdg.ops.neighborhood_attention``."""
    out_BHWhd: Tensor = attention_forward(q_BHWhd, k_BHWhd, v_BHWhd, kernel_size, scale)[0]
    return out_BHWhd


def why_not(q_BHWhd: Tensor, k_BHWhd: Tensor, v_BHWhd: Tensor, kernel_size: int, scale: float) -> str | None:
    """Triton is missing, the tensors are not on CUDA, or of a kind that the kernels are not written for."""
    absent = no_triton(q_BHWhd)
    if absent is not None:
        return absent
    if q_BHWhd.dtype not in DTYPES:
        return f"it takes float32, float16 and bfloat16, got {q_BHWhd.dtype}"
    if q_BHWhd.shape[-1] > MAX_HEAD_DIM:
        return f"it takes head dims up to {MAX_HEAD_DIM}, got {q_BHWhd.shape[-1]}"
    if kernel_size > MAX_KERNEL:
        return f"it takes windows up to {MAX_KERNEL}, got {kernel_size}"
    return None


@torch.library.custom_op("mdg::neighborhood_attention_triton", mutates_args=())
def attention_forward(
    q_BHWhd: Tensor, k_BHWhd: Tensor, v_BHWhd: Tensor, kernel_size: int, scale: float
) -> tuple[Tensor, Tensor]:
    from mdg.ops.neighborhood_attention.triton_kernels import forward_kernel  # a machine without a GPU may lack Triton

    inputs = [x.contiguous() for x in (q_BHWhd, k_BHWhd, v_BHWhd)]
    out_BHWhd = torch.empty_like(inputs[0])
    lse_BHWh = torch.empty(out_BHWhd.shape[:-1], dtype=torch.float32, device=out_BHWhd.device)
    if out_BHWhd.numel():
        numbers = [*out_BHWhd.shape[1:4], scale]
        forward_kernel[_grid(q_BHWhd)](*inputs, out_BHWhd, lse_BHWh, *numbers, **constants(q_BHWhd, kernel_size))
    return out_BHWhd, lse_BHWh


@torch.library.custom_op("mdg::neighborhood_attention_triton_backward", mutates_args=())
def attention_backward(
    grad_BHWhd: Tensor, q_BHWhd: Tensor, k_BHWhd: Tensor, v_BHWhd: Tensor, out_BHWhd: Tensor, lse_BHWh: Tensor,
    kernel_size: int, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    from mdg.ops.neighborhood_attention.triton_kernels import backward_key_kernel, backward_query_kernel

    grad, q, k, v = (x.contiguous() for x in (grad_BHWhd, q_BHWhd, k_BHWhd, v_BHWhd))
    grads = [torch.empty_like(x) for x in (q, k, v)]
    delta_BHWh = torch.empty_like(lse_BHWh)
    if q.numel():
        numbers, chosen = [*q.shape[1:4], scale], constants(q, kernel_size, backward=True)
        backward_query_kernel[_grid(q)](q, k, v, out_BHWhd, lse_BHWh, grad, grads[0], delta_BHWh, *numbers, **chosen)
        backward_key_kernel[_grid(q)](q, k, v, lse_BHWh, grad, delta_BHWh, *grads[1:], *numbers, **chosen)
    return grads[0], grads[1], grads[2]


def _grid(x_BHWhd: Tensor) -> tuple[int]:
    B, H, W, h, _ = x_BHWhd.shape
    return (B * -(-H // TILE) * -(-W // TILE) * h,)


def constants(
    x_BHWhd: Tensor, kernel_size: int, *, backward: bool = False, architecture: int | None = None
) -> dict[str, Any]:
    """What the kernels are compiled for. With these blocks and warps hardly anything spills (docs/gpu_kernels.md).

    Args:
        x_BHWhd: The queries.
        kernel_size: Side of the window.
        backward: Of the kernels of the gradients.
        architecture: Ten times the compute capability; None asks the device.
    """
    _, H, W, _, d = x_BHWhd.shape
    D = max(16, 1 << (d - 1).bit_length())  # a matrix product takes 16 at least
    if architecture is None and x_BHWhd.device.type == "cuda":
        architecture = 10 * torch.cuda.get_device_capability(x_BHWhd.device)[0]
    # float32 is float32 unless torch was told otherwise, as for every other matrix product. It has no tensor cores
    # then, and needs the registers that Turing (sm_75) needs for half precision, too.
    plain, old = x_BHWhd.dtype == torch.float32, architecture is not None and architecture < 80
    block = 32 if plain or old else 64
    return {
        "KH": min(kernel_size, H), "KW": min(kernel_size, W), "d": d, "D": D, "TILE": TILE,
        "BLOCK": block // 2 if backward else block,
        "PRECISION": "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee",
        "num_warps": 8 if D == 64 or (plain and backward and D == 32) or (old and not plain) else 4,
    }  # fmt: skip


@attention_forward.register_fake
def _(q_BHWhd: Tensor, k_BHWhd: Tensor, v_BHWhd: Tensor, kernel_size: int, scale: float) -> tuple[Tensor, Tensor]:
    return q_BHWhd.new_empty(q_BHWhd.shape), q_BHWhd.new_empty(q_BHWhd.shape[:-1], dtype=torch.float32)


@attention_backward.register_fake
def _(grad_BHWhd: Tensor, q: Tensor, k: Tensor, v: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.numbers = inputs[3:]
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_BHWhd: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return (*attention_backward(grad_BHWhd, *ctx.saved_tensors, *ctx.numbers), None, None)


attention_forward.register_autograd(_backward, setup_context=_save)
