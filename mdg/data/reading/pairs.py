"""From two files, or one of four channels, to an RGB and a thermal image of one size.

Modalities of different sizes are refused, or resized as the configuration says, never silently. Resizing brings two
images of the *same view* to one grid. It cannot undo a parallax or another field of view: there a rig, measured once
for two fixed cameras, warps thermal onto the grid of RGB.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from mdg.data.reading.images import open_image, read_rgb, read_rgb_thermal
from mdg.data.reading.radiometric import is_radiometric, read_embedded_visible
from mdg.data.reading.thermal import read_raw_thermal, scale_thermal
from mdg.data.registration.rig_file import map_views, read_rig, thermal_on_rgb
from mdg.errors import KEYS, DataError, Wording
from mdg.options.files import Alignment, PairOptions, RigAlignment, ThermalScaling

Size = tuple[int, int]
OFF_BY_FEW = 2  # pixels: a rounded scale or a lost border, not another camera
ASPECT_TOLERANCE = 0.01  # relative; cameras round their sides to multiples of 8 or 16


def align(
    rgb_HW3: np.ndarray,
    thermal_HW: np.ndarray,
    label_HW: np.ndarray | None,
    rule: Alignment,
    names: Mapping[str, object],
    wording: Wording = KEYS,
) -> tuple[np.ndarray, np.ndarray]:
    """The two images at one size. The label is never resized.

    Args:
        rgb_HW3, thermal_HW: uint8.
        label_HW: uint8, or None for images without one.
        rule: ``refuse`` wants equal sizes; ``rgb``, ``thermal`` and ``label`` name the part whose size the images take
            (``label`` without a label: the size of RGB). A rig warps thermal onto RGB; :func:`seen_by_both` says where
            it reaches, elsewhere thermal is 0.
        names: File of every part ("rgb", "thermal", "label"), for the message.
        wording: How messages name the options.

    Raises:
        DataError: Sizes differ under ``refuse``, or the label does not have the size that the rule gives; a rig that
            cannot be read, or of images of other proportions.
    """
    if isinstance(rule, RigAlignment):
        return rgb_HW3, _warp(rgb_HW3, thermal_HW, label_HW, rule, names)
    parts = {"rgb": rgb_HW3, "thermal": thermal_HW} | ({} if label_HW is None else {"label": label_HW})
    sizes = {part: image.shape[:2] for part, image in parts.items()}
    target = sizes.get("rgb" if rule == "refuse" else rule, sizes["rgb"])
    wrong = [part for part in parts if sizes[part] != target]
    if (wrong and rule == "refuse") or "label" in wrong:
        # RGB and thermal may come from one file, which is then named once.
        shown = dict.fromkeys(f"{names[part]} is {height}x{width}" for part, (height, width) in sizes.items())
        raise DataError(
            f"sizes (height x width) differ: {', '.join(shown)}; expected an aligned pair"
            f"{'' if label_HW is None else ' with a label of equal size'}. {_advice(sizes, wording)}"
        )
    return _resize(rgb_HW3, target), _resize(thermal_HW, target)


def seen_by_both(rgb_size: Size, thermal_size: Size, rule: Alignment) -> np.ndarray | None:
    """Where thermal reaches on the grid of RGB, bool ``[H, W]``, under a rig; None where the rule is none.

    Args:
        rgb_size, thermal_size: (height, width) before the images are aligned.
        rule: As for :func:`align`.

    Raises:
        DataError: As :func:`align`.
    """
    if not isinstance(rule, RigAlignment):
        return None
    return map_views(read_rig(rule.file), rgb_size, thermal_size).seen_HW


def _warp(
    rgb_HW3: np.ndarray,
    thermal_HW: np.ndarray,
    label_HW: np.ndarray | None,
    rule: RigAlignment,
    names: Mapping[str, object],
) -> np.ndarray:
    height, width = rgb_HW3.shape[:2]
    if label_HW is not None and label_HW.shape != (height, width):
        raise DataError(
            f"{names['label']} is {label_HW.shape[0]}x{label_HW.shape[1]} and {names['rgb']} is {height}x{width} "
            "(height x width); under a rig, labels belong to the RGB images and must have their size"
        )
    rig = read_rig(rule.file)
    try:
        mapping = map_views(rig, (height, width), thermal_HW.shape)
    except DataError as error:
        raise DataError(f"{names['rgb']}, {names['thermal']}: {error} ({rule.file})") from None
    return thermal_on_rgb(thermal_HW, mapping)


def _advice(sizes: Mapping[str, Size], wording: Wording) -> str:
    """What to do about sizes that differ; resizing only where it stretches nothing."""
    different = sorted(set(sizes.values()))
    heights, widths = zip(*different, strict=True)
    aspects = [width / height for height, width in different]
    if max(aspects) / min(aspects) - 1 > ASPECT_TOLERANCE >= abs(max(aspects) * min(aspects) - 1):
        return (
            "One of them is turned by 90 degrees: turn the file, or write the turn into it (the EXIF orientation of an "
            "image is followed). Resizing would distort it"
        )
    if max(max(heights) - min(heights), max(widths) - min(widths)) <= OFF_BY_FEW:
        return (
            f"They differ by {_pixels(max(heights) - min(heights))} in height and {_pixels(max(widths) - min(widths))} "
            "in width, as after a cut or a rounded scale: export the odd one again in the size of the others, or cut "
            "the larger ones at the side where it lost them. Resizing would shift every edge"
        )
    if max(aspects) / min(aspects) - 1 > ASPECT_TOLERANCE:
        return (
            "Their proportions differ, so resizing would stretch one of them: bring them to one view first (cut, or "
            "register them)"
        )
    part = "label" if "label" in sizes else "thermal"
    rules = [rule for rule in ("rgb", "thermal") if sizes[rule] == sizes[part]] or [part]
    choice = wording.option("align", rules[0] if "label" in sizes else "rgb")
    return (
        f"Their proportions agree: {choice} resizes the images to the size of that part (the label is never resized); "
        "that is right only where both cameras show the same view"
    )


def _pixels(count: int) -> str:
    return f"{count} pixel{'' if count == 1 else 's'}"


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if image.shape[:2] == size:
        return image
    shrinks = size[0] < image.shape[0] or size[1] < image.shape[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def read_pair(
    rgb: Path, thermal: Path | None, options: PairOptions, wording: Wording = KEYS
) -> tuple[np.ndarray, np.ndarray]:
    """RGB ``[H, W, 3]`` and thermal ``[H, W]``, uint8.

    Args:
        rgb: Image in colour; with thermal as its fourth channel where ``thermal`` is None. A radiometric JPEG of a
            FLIR camera is both: the photograph inside, which may see more than the thermal lens, and temperatures.
        thermal: Thermal image; None, or ``rgb`` once more, where one file is both.
        options: How they are prepared.
        wording: How messages name the options.

    Raises:
        DataError: A file that cannot be used; the message names it.
    """
    if thermal is None or (thermal == rgb and holds_both(rgb)):
        rgb_HW3, thermal_HW = read_joint(rgb, options.thermal_scaling, wording)
        return align(rgb_HW3, thermal_HW, None, options.align, name_parts(rgb), wording)
    rgb_HW3, raw_HW = read_rgb(rgb, options.grey_rgb, wording), read_raw_thermal(thermal, wording)
    thermal_HW = scale_thermal(raw_HW, options.thermal_scaling, thermal, wording)
    return align(rgb_HW3, thermal_HW, None, options.align, {"rgb": rgb, "thermal": thermal}, wording)


def holds_both(file: Path) -> bool:
    """Whether one file can be a pair: a radiometric JPEG of a FLIR camera, or an image of four channels.

    Raises:
        DataError: It cannot be read.
    """
    return is_radiometric(file) or open_image(file)[1].channels == 4


def read_joint(file: Path, scaling: ThermalScaling, wording: Wording = KEYS) -> tuple[np.ndarray, np.ndarray]:
    """RGB ``[H, W, 3]`` and thermal ``[H, W]``, uint8, of a file that holds both, each in its own size.

    Raises:
        DataError: It does not, or is damaged.
    """
    rgb_HW3, raw_HW = read_joint_raw(file, wording)
    return rgb_HW3, scale_thermal(raw_HW, scaling, file, wording)


def read_joint_raw(file: Path, wording: Wording = KEYS) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`read_joint`, thermal in the values of the file."""
    if is_radiometric(file):
        return read_embedded_visible(file), read_raw_thermal(file, wording)
    return read_rgb_thermal(file, wording)


def name_parts(file: Path) -> dict[str, object]:
    """How messages call the two images of a file that holds both."""
    if not is_radiometric(file):
        return {"rgb": file, "thermal": file}
    return {"rgb": f"{file} (the photograph inside)", "thermal": f"{file} (temperatures)"}
