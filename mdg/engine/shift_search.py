"""A small shift between the cameras, found in a pair itself and taken back before the network sees it.

Brackets bend and lenses are changed: thermal lies some pixels beside RGB, which no training foresaw. Edges of the two
images agree best where they lie upon each other, whatever their contrast and its sign: the measure is that of
normalized gradient fields (Haber and Modersitzki, "Intensity Gradient Based Registration and Fusion of Multi-Modal
Images", MICCAI 2006), for all shifts at once by the convolution theorem.

Legend: B batch, H W image size, R reach, S = 2 R + 1 shifts along an axis.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# What a shift must show to be taken. By night, where RGB shows few edges, those of noise agree up to 15 % better
# somewhere than where the images lie, and two to three deviations better than elsewhere; those of a pair that is moved
# back agree 30 to 100 % better, and by four to nine deviations.
LEAST_GAIN, LEAST_DEVIATIONS = 0.15, 3.5
NORMAL = 1.4826  # standard deviations in a median absolute deviation


def edge_agreement(rgb_B3HW: Tensor, thermal_B1HW: Tensor, reach: int) -> Tensor:
    """How well edges agree where thermal is moved by ``[y, x]`` of -R..R: the mean over what overlaps of the squared
    product of the normalized gradients, ``[B, S, S]`` float32.

    Args:
        rgb_B3HW, thermal_B1HW: uint8 of one size.
        reach: ``R`` in pixels.
    """
    fields = [_normalized_gradients(image) for image in (rgb_B3HW, thermal_B1HW)]
    size = [side + reach for side in rgb_B3HW.shape[-2:]]  # so that nothing comes round
    spectra = [[torch.fft.rfft2(part, size) for part in _products(*field)] for field in fields]
    total = sum(
        weight * torch.fft.irfft2(own * other.conj(), size)
        for weight, own, other in zip((1, 1, 2), *spectra, strict=True)
    )
    assert isinstance(total, Tensor)
    offsets = torch.arange(-reach, reach + 1, device=total.device)
    height, width = rgb_B3HW.shape[-2:]
    overlap_SS = (height - offsets.abs())[:, None] * (width - offsets.abs())
    return total[:, offsets % size[0]][:, :, offsets % size[1]] / overlap_SS


def find_shift(rgb_B3HW: Tensor, thermal_B1HW: Tensor, reach: int) -> Tensor:
    """By how many pixels ``[down, right]`` thermal is to be moved, ``[B, 2]`` int64; zero where edges do not agree
    clearly better at less than the reach, or an image is not larger than that."""
    if min(rgb_B3HW.shape[-2:]) <= reach:
        return torch.zeros(len(rgb_B3HW), 2, dtype=torch.long, device=rgb_B3HW.device)
    agreement_BSS = edge_agreement(rgb_B3HW, thermal_B1HW, reach)
    best_B = agreement_BSS.flatten(1).argmax(dim=1)
    shift_B2 = torch.stack([best_B // (2 * reach + 1), best_B % (2 * reach + 1)], dim=1) - reach
    top_B, middle_B = agreement_BSS.flatten(1).amax(dim=1), agreement_BSS.flatten(1).median(dim=1).values
    spread_B = NORMAL * (agreement_BSS.flatten(1) - middle_B[:, None]).abs().median(dim=1).values
    clear_B = top_B > (1 + LEAST_GAIN) * agreement_BSS[:, reach, reach]
    clear_B &= top_B - middle_B > LEAST_DEVIATIONS * spread_B
    clear_B &= shift_B2.abs().amax(dim=1) < reach  # at the border of the search it may rise further
    return shift_B2 * clear_B[:, None]


def moved(image_BCHW: Tensor, shift_B2: Tensor) -> Tensor:
    """Images moved by ``[down, right]`` pixels each; where nothing comes from they are black, as behind a rig."""
    out_BCHW = torch.zeros_like(image_BCHW)
    height, width = image_BCHW.shape[-2:]
    for out, image, (down, right) in zip(out_BCHW, image_BCHW, shift_B2.tolist(), strict=True):
        if abs(down) < height and abs(right) < width:
            source = image[:, max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
            out[:, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = source
    return out_BCHW


def _normalized_gradients(image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Down and to the right, ``[B, H, W]``: about one at edges of any strength, near zero in noise; zero at the border,
    and beside what is black, as the padding of a warped image is."""
    grey_B1HW = image_BCHW.float().mean(dim=1, keepdim=True)
    smooth_B1HW = F.avg_pool2d(F.pad(grey_B1HW, (1, 1, 1, 1), mode="replicate"), 3, 1)
    down_B1HW = F.pad(smooth_B1HW[:, :, 2:] - smooth_B1HW[:, :, :-2], (0, 0, 1, 1))
    right_B1HW = F.pad(smooth_B1HW[..., 2:] - smooth_B1HW[..., :-2], (1, 1))
    shown_B1HW = 1 - F.max_pool2d((image_BCHW.amax(dim=1, keepdim=True) == 0).float(), 5, 1, 2)
    square_B1HW = (down_B1HW.square() + right_B1HW.square()) * shown_B1HW
    typical_B111 = square_B1HW.sqrt().mean(dim=(2, 3), keepdim=True)
    scale_B1HW = shown_B1HW / (square_B1HW + typical_B111.square() + 1e-6).sqrt()
    return (down_B1HW * scale_B1HW)[:, 0], (right_B1HW * scale_B1HW)[:, 0]


def _products(down_BHW: Tensor, right_BHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of which the squared product of two fields is made: ``(a·b)² = a_y² b_y² + a_x² b_x² + 2 a_y a_x b_y b_x``."""
    return down_BHW.square(), right_BHW.square(), down_BHW * right_BHW
