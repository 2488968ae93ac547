"""From images to class ids, by the rules of ``eval:``. Scores, masks and pictures all come from here.

A *view* is one look at the images: resized by one scale and mirrored or not, given to the network whole or window by
window. The logits of a view are resized to the output. With several views the softmax of each is averaged with equal
weight, the rule of mmsegmentation's ``SegTTAModel``; with one view its logits decide. Logits that are not finite are an
error: the argmax of NaN is class 0, which looks like a result.

Windows lie as in mmsegmentation's ``slide_inference``: they start every ``stride`` pixels, the last one of a row or
column is shifted inwards so that each has full size, and a side of the image shorter than the window gets one window of
its own length. Nothing is padded; where windows overlap, the mean of their logits counts.

Legend: B batch, K classes, H W size of the images, h w size of the output or of a window, N windows of one forward
pass; sizes are [height, width] in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mdg.config.schema import EvalConfig
from mdg.data.transforms.resampling import resize_image
from mdg.engine.cuda_graphs import GraphedForward
from mdg.engine.shift_search import find_shift, moved
from mdg.errors import ConfigError, NonFiniteError, first_few
from mdg.models.absence import Camera, why_not_without
from mdg.models.segmentor import SegmentationOutput
from mdg.ops.resize import resize_bilinear

Place = tuple[int, int, int]  # image of the batch, top, left


SMALLEST = 1e-30  # of probabilities, before their logarithm
CAMERAS_ALONE = {"rgb": "RGB alone", "thermal": "thermal alone"}


class InferenceRule(NamedTuple):
    """How scores are computed, in the words of the protocol."""

    mode: str
    """"whole image" or "sliding window 480x640, stride 320x427"; ", RGB alone" where the other camera is left out."""
    augmentation: str
    """"none" or "scales 0.5, 1, 1.5 with flip, mean of softmax"."""


class View(NamedTuple):
    """One look at the images."""

    scale: float
    mirrored: bool


class Inference:
    """A network under the rules of ``eval:``. It does not switch the network to evaluation mode.

    Memory: the scores of one view beside the running sum, whatever the number of views and windows. A forward pass
    takes at most ``eval.batch_size`` windows, or the whole batch it is given.

    Args:
        model: Network on ``device``: uint8 RGB ``[B, 3, H, W]`` and thermal ``[B, 1, H, W]`` to a SegmentationOutput.
        options: ``eval:`` of the configuration.
        autocast: Precision of the forward passes; everything after the logits is float32.
        device: Where images are moved to.
        temperature: What logits are divided by before they become probabilities (:mod:`mdg.engine.trust`). It
            changes no mask.

    Raises:
        ConfigError: ``eval.cameras`` leaves out a camera that the network needs.
    """

    def __init__(
        self,
        model: nn.Module,
        options: EvalConfig,
        autocast: torch.autocast,
        device: torch.device,
        temperature: float = 1.0,
    ):
        self.model, self.options, self.autocast, self.device = model, options, autocast, device
        self.temperature = temperature
        absent: dict[str, Camera] = {"rgb": "thermal", "thermal": "rgb"}
        if options.cameras != "both" and (reason := why_not_without(model, absent[options.cameras])):
            raise ConfigError(f"eval.cameras: {options.cameras}: {reason}")
        self._forward: Callable[[Tensor, Tensor], SegmentationOutput] = self._pass
        if options.cuda_graphs and device.type == "cuda":
            self._forward = GraphedForward(self._pass)
        self.views = [View(*view) for view in product(options.scales, (False, True) if options.flip else (False,))]

    @torch.inference_mode()
    def __call__(
        self, rgb_B3HW: Tensor, thermal_B1HW: Tensor, size: Sequence[int], names: Sequence[str] = ()
    ) -> Tensor:
        """Class ids ``[B, h, w]`` int64 on the device, at the output ``size``; arguments and errors of ``scores``."""
        return self.scores(rgb_B3HW, thermal_B1HW, size, names).argmax(dim=1)

    @torch.inference_mode()
    def scores(self, rgb_B3HW: Tensor, thermal_B1HW: Tensor, size: Sequence[int], names: Sequence[str] = ()) -> Tensor:
        """Float32 ``[B, K, h, w]`` at the output ``size``: logits of the only view, or the mean probabilities of all.

        Args:
            rgb_B3HW, thermal_B1HW: uint8 images of one size, on any device.
            size: Of the label or mask.
            names: Of the images, for messages.

        Raises:
            NonFiniteError: Logits that are not finite. Asking for that is the one wait for the device in a call.
        """
        return self._scores(self._to_device(rgb_B3HW, thermal_B1HW), size, names)

    def _scores(self, images: tuple[Tensor, Tensor], size: Sequence[int], names: Sequence[str]) -> Tensor:
        views = ((self._view_logits(*images, view), view) for view in self.views)
        if len(self.views) == 1:
            logits_BKHW, view = next(views)
            _require_finite(_peaks(logits_BKHW), names)
            return _resized(logits_BKHW, view, size)
        total: Tensor | None = None
        peaks_B: Tensor | None = None
        for logits_BKHW, view in views:  # the sums are all that is kept from one view to the next
            peaks = _peaks(logits_BKHW)
            part = _resized(logits_BKHW, view, size).softmax(dim=1)
            peaks_B = peaks if peaks_B is None else peaks_B.add_(peaks)
            total = part if total is None else total.add_(part)
            del logits_BKHW, part
        assert total is not None and peaks_B is not None, "no views"
        _require_finite(peaks_B, names)
        return total.div_(len(self.views))

    @torch.inference_mode()
    def explain(
        self, rgb_B3HW: Tensor, thermal_B1HW: Tensor, size: Sequence[int], names: Sequence[str] = ()
    ) -> tuple[Tensor, SegmentationOutput]:
        """Class ids as from a call, and the output of one pass over the whole images: it holds their divergence."""
        scores_BKHW, output = self.explained_scores(rgb_B3HW, thermal_B1HW, size, names)
        return scores_BKHW.argmax(dim=1), output

    @torch.inference_mode()
    def explained_scores(
        self, rgb_B3HW: Tensor, thermal_B1HW: Tensor, size: Sequence[int], names: Sequence[str] = ()
    ) -> tuple[Tensor, SegmentationOutput]:
        """As :meth:`scores`, and the output of one pass over the whole images."""
        images = self._to_device(rgb_B3HW, thermal_B1HW)
        output = self.forward(*images)
        if self.options.mode == "whole" and self.views == [View(1, False)]:  # that pass is the only view
            logits_BKHW = output.logits.float()
            _require_finite(_peaks(logits_BKHW), names)
            return resize_bilinear(logits_BKHW, size), output
        return self._scores(images, size, names), output

    def probabilities(self, scores_BKHW: Tensor) -> Tensor:
        """Of the classes at every pixel: what :meth:`scores` gives are logits where there is one view."""
        if self.temperature == 1 and len(self.views) > 1:
            return scores_BKHW
        return self.logits(scores_BKHW).softmax(dim=1)

    def logits(self, scores_BKHW: Tensor) -> Tensor:
        """What :meth:`scores` gives, as logits at the temperature: where there are several views, the logarithm of
        their mean probabilities."""
        logits_BKHW = scores_BKHW if len(self.views) == 1 else scores_BKHW.clamp_min(SMALLEST).log()
        return logits_BKHW if self.temperature == 1 else logits_BKHW / self.temperature

    def confidence(self, scores_BKHW: Tensor) -> Tensor:
        """Probability of the predicted class, float32 ``[B, H, W]``, without those of all classes in memory."""
        logits_BKHW = self.logits(scores_BKHW)
        return (logits_BKHW.amax(dim=1) - logits_BKHW.logsumexp(dim=1)).exp()

    def describe(self) -> InferenceRule:
        """The rule in words, see :func:`describe_inference`."""
        return describe_inference(self.options)

    def forward(self, rgb_B3HW: Tensor, thermal_B1HW: Tensor) -> SegmentationOutput:
        """One pass over images as they are, in the configured precision."""
        return self._forward(rgb_B3HW, thermal_B1HW)

    def _pass(self, rgb_B3HW: Tensor, thermal_B1HW: Tensor) -> SegmentationOutput:
        with self.autocast:
            return self.model(*self._shown(rgb_B3HW, thermal_B1HW))

    def _shown(self, rgb_B3HW: Tensor, thermal_B1HW: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What the network sees of a pair."""
        cameras = self.options.cameras
        return rgb_B3HW if cameras != "thermal" else None, thermal_B1HW if cameras != "rgb" else None

    def _to_device(self, rgb_B3HW: Tensor, thermal_B1HW: Tensor) -> tuple[Tensor, Tensor]:
        rgb_B3HW = rgb_B3HW.to(self.device, non_blocking=True)
        thermal_B1HW = thermal_B1HW.to(self.device, non_blocking=True)
        reach = self.options.shift_search
        if reach and self.options.cameras == "both":
            thermal_B1HW = moved(thermal_B1HW, find_shift(rgb_B3HW, thermal_B1HW, reach))
        return rgb_B3HW, thermal_B1HW

    def _view_logits(self, rgb_B3HW: Tensor, thermal_B1HW: Tensor, view: View) -> Tensor:
        images = [rgb_B3HW, thermal_B1HW]
        if view.scale != 1:
            scaled = [max(1, round(view.scale * side)) for side in rgb_B3HW.shape[-2:]]
            images = [resize_image(image, scaled) for image in images]
        if view.mirrored:
            images = [image.flip(-1) for image in images]
        return self._sliding(*images) if self.options.mode == "slide" else self._whole(*images)

    def _whole(self, rgb_B3HW: Tensor, thermal_B1HW: Tensor) -> Tensor:
        return self.forward(rgb_B3HW, thermal_B1HW).logits.float()

    def _sliding(self, rgb_B3HW: Tensor, thermal_B1HW: Tensor) -> Tensor:
        def predict(rgb_N3hw: Tensor, thermal_N1hw: Tensor) -> Tensor:
            # A network of the user's may give smaller logits; windows are averaged pixel by pixel.
            return resize_bilinear(self._whole(rgb_N3hw, thermal_N1hw), rgb_N3hw.shape[-2:])

        window, stride = self.options.window, self.options.stride_or_default
        assert window is not None and stride is not None, "the options require them"
        return sliding_logits(predict, rgb_B3HW, thermal_B1HW, window, stride, self.options.batch_size)


