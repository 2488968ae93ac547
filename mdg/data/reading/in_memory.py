"""Images that are already there, as arrays, tensors or PIL pictures, brought to what files are read to.

Shape suffixes: H, W are height and width in pixels, C the channels R, G, B (and thermal, where there are four).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mdg.data.reading.images import read_rgb
from mdg.data.reading.pairs import align, read_pair
from mdg.data.reading.thermal import raw_thermal, read_raw_thermal, scale_thermal
from mdg.errors import DataError, Wording
from mdg.options.files import PairOptions

Source = Any
"""A path, a numpy array, a tensor or a PIL image. Colours are in the order R, G, B; a tensor may be ``[C, H, W]``."""

ARGUMENTS = Wording(
    lambda key, value: f"{key}={value!r}",
    "if it is thermal, leave `thermal` out",
    "without `thermal` an image must hold thermal as its fourth channel",
)


def pair_of(
    rgb: Source, thermal: Source | None, options: PairOptions, names: tuple[str, str] = ("rgb", "thermal")
) -> tuple[np.ndarray, np.ndarray]:
    """RGB ``[H, W, 3]`` and thermal ``[H, W]``, uint8, as :func:`mdg.data.reading.pairs.read_pair` gives them of files.

    Args:
        rgb: uint8, or floating point in 0..1; with thermal as fourth channel where ``thermal`` is None.
        thermal: Any numbers; those of more than 8 bits need ``options.thermal_scaling``.
        options: How they are prepared.
        names: What messages call them; paths go by their own names.

    Raises:
        DataError: An image that cannot be used; the message names it.
    """
    if _is_path(rgb) and (thermal is None or _is_path(thermal)):
        return read_pair(Path(rgb), None if thermal is None else Path(thermal), options, ARGUMENTS)
    if thermal is None:
        image = _eight_bits(_array(rgb, names[0]), names[0])
        if image.ndim != 3 or image.shape[2] != 4:
            raise DataError(
                f"{names[0]}: got shape {image.shape}, expected [H, W, 4]; {ARGUMENTS.no_fourth}: pass the thermal "
                "image as second argument"
            )
        rgb_HW3, raw_HW = np.ascontiguousarray(image[..., :3]), np.ascontiguousarray(image[..., 3])
    else:
        rgb_HW3, raw_HW = _rgb(rgb, options, names[0]), _thermal(thermal, names[1])
    shown = {"rgb": str(rgb) if _is_path(rgb) else names[0], "thermal": names[0] if thermal is None else names[1]}
    if _is_path(thermal):
        shown["thermal"] = str(thermal)
    thermal_HW = scale_thermal(raw_HW, options.thermal_scaling, shown["thermal"], ARGUMENTS)
    return align(rgb_HW3, thermal_HW, None, options.align, shown, ARGUMENTS)


def image_alone(
    rgb: Source | None, thermal: Source | None, options: PairOptions, names: tuple[str, str] = ("rgb", "thermal")
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`pair_of` where one of the cameras is absent: its image is black, and nothing is aligned.

    Args:
        rgb, thermal: One of them; the other is None.
        options, names: As there.
    """
    if rgb is not None:
        rgb_HW3 = _rgb(rgb, options, names[0])
        return rgb_HW3, np.zeros(rgb_HW3.shape[:2], np.uint8)
    assert thermal is not None
    shown = str(thermal) if _is_path(thermal) else names[1]
    thermal_HW = scale_thermal(_thermal(thermal, names[1]), options.thermal_scaling, shown, ARGUMENTS)
    return np.zeros((*thermal_HW.shape, 3), np.uint8), thermal_HW


def _rgb(source: Source, options: PairOptions, name: str) -> np.ndarray:
    if _is_path(source):
        return read_rgb(Path(source), options.grey_rgb, ARGUMENTS)
    image = _eight_bits(_array(source, name), name)
    if image.ndim == 2 or image.shape[2] == 1:
        if options.grey_rgb != "repeat":
            choice = ARGUMENTS.option("grey_rgb", "repeat")
            raise DataError(f"{name}: got a grey image {image.shape}, expected [H, W, 3]; {choice} repeats it")
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    if image.shape[2] == 4 and (image[..., 3] == 255).all():
        image = image[..., :3]
    if image.shape[2] != 3:
        raise DataError(f"{name}: got {image.shape[2]} channels, expected 3 (R, G, B)")
    return np.ascontiguousarray(image)


def _thermal(source: Source, name: str) -> np.ndarray:
    if _is_path(source):
        return read_raw_thermal(Path(source), ARGUMENTS)
    image = _array(source, name)
    if image.dtype == bool or image.dtype.kind not in "uif":
        raise DataError(f"{name}: got values of type {image.dtype}, expected whole or floating-point numbers")
    if image.dtype.kind == "i":  # of which OpenCV knows few
        if image.size and image.min() < 0:
            image = image.astype(np.float32)
        else:
            image = image.astype(np.uint16 if image.size and image.max() < 1 << 16 else np.float32)
    elif image.dtype not in (np.uint8, np.uint16):
        image = image.astype(np.float32)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    return np.ascontiguousarray(raw_thermal(np.ascontiguousarray(image), name, ARGUMENTS))


def _eight_bits(image: np.ndarray, name: str) -> np.ndarray:
    """Values of RGB as uint8: they are, or they are fractions of full scale."""
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind == "f":
        low, high = (float(image.min()), float(image.max())) if image.size else (0.0, 0.0)
        if not (0 <= low <= high <= 1):
            raise DataError(f"{name}: got floating-point values {low:g}..{high:g}, expected 0..1, or 8 bits (uint8)")
        return (image * 255 + 0.5).astype(np.uint8)
    raise DataError(f"{name}: got values of type {image.dtype}, expected uint8, or floating point in 0..1")


def _array(source: Source, name: str) -> np.ndarray:
    """``[H, W]`` or ``[H, W, C]`` of whatever it is."""
    if hasattr(source, "getexif") and hasattr(source, "convert"):  # PIL
        from PIL import ImageOps

        upright = ImageOps.exif_transpose(source)
        image = (
            np.asarray(upright.convert("RGBA" if "transparency" in upright.info else "RGB"))
            if (upright.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV"))
            else np.asarray(upright)
        )
    elif hasattr(source, "detach"):
        image = source.detach().cpu().numpy()
    elif isinstance(source, np.ndarray):
        image = source
    else:
        raise DataError(f"{name}: got {type(source).__name__}, expected a path, a numpy array, a tensor or a PIL image")
    if image.ndim == 4 and image.shape[0] == 1:
        image = image[0]
    if image.ndim == 3 and image.shape[2] not in (1, 3, 4) and image.shape[0] in (1, 3, 4):
        image = np.moveaxis(image, 0, -1)
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise DataError(f"{name}: got shape {tuple(image.shape)}, expected [H, W] or [H, W, C]")
    return image


def _is_path(source: Source) -> bool:
    return isinstance(source, (str, Path))
