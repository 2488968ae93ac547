"""Filters in the spectrum of real maps: by PyTorch's FFT, or, for other runtimes, by products with matrices.

The transform of a map of H x W is a product of matrices along each side, whose entries depend on the size alone.

Legend: B batch, c channels, H W map, F = W//2 + 1 columns of the real spectrum, n samples, K filters of u x v.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mdg.ops.modes import is_exporting


def filter_spectrum(x_BcHW: Tensor, *gates_BcHF: Tensor) -> Tensor:
    """``irfft2(rfft2(x) * gate * gate ...)`` of float32 maps ``[B, c, H, W]``.

    As ``irfft2`` on a CPU does, the imaginary parts of the columns 0 and Nyquist are dropped before the last sum.

    Args:
        x_BcHW: Real maps.
        gates_BcHF: Real factors of the half spectrum, each ``[H, F]`` or ``[B, c, H, F]``.
    """
    if is_exporting():
        return _filter_by_matrices(x_BcHW, gates_BcHF)
    spectrum_BcHF = torch.fft.rfft2(x_BcHW, norm="ortho")
    for gate in gates_BcHF:
        spectrum_BcHF = spectrum_BcHF * gate
    return torch.fft.irfft2(spectrum_BcHF, s=x_BcHW.shape[-2:], norm="ortho")


def resample(bank_Kuv: Tensor, rows_Hu: Tensor, columns_Fv: Tensor) -> Tensor:
    """Filters of a spectrum of u x v on one of H x F: ``[K, H, F]``."""
    if is_exporting():  # products of two matrices, with which OpenVINO can cope where the size is open
        K, u, v = bank_Kuv.shape
        rows_HKv = (rows_Hu @ bank_Kuv.transpose(0, 1).reshape(u, K * v)).reshape(-1, v)
        return (rows_HKv @ columns_Fv.T).unflatten(0, (-1, K)).transpose(0, 1)
    return rows_Hu @ bank_Kuv @ columns_Fv.T


def row_frequencies(n: int, device: torch.device) -> Tensor:
    """Frequencies of the rows of a spectrum in cycles per sample, ``[n]`` float32: ``torch.fft.fftfreq``."""
    if not is_exporting():
        return torch.fft.fftfreq(n, device=device)
    steps_n = torch.arange(n, device=device)
    count_1 = _count(steps_n)
    return torch.where(2 * steps_n < count_1, steps_n, steps_n - count_1).float() * (1.0 / count_1.float())


def column_frequencies(n: int, device: torch.device) -> Tensor:
    """Frequencies of the columns of a half spectrum, ``[n//2 + 1]`` float32: ``torch.fft.rfftfreq``."""
    if not is_exporting():
        return torch.fft.rfftfreq(n, device=device)
    count_1 = _count(torch.arange(n, device=device))
    return torch.arange(n // 2 + 1, device=device).float() * (1.0 / count_1.float())


def _count(steps_n: Tensor) -> Tensor:
    """``n`` of the steps ``0 .. n - 1``, ``[1]``: exporters calculate with a size that is open only as a tensor."""
    return steps_n[-1:] + 1


def _filter_by_matrices(x_BcHW: Tensor, gates: tuple[Tensor, ...]) -> Tensor:
    """Real and imaginary parts apart: ``exp(-i a) (p + i q) = (p cos a + q sin a) + i (q cos a - p sin a)``."""
    cos_11WF, sin_11WF, weight_F = _columns(x_BcHW)
    rows_H = torch.arange(x_BcHW.shape[-2], device=x_BcHW.device)
    cos_11HH, sin_11HH = _waves(rows_H, rows_H)  # both symmetric
    p_BcHF, q_BcHF = x_BcHW @ cos_11WF, -(x_BcHW @ sin_11WF)
    p_BcHF, q_BcHF = cos_11HH @ p_BcHF + sin_11HH @ q_BcHF, cos_11HH @ q_BcHF - sin_11HH @ p_BcHF
    for gate in gates:
        p_BcHF, q_BcHF = p_BcHF * gate, q_BcHF * gate
    p_BcHF, q_BcHF = cos_11HH @ p_BcHF - sin_11HH @ q_BcHF, cos_11HH @ q_BcHF + sin_11HH @ p_BcHF
    return p_BcHF @ (weight_F * cos_11WF).mT - q_BcHF @ (weight_F * sin_11WF).mT


def _columns(x_BcHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Waves along W, ``[1, 1, W, F]``, and how often a column of the half spectrum occurs in the whole one."""
    W, device = x_BcHW.shape[-1], x_BcHW.device
    columns_W, columns_F = torch.arange(W, device=device), torch.arange(W // 2 + 1, device=device)
    single_F = (columns_F == 0) | (2 * columns_F == _count(columns_W))
    return *_waves(columns_W, columns_F), torch.where(single_F, 1.0, 2.0)


def _waves(steps_n: Tensor, frequency_k: Tensor) -> tuple[Tensor, Tensor]:
    """``cos`` and ``sin`` of ``2 pi k t / n``, ``[1, 1, n, k]`` float32, each ``1 / sqrt(n)`` in height.

    Angles are reduced as whole numbers: float32 would lose digits of the large ones. Four dimensions, as the maps have:
    OpenVINO asks for that where the size is open.
    """
    count_1 = _count(steps_n)
    angle_11nk = ((steps_n[:, None] * frequency_k) % count_1).float()[None, None] * (2 * math.pi / count_1.float())
    height_1 = 1.0 / count_1.float().sqrt()
    return angle_11nk.cos() * height_1, angle_11nk.sin() * height_1
