"""Consistency from weak to strong: what the network is sure of teaches it about the same image, changed strongly (Sohn
et al., FixMatch, NeurIPS 2020; Yang et al., UniMatch V2, 2024, in its simple form: one strong view).

Legend: U images without a label, K classes, H W image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mdg.config import RunConfig
from mdg.engine.methods.base import Images, Method, Terms, foreground_share, labelled_part, ramped, unwrapped
from mdg.losses import Objective
from mdg.losses.pseudo_labels import pseudo_cross_entropy
from mdg.options.methods import StrongWeakOptions
from mdg.registry import METHODS

GREY, BLUR = 0.2, 0.5  # chances
CUT = (0.1, 0.4)  # share of the area


@METHODS.register(StrongWeakOptions)
class StrongWeak(Method):
    """See the module. The images of the loader are the weak view."""

    def __init__(self, options: StrongWeakOptions, *, config: RunConfig, num_classes: int):
        super().__init__(config, num_classes)
        self.threshold, self.weight, self.ramp_epochs = options.threshold, options.weight, options.ramp_epochs
        self.strength, self.cutmix = options.strength, options.cutmix

    def loss(self, network: nn.Module, images: Images, objective: Objective, step: float) -> tuple[Tensor, Terms]:
        """The objective where there is a label; elsewhere cross-entropy with what was said with confidence, divided by
        all pixels that were seen."""
        count = images.labelled
        with evaluating(unwrapped(network)) as plain, torch.no_grad(), self.autocast:
            weak = plain(images.rgb_B3HW[count:], images.thermal_B1HW[count:]).logits
        sure_UHW, target_UHW = weak.float().softmax(1).max(1)
        seen_UHW = images.seen_UHW
        counts_UHW = seen_UHW * (sure_UHW >= self.threshold)
        rgb, thermal = stronger(images.rgb_B3HW[count:], images.thermal_B1HW[count:], self.strength)
        boxes = draw_boxes(len(rgb), (rgb.shape[-2], rgb.shape[-1]), self.cutmix)
        rgb, thermal, target_UHW, counts_UHW = (mixed(x, boxes) for x in (rgb, thermal, target_UHW, counts_UHW))
        with self.autocast:
            output = network(
                torch.cat([images.rgb_B3HW[:count], rgb]), torch.cat([images.thermal_B1HW[:count], thermal])
            )
        total, terms = objective(labelled_part(output, count), images.label_BHW[:count])
        certain = counts_UHW.sum() / seen_UHW.sum().clamp(min=1)
        value = pseudo_cross_entropy(output.logits[count:], target_UHW, counts_UHW.float()) * certain
        total = total + ramped(self.weight, self.ramp_epochs, step) * value
        terms |= {
            "consistency": value.detach(),
            "certain": certain.to(torch.float32),
            "foreground": foreground_share(target_UHW, counts_UHW > 0),
        }
        return total, terms


@contextmanager
def evaluating(network: nn.Module) -> Iterator[nn.Module]:
    """The network in evaluation mode; every part is afterwards as it was."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield network
    finally:
        for module, mode in modes.items():
            module.training = mode


def stronger(rgb_U3HW: Tensor, thermal_U1HW: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Photometric changes of each image: brightness, contrast, saturation and blur, some RGB images grey. uint8."""
    changed = [_change(rgb, thermal, strength) for rgb, thermal in zip(rgb_U3HW, thermal_U1HW, strict=True)]
    return torch.stack([rgb for rgb, _ in changed]), torch.stack([thermal for _, thermal in changed])


def _change(rgb_3HW: Tensor, thermal_1HW: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    import torchvision.transforms.v2.functional as TF  # half a second, which other methods do not pay

    drawn = torch.rand(8).tolist()
    factors = [1 + strength * (2 * value - 1) for value in drawn[:5]]
    rgb_3HW = TF.adjust_brightness(rgb_3HW, factors[0])
    rgb_3HW = TF.adjust_contrast(rgb_3HW, factors[1])
    rgb_3HW = TF.adjust_saturation(rgb_3HW, factors[2])
    thermal_1HW = TF.adjust_contrast(TF.adjust_brightness(thermal_1HW, factors[3]), factors[4])
    if drawn[5] < GREY * (strength > 0):
        rgb_3HW = TF.rgb_to_grayscale(rgb_3HW, num_output_channels=3)
    if drawn[6] < BLUR * (strength > 0):
        sigma = 0.1 + 1.9 * drawn[7]
        rgb_3HW, thermal_1HW = (TF.gaussian_blur(x, [5, 5], [sigma, sigma]) for x in (rgb_3HW, thermal_1HW))
    return rgb_3HW, thermal_1HW


Box = tuple[slice, slice]


def draw_boxes(images: int, size: tuple[int, int], chance: float) -> list[Box | None]:
    """Per image the part that comes from another one (Yun et al., CutMix, ICCV 2019), or None."""
    boxes: list[Box | None] = []
    for _ in range(images):
        taken, area, ratio, y, x = torch.rand(5).tolist()
        share = CUT[0] + area * (CUT[1] - CUT[0])
        aspect = 2 ** (2 * ratio - 1)  # 1/2 to 2
        height = min(size[0], max(1, round(size[0] * (share * aspect) ** 0.5)))
        width = min(size[1], max(1, round(size[1] * (share / aspect) ** 0.5)))
        top, left = int(y * (size[0] - height + 1)), int(x * (size[1] - width + 1))
        box = slice(top, top + height), slice(left, left + width)
        boxes.append(box if taken < chance else None)
    return boxes


def mixed(images: Tensor, boxes: list[Box | None]) -> Tensor:
    """The images with the parts ``[..., H, W]`` of their boxes from the image behind each."""
    out = images.clone()
    for index, box in enumerate(boxes):
        if box is not None:
            out[index][..., box[0], box[1]] = images[(index + 1) % len(images)][..., box[0], box[1]]
    return out
