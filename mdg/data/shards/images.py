"""The images of a frame as members of a shard: which bytes are kept as they are, and back to arrays.

A member is the plain image of its part: RGB of three channels, thermal and label of one, 8 bits each, nothing left to
choose. What the files of a data set are is decided when shards are made; a file that decodes plainly to what the data
set reads stays as it is, byte for byte, everything else becomes PNG.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from mdg.data.base import RGBTDataset
from mdg.data.datasets.file_dataset import FileDataset
from mdg.data.reading.images import count_channels, decode, drop_opaque_alpha, open_bytes
from mdg.data.shards.index import PARTS, SUFFIX_OF
from mdg.errors import DataError
from mdg.utils.files import explained

CHANNELS = {"rgb": 3, "thermal": 1, "label": 1}
Members = dict[str, tuple[str, bytes]]
"""Per part ("rgb", "thermal", "label") the suffix of the format and the bytes of the image."""


def decode_part(part: str, data: bytes, name: Path) -> np.ndarray:
    """The image in a member.

    Args:
        part: ``rgb``, ``thermal`` or ``label``.
        data: Content of the member.
        name: What messages call it.

    Returns:
        uint8, ``[H, W, 3]`` in the order R, G, B, or ``[H, W]``.

    Raises:
        DataError: No image, a damaged one, or one of other channels or depth.
    """
    return _decode(part, data, name)[0]


def _decode(part: str, data: bytes, name: Path) -> tuple[np.ndarray, str]:
    content, header = open_bytes(data, name)
    image = decode(content, header, name)
    if part == "rgb":
        image = drop_opaque_alpha(image)
    if image.dtype != np.uint8 or count_channels(image) != CHANNELS[part]:
        raise DataError(
            f"{name}: got {count_channels(image)} channel(s) of {image.dtype}, expected {CHANNELS[part]} of uint8, as "
            "scripts/make_shards.py writes them"
        )
    return (cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if part == "rgb" else image), header.kind


def encode_frame(dataset: RGBTDataset, place: int) -> Members:
    """Suffix and bytes of the member of each part; raises DataError where the frame cannot be read."""
    frame = dataset.read(place)
    images = {"rgb": frame.rgb_HW3, "thermal": frame.thermal_HW, "label": frame.label_HW}
    files = dataset.files[place] if isinstance(dataset, FileDataset) else {}
    return {part: _as_it_is(part, files, images[part]) or _png(images[part]) for part in PARTS}


def _as_it_is(part: str, files: Mapping[str, Path | None], image: np.ndarray) -> tuple[str, bytes] | None:
    """Format and bytes of the part's own file, where it shows just this image; None elsewhere."""
    file = files.get(part)
    if file is None or sum(other == file for other in files.values()) > 1:
        return None
    with explained(file):
        data = file.read_bytes()
    try:
        plain, kind = _decode(part, data, file)
    except DataError:  # thermal of 16 bits, a label with a palette: the data set knows how to read it
        return None
    same = kind in SUFFIX_OF and plain.shape == image.shape and np.array_equal(plain, image)
    return (SUFFIX_OF[kind], data) if same else None


def _png(image: np.ndarray) -> tuple[str, bytes]:
    plain = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", plain, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    assert done, image.shape
    return "png", data.tobytes()