def _resized(logits_BKHW: Tensor, view: View, size: Sequence[int]) -> Tensor:
    return resize_bilinear(logits_BKHW.flip(-1) if view.mirrored else logits_BKHW, size)


def _peaks(logits_BKHW: Tensor) -> Tensor:
    """Largest magnitude per image, ``[B]`` on the device; NaN and infinity come through. Before resizing, as most
    networks give a sixteenth of the pixels."""
    return torch.linalg.vector_norm(logits_BKHW, ord=torch.inf, dim=(1, 2, 3))


def _require_finite(peaks_B: Tensor, names: Sequence[str]) -> None:
    finite_B = peaks_B.isfinite().tolist()
    if all(finite_B):
        return
    labels = names or [f"image {place} of the batch" for place in range(len(finite_B))]
    bad = [label for label, finite in zip(labels, finite_B, strict=True) if not finite]
    raise NonFiniteError(
        f"the network's logits are not finite for {first_few(bad)}: there is no prediction to score or show. "
        "Is it so in train.precision=fp32 too? Then the weights are damaged or the training had diverged: take an "
        "earlier checkpoint"
    )


def describe_inference(options: EvalConfig) -> InferenceRule:
    """How :class:`Inference` computes scores under ``options``, for the protocol."""
    mode = "whole image"
    if options.mode == "slide":
        assert options.window is not None and options.stride_or_default is not None, "the options require them"
        window, stride = ("x".join(map(str, size)) for size in (options.window, options.stride_or_default))
        mode = f"sliding window {window}, stride {stride}"
    if options.cameras != "both":
        mode += f", {CAMERAS_ALONE[options.cameras]}"
    elif options.shift_search:
        mode += f", thermal moved by less than {options.shift_search} px to where edges agree"
    several = len(options.scales) > 1
    if not (several or options.flip or options.scales != [1]):
        return InferenceRule(mode, "none")
    augmentation = f"scale{'s' if several else ''} " + ", ".join(f"{scale:g}" for scale in options.scales)
    augmentation += " with flip" if options.flip else ""
    return InferenceRule(mode, augmentation + (", mean of softmax" if several or options.flip else ""))


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along one side so that they cover it: ``window <= length`` and, where more than one is
    needed, ``1 <= stride <= window``, in pixels."""
    assert window == length or 1 <= stride <= window < length, (length, window, stride)
    last = length - window
    return [*range(0, last, stride), last]


def sliding_logits(
    predict: Callable[[Tensor, Tensor], Tensor],
    rgb_B3HW: Tensor,
    thermal_B1HW: Tensor,
    window: tuple[int, int],
    stride: tuple[int, int],
    chunk: int,
) -> Tensor:
    """Logits ``[B, K, H, W]`` float32, averaged over the windows that see a pixel.

    Args:
        predict: ``[N, 3, h, w]`` and ``[N, 1, h, w]`` to float32 logits ``[N, K, h, w]``.
        rgb_B3HW, thermal_B1HW: Images of one size.
        window, stride: [height, width] in pixels.
        chunk: Windows per call of ``predict``, at most. Windows of several images may share one.
    """
    height, width = rgb_B3HW.shape[-2:]
    h, w = min(window[0], height), min(window[1], width)
    tops, lefts = window_starts(height, h, stride[0]), window_starts(width, w, stride[1])
    total_BKHW: Tensor | None = None
    for places in _chunks([(b, y, x) for b in range(len(rgb_B3HW)) for y in tops for x in lefts], chunk):
        windows = (_cut(image, places, h, w) for image in (rgb_B3HW, thermal_B1HW))
        # No name is bound to the logits here: it would keep them alive during the next forward pass.
        total_BKHW = _add(total_BKHW, predict(*windows), places, (len(rgb_B3HW), height, width))
    assert total_BKHW is not None, "no images"
    seen_HW = torch.outer(_seen(height, tops, h), _seen(width, lefts, w)).to(total_BKHW)
    return total_BKHW.div_(seen_HW)


def _add(total_BKHW: Tensor | None, logits_NKhw: Tensor, places: list[Place], size_BHW: tuple[int, int, int]) -> Tensor:
    if total_BKHW is None:
        batch, height, width = size_BHW
        total_BKHW = logits_NKhw.new_zeros(batch, logits_NKhw.shape[1], height, width)
    h, w = logits_NKhw.shape[-2:]
    for logits_Khw, (b, y, x) in zip(logits_NKhw, places, strict=True):
        total_BKHW[b, :, y : y + h, x : x + w] += logits_Khw
    return total_BKHW


def _chunks(places: list[Place], size: int) -> Iterator[list[Place]]:
    for first in range(0, len(places), size):
        yield places[first : first + size]


def _cut(image_BCHW: Tensor, places: list[Place], h: int, w: int) -> Tensor:
    return torch.stack([image_BCHW[b, :, y : y + h, x : x + w] for b, y, x in places])


def _seen(length: int, starts: list[int], window: int) -> Tensor:
    seen = torch.zeros(length)
    for start in starts:
        seen[start : start + window] += 1
    return seen
