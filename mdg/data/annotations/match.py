"""Which image belongs to an annotation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from mdg.data.annotations.source import Size
from mdg.data.reading.files import ALL_SUFFIXES, walk, without_suffix
from mdg.data.reading.images import open_image
from mdg.data.reading.names import same
from mdg.errors import DataError

ROBOFLOW = re.compile(r"_(?:png|jpe?g|bmp|tiff?|webp)\.rf\.\w+$", re.IGNORECASE)  # 0001_png.rf.5f3c0a
MASK = re.compile(r"[-_.](?:mask|label|labels|gt|seg)$", re.IGNORECASE)
TURNED = 5  # from this orientation of EXIF on, height and width change places


class Matched(NamedTuple):
    """Annotations and images that belong together.

    Attributes:
        names: Name of the frame by that of the annotation.
        images: Image by name of the frame; empty where no folder of images is given.
        without_image: Annotations whose image is not there.
        without_annotation: Names of images that nobody has annotated.
    """

    names: dict[str, str]
    images: dict[str, Path]
    without_image: list[str]
    without_annotation: list[str]


def match_images(names: Iterable[str], folder: Path | None) -> Matched:
    """Finds the image of every annotation below a folder.

    A name fits as it is, without the ending that Roboflow appends, without ``_mask`` and its like, and last without its
    folders, in this order.

    Raises:
        DataError: No such folder, no image in it, two images of one name, or two annotations of one image.
    """
    names = list(names)
    if folder is None:
        return Matched({name: name for name in names}, {}, [], [])
    images = _list_images(folder)
    found: dict[str, str] = {}
    owner: dict[str, str] = {}
    for name in names:
        fits = next((spelling for spelling in _spellings(name) if spelling in images), None)
        if fits is None:
            continue
        if fits in owner:
            raise DataError(
                f"{images[fits]}: is the image of two annotations, '{owner[fits]}' and '{name}'; keep one of them "
                "(augmented copies of a frame are no labels of it: export without augmentation)"
            )
        owner[fits], found[name] = name, fits
    if not found:
        raise DataError(
            f"{folder}: none of its {len(images)} images (such as '{min(images)}') has the name of one of the "
            f"{len(names)} annotations (such as '{names[0]}'); check --images, or rename one side"
        )
    lacking = [name for name in names if name not in found]
    return Matched(found, images, lacking, sorted(set(images) - set(owner)))


def _spellings(name: str) -> Iterator[str]:
    for text in (name, name.rpartition("/")[2]):
        yield text
        yield ROBOFLOW.sub("", text)
        yield MASK.sub("", text)


def _list_images(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; --images names the one with the images")
    images: dict[str, Path] = {}
    for file in walk(folder):
        if file.suffix.lower() not in ALL_SUFFIXES:
            continue
        name = without_suffix(same(file.relative_to(folder).as_posix()), ALL_SUFFIXES)
        if name in images:
            raise DataError(
                f"{file} and {images[name]} are both '{name}'; move one away (masks beside images: name another "
                "--images)"
            )
        images[name] = file
    if not images:
        raise DataError(f"{folder}: no image in it; --images names the folder with the images")
    return images


def image_size(file: Path) -> Size:
    """(H, W) of an image as it is seen, which is how labelling tools count; raises DataError."""
    header = open_image(file)[1]
    turned = header.orientation >= TURNED
    return (header.width, header.height) if turned else (header.height, header.width)


def require_size(stated: Size | None, images: Mapping[str, Path], frame: str, where: Path) -> Size | None:
    """The size of a frame, by its annotation or by its image; raises DataError where they differ."""
    if frame not in images:
        return stated
    seen = image_size(images[frame])
    if stated is not None and stated != seen:
        raise DataError(
            f"{where}: the annotation of '{frame}' is of {stated[0]}x{stated[1]} pixels (height x width), and its "
            f"image {images[frame]} of {seen[0]}x{seen[1]}; expected one size: take the images that were annotated"
        )
    return seen
