"""Dynamic frequency gate: learned, content-routed strengthening and weakening of spatial frequencies.

Legend: B batch, H W map, F = W//2 + 1 columns of the real spectrum, C stage width, c = gated channels, E embedding,
K filters of the bank, R condition width, u v rows and columns of the bank's own spectrum.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdg.models.layers import Linear, Mlp, to_bchw, to_bhwc
from mdg.ops.fourier import column_frequencies, filter_spectrum, resample, row_frequencies
from mdg.ops.modes import float32_island
from mdg.options.models import SemanticDynamicDecoderOptions


def periodic_interpolation(frequencies: Tensor, reference: int) -> Tensor:
    """Matrix ``[n, reference]`` that samples a periodic function, known at ``reference`` equally spaced frequencies
    ``0 .. 1``, linearly at ``frequencies`` (cycles per sample, any sign). The identity at the reference grid itself."""
    position = (frequencies % 1.0) * reference
    low = position.floor()
    fraction = position - low
    low_index = low.long() % reference
    matrix = torch.zeros(frequencies.shape[0], reference, dtype=frequencies.dtype, device=frequencies.device)
    matrix.scatter_add_(1, low_index[:, None], (1 - fraction)[:, None])
    return matrix.scatter_add_(1, ((low_index + 1) % reference)[:, None], fraction[:, None])


def half_interpolation(frequencies: Tensor, columns: int) -> Tensor:
    """Matrix ``[n, columns]`` that samples a function known at ``columns`` frequencies from 0 to 1/2 (both included)
    linearly at ``frequencies`` in [0, 1/2]."""
    position = frequencies * 2 * (columns - 1)
    grid = torch.arange(columns, dtype=frequencies.dtype, device=frequencies.device)
    return (1 - (position[:, None] - grid).abs()).clamp(min=0)


def highpass(height: int, width: int, cutoff: float, device: torch.device) -> Tensor:
    """``[H, F]`` float32, 0 where the radius ``sqrt(f_y^2 + f_x^2)`` lies below ``cutoff`` times Nyquist, else 1."""
    fy, fx = row_frequencies(height, device)[:, None], column_frequencies(width, device)
    return (torch.sqrt(fy**2 + fx**2) >= 0.5 * cutoff).float()


def highpass_of_bins(height: int, width: int, bins: float, reference: tuple[int, int], device: torch.device) -> Tensor:
    """``[H, F]`` float32, 0 where the radius lies below ``bins`` bins of the spectrum of a map of the size
    ``reference``, else 1: another share of Nyquist along each axis, as in the published code."""
    fy = reference[0] * row_frequencies(height, device)[:, None]
    fx = reference[1] * column_frequencies(width, device)
    return (torch.sqrt(fy**2 + fx**2) >= bins).float()


def symmetric(bank_KHF: Tensor, width: int) -> Tensor:
    """The bank with ``bank(-f_y) = bank(f_y)`` in the columns ``f_x = 0`` and, where the map has one, Nyquist: only
    then is the gated half spectrum that of a real map."""
    rows = torch.arange(bank_KHF.shape[1], device=bank_KHF.device)
    rows = torch.cat([rows[:1], rows[1:].flip(0)])  # of -f_y
    own = torch.zeros(bank_KHF.shape[2], dtype=torch.bool, device=bank_KHF.device)
    own[0] = True
    own[-1] = own[-1] | (width % 2 == 0)
    return torch.where(own, (bank_KHF + bank_KHF[:, rows]) / 2, bank_KHF)


class DynamicFrequencyGate(nn.Module):
    """``f = Linear(irfft2(rfft2(p) * Γ * HP))``; the decoder multiplies its map by ``1 + f``
    (section 4 of docs/model.md).

    ``Γ = 2 sigmoid(sum_k route_k bank_k)`` lies in (0, 2): below one weakens a frequency, above one strengthens it. The
    bank lives on the half spectrum of a reference grid and is resampled to the spectrum at hand in wrapped frequency,
    so the map may have any size. FFT and gate run in float32 whatever the autocast dtype.
    """

    def __init__(self, options: SemanticDynamicDecoderOptions, *, width: int, condition_width: int):
        super().__init__()
        filters, self.reference = options.frequency_filters, options.frequency_reference
        self.channels, self.cutoff, self.bins = condition_width // 2, options.highpass_cutoff, options.highpass_bins
        self.free_routes, self.hermitian = options.frequency_routes == "free", options.hermitian
        self.reduce = Linear(width, self.channels)
        self.route = Mlp(condition_width, 2 * condition_width, filters * self.channels)
        self.bank = nn.Parameter(0.02 * torch.randn(filters, self.reference[0], self.reference[1] // 2 + 1))
        self.expand = Linear(self.channels, options.embed_dim)

    def gate(self, condition_BhwR: Tensor, height: int, width: int) -> Tensor:
        """``Γ`` ``[B, c, H, F]`` float32 for a map of ``height`` x ``width``."""
        logits = self.route(condition_BhwR.mean(dim=(1, 2))).float()
        route_BcK = logits.unflatten(1, (self.channels, -1))
        route_BcK = route_BcK if self.free_routes else route_BcK.softmax(dim=-1)
        device = self.bank.device
        rows_Hu = periodic_interpolation(row_frequencies(height, device), self.bank.shape[1])
        columns_Fv = half_interpolation(column_frequencies(width, device), self.bank.shape[2])
        bank_KHF = resample(self.bank.float(), rows_Hu, columns_Fv)
        if self.hermitian:
            bank_KHF = symmetric(bank_KHF, width)
        return 2 * torch.sigmoid(torch.einsum("bck,khf->bchf", route_BcK, bank_KHF))

    def forward(self, x_BHWC: Tensor, condition_BhwR: Tensor) -> Tensor:
        """Fused map ``[B, H, W, C]`` and condition ``[B, h, w, R]`` -> ``f`` ``[B, H, W, E]``."""
        H, W = x_BHWC.shape[1:3]
        p_BcHW = to_bchw(F.gelu(self.reduce(x_BHWC)))
        with float32_island(x_BHWC):
            gates = [self.gate(condition_BhwR.float(), H, W)]
            if self.bins is not None:
                gates.append(highpass_of_bins(H, W, self.bins, self.reference, x_BHWC.device))
            elif self.cutoff > 0:
                gates.append(highpass(H, W, self.cutoff, x_BHWC.device))
            filtered_BcHW = filter_spectrum(p_BcHW.float(), *gates)
        return self.expand(to_bhwc(filtered_BcHW))
