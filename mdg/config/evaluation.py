"""Schema of ``eval:`` in a configuration: when to score, and how an image goes through the network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from mdg.fields import BatchSize, Count, Pictures, Size
from mdg.registry import Options

Scale = Annotated[float, Field(gt=0, le=4)]


class EvalConfig(Options):
    """When and how to score."""

    batch_size: BatchSize = 1
    """Images (or sliding windows) per process and forward pass; images that differ in size never share one, so the
    scores do not depend on it."""
    mode: Literal["whole", "slide"] = "whole"
    """`whole` gives the network an image at once, `slide` window by window; logits are averaged where windows
    overlap."""
    window: Size | None = Field(None, validate_default=True)
    """[height, width] of the sliding window in pixels; required by `mode: slide`, refused by `whole`. A window larger
    than an image is cut to it."""
    stride: Size | None = None
    """[down, right] from one window to the next in pixels, at most the window; null takes two thirds of it."""
    scales: list[Scale] = Field([1.0], min_length=1, max_length=32)
    """Test-time augmentation: factors by which images are resized; the softmax of all views is averaged."""
    flip: bool = False
    """Test-time augmentation: mirrored images too."""
    cuda_graphs: bool = False
    """On a GPU, record the forward pass once for each size of the images and replay it, which launches all its kernels
    at once: faster for single images. Keeps the memory of a pass for each of the four latest sizes. No effect on a
    CPU."""
    every: Count = 1
    """Evaluate the selection split every N epochs; the last epoch is always evaluated."""
    selection: Literal["val", "last", "test", "train"] = "val"
    """What chooses `best.pt`: the score on this split, or simply the last epoch. `test` and `train` are never honest
    for reporting, and every table and file of such a run says so."""
    metric: Literal["mIoU", "mAcc", "mF1", "pixel_accuracy"] = "mIoU"
    """Score that selects the best checkpoint; higher is better."""
    pictures: Pictures = 8
    """Frames that an evaluation writes as pictures: so many spread over the split, and so many with the lowest mIoU."""

    @property
    def stride_or_default(self) -> tuple[int, int] | None:
        """[down, right] between sliding windows as used: `stride`, else two thirds of the window, rounded."""
        if self.window is None or self.stride is not None:
            return self.stride
        return tuple(max(1, round(2 * side / 3)) for side in self.window)

    @field_validator("scales")
    @classmethod
    def _each_scale_once(cls, scales: list[float]) -> list[float]:
        if len(set(scales)) < len(scales):
            raise ValueError("expected every scale once: a view that is averaged twice would weigh double")
        return sorted(scales)  # the order means nothing, so that it must not change a bit of the scores either

    @field_validator("window")
    @classmethod
    def _window_fits_mode(cls, window: Size | None, info: ValidationInfo) -> Size | None:
        mode = info.data.get("mode")
        if mode == "slide" and window is None:
            raise ValueError(
                "eval.mode is 'slide': name the [height, width] of the window in pixels, best that of the training "
                "crops, as in eval.window: [480, 640]"
            )
        return _refuse_unused(window, mode)

    @field_validator("stride")
    @classmethod
    def _stride_fits_window(cls, stride: Size | None, info: ValidationInfo) -> Size | None:
        window = info.data.get("window")
        if window and stride and any(step > side for step, side in zip(stride, window, strict=True)):
            raise ValueError(
                f"expected at most eval.window {list(window)}, else no window would see the pixels between: set a "
                "smaller stride, or null for two thirds of the window"
            )
        return _refuse_unused(stride, info.data.get("mode"))


def _refuse_unused(size: Size | None, mode: str | None) -> Size | None:
    if size is not None and mode == "whole":
        raise ValueError("it would not be used, as eval.mode is 'whole': set eval.mode: slide, or this key to null")
    return size
