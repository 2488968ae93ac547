"""Annotations to a data set: look, compare with the images, choose classes, write, report.

Everything is read before anything is written, so that a mistake in the last file leaves nothing behind.

Legend: H, W frame size in pixels.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from rich.progress import track

from mdg.data.annotations.configuration import LABEL, LIST, config_text, data_options, share_out
from mdg.data.annotations.detect import FOREGROUND, open_annotations
from mdg.data.annotations.match import Matched, image_size, match_images, require_size
from mdg.data.annotations.scheme import Scheme
from mdg.data.annotations.source import Drawn, Size, Source
from mdg.errors import ConfigError, DataError, first_few
from mdg.fields import IGNORED
from mdg.options.folder import NAME
from mdg.utils.files import write_bytes, write_text
from mdg.utils.logging import console

CONFIG = "data.yaml"
SHOWN = 20  # warnings and names on the terminal
Item = TypeVar("Item")


@dataclass(frozen=True)
class LabelOptions:
    """What is asked for.

    Attributes:
        format: Of the annotations; None finds it.
        classes, background, ignore, merge: See :class:`~mdg.data.annotations.scheme.Scheme`.
        images: Folder of the images that were annotated; None asks no image.
        empty: ``background`` makes images on which nobody has drawn all background; None leaves them out.
        ignore_crowds: Whether crowds of COCO become 255.
        rgb, thermal: Patterns of the images below the destination, for the YAML.
        name: Of the data set in results; None takes that of the folder.
        split: Shares of train, val and test; None keeps the splits of the source, or makes one list.
        seed: Of the split.
        force: Replace files that are there.
    """

    format: str | None = None
    classes: Sequence[str] | None = None
    background: str = "background"
    ignore: Sequence[str] = ()
    merge: Mapping[str, str] = field(default_factory=dict)
    images: Path | None = None
    empty: str | None = None
    ignore_crowds: bool = False
    rgb: str = f"rgb/{NAME}.*"
    thermal: str = f"thermal/{NAME}.*"
    name: str | None = None
    split: Sequence[float] | None = None
    seed: int = 0
    force: bool = False


@dataclass
class _Survey:
    """What the annotations hold, before anything is written."""

    sizes: dict[str, Size] = field(default_factory=dict)  # by name of the frame
    shapes: Counter[str] = field(default_factory=Counter)
    frames: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)


@dataclass
class Written:
    """What was written.

    Attributes:
        splits: Frames of every split.
        classes: Names by class id.
        pixels: Pixels by class id, 255 among them.
        frames: Frames that hold a class, by class id.
        warnings: What was left out.
        config: The YAML.
    """

    splits: dict[str, list[str]]
    classes: list[str]
    pixels: Counter[int]
    frames: Counter[int]
    warnings: list[str]
    config: Path

    def count(self, label_HW: np.ndarray) -> None:
        """Adds the pixels of one frame."""
        ids, counts = np.unique(label_HW, return_counts=True)
        self.pixels.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
        self.frames.update(ids.tolist())


def prepare_labels(place: Path, destination: Path, options: LabelOptions) -> Written:
    """Writes ``labels/NAME.png``, lists of the splits and ``data.yaml``, and prints what came of it.

    Args:
        place: The annotations, a file or a folder; only ever read.
        destination: Folder of the data set, in which the images lie or will lie under ``rgb`` and ``thermal``.
        options: What is asked for.

    Raises:
        DataError: Annotations that cannot be used, labels that are no class, sizes that differ.
        ConfigError: Options that do not fit, or files that are there already.
    """
    others = [name for name in options.classes or () if name != options.background]
    scheme = Scheme(options.classes, options.background, options.ignore, options.merge)
    foreground = others[0] if len(others) == 1 and not options.merge else FOREGROUND
    source = open_annotations(place, options.format, foreground=foreground, ignore_crowds=options.ignore_crowds)
    console.print(f"{place}: {source.kind}, {len(source.names)} frame(s)")
    matched = match_images(source.names, options.images)
    drawn, blank = _choose(source, matched, options)
    survey = _survey(source, matched, drawn, blank)
    scheme.require_used(survey.shapes)
    classes = scheme.settle(survey.shapes, source.known)
    scheme.require_known(place, survey.shapes, survey.frames)
    splits = _split(source, matched, [matched.names[name] for name in drawn] + blank, options)
    config = destination / CONFIG
    data = data_options(
        destination,
        classes,
        scheme.palette(source.known),
        splits,
        name=options.name or destination.resolve().name or "Folder",
        rgb=options.rgb,
        thermal=options.thermal,
    )
    files = {frame: destination / LABEL.replace(NAME, frame) for frame in survey.sizes}
    lists = {split: destination / LIST.replace("{split}", split) for split in splits}
    _require_free([*files.values(), *lists.values(), config], options.force)
    _require_apart(source, files.values())
    warnings = _warnings(survey, source, scheme, matched, options)
    written = Written(splits, classes, Counter(), Counter(), warnings, config)
    for name in _progress([*drawn, *blank], "write"):
        frame = matched.names.get(name, name)
        label_HW = np.zeros(survey.sizes[frame], np.uint8)
        if name in matched.names:
            found = source.read(name, survey.sizes[frame])
            label_HW = scheme.to_ids(found.labels, found.index_HW)
        write_bytes(files[frame], cv2.imencode(".png", label_HW)[1].tobytes())
        written.count(label_HW)
    for split, names in splits.items():
        write_text(lists[split], "".join(f"{name}\n" for name in names))
    most = Counter(survey.sizes.values()).most_common(1)[0][0]
    write_text(config, config_text(config, data, most))
    for line in report_lines(written):
        console.print(line)
    return written


def _choose(source: Source, matched: Matched, options: LabelOptions) -> tuple[list[str], list[str]]:
    """Names of annotations that are drawn, and of images that become all background."""
    kept = [name for name in source.names if name in matched.names]
    if options.empty is None:
        drawn, blank = [name for name in kept if name not in source.empty], []
    else:
        drawn, blank = kept, matched.without_annotation
    if not drawn:
        raise DataError(
            f"nothing is drawn on any of the {len(source.names)} frame(s); --empty background makes them all background"
        )
    return drawn, blank


def _survey(source: Source, matched: Matched, drawn: Iterable[str], blank: Iterable[str]) -> _Survey:
    survey = _Survey()
    for name in _progress(list(drawn), "read"):
        frame = matched.names[name]
        size = require_size(source.size(name), matched.images, frame, source.file(name))
        found: Drawn = source.read(name, size)
        require_size(found.index_HW.shape, matched.images, frame, source.file(name))  # masks tell theirs only now
        survey.sizes[frame] = found.index_HW.shape
        survey.shapes.update(found.shapes)
        survey.frames.update(found.shapes.keys())
        survey.warnings += found.warnings
    survey.sizes |= {frame: image_size(matched.images[frame]) for frame in blank}
    return survey


def _split(source: Source, matched: Matched, frames: Sequence[str], options: LabelOptions) -> dict[str, list[str]]:
    if options.split is not None:
        return share_out(frames, options.split, options.seed)
    of = {matched.names[name]: split for name, split in source.splits.items() if name in matched.names}
    splits: dict[str, list[str]] = {}
    for frame in sorted(frames):
        splits.setdefault(of.get(frame, "train"), []).append(frame)
    if "train" not in splits:
        raise DataError(
            f"no frame for the train split among {', '.join(splits)}; deal them out with --split 0.8,0.1,0.1"
        )
    return splits


def _require_free(files: Sequence[Path], force: bool) -> None:
    there = [file for file in files if file.exists()]
    if there and not force:
        raise ConfigError(
            f"{there[0]}: is there already ({len(there)} of {len(files)} files to write are); choose another folder, "
            "or replace them with --force"
        )


def _require_apart(source: Source, files: Iterable[Path]) -> None:
    """Not even --force replaces what is read."""
    read = {source.file(name).resolve() for name in source.names}
    both = next((file for file in files if file.resolve() in read), None)
    if both is not None:
        raise ConfigError(f"{both}: is an annotation that is read, and would be written; choose another folder for OUT")


def _warnings(survey: _Survey, source: Source, scheme: Scheme, matched: Matched, options: LabelOptions) -> list[str]:
    lines = list(survey.warnings)
    if matched.without_image:
        lines.append(f"annotated and without an image in {options.images}, left out: {_some(matched.without_image)}")
    if options.empty is None:
        nobody = sorted({*matched.without_annotation, *(matched.names.get(name, name) for name in source.empty)})
        if nobody:
            lines.append(f"nothing is drawn on them, left out (or --empty background): {_some(nobody)}")
    assert scheme.classes is not None
    unused = [
        label for label in source.known if label not in survey.shapes and scheme.label(label) != scheme.background
    ]
    if unused and options.classes is None:
        lines.append(f"labels that the annotations list and no shape has: {_some(unused)}")
    return lines


def report_lines(written: Written) -> list[str]:
    """A table of splits and classes, the warnings, and what to do next."""
    frames = {split: len(names) for split, names in written.splits.items()}
    total, pixels = sum(frames.values()), max(sum(written.pixels.values()), 1)
    shown = ", ".join(f"{split} {count}" for split, count in frames.items())
    rows = [["id", "class", "pixels", "share", "frames"]]
    for id, name in [*enumerate(written.classes), (IGNORED, "(ignored)")]:
        if id != IGNORED or written.pixels[id]:
            share = f"{written.pixels[id] / pixels:.2%}"
            rows.append([str(id), name, str(written.pixels[id]), share, str(written.frames[id])])
    w = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [f"{id:>{w[0]}}  {name:<{w[1]}}  {'  '.join(map(str.rjust, rest, w[2:]))}" for id, name, *rest in rows]
    more = len(written.warnings) - SHOWN
    return [
        f"written: {total} label(s) ({shown})",
        *table,
        *(f"warning: {line}" for line in written.warnings[:SHOWN]),
        *([f"... and {more} more warnings"] if more > 0 else []),
        f"next: python tools/check_data.py {shlex.quote(str(written.config))}",
    ]


def _some(names: Sequence[str]) -> str:
    return f"{len(names)}: {first_few(names)}"


def _progress(items: Sequence[Item], what: str) -> Iterable[Item]:
    return track(items, what, console=console, transient=True) if console.is_terminal else items
