"""Masks for images without labels: what ``tools/infer_mm.py`` calls.

Legend: H W image size, K classes.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdg.data.reading.files import ALL_SUFFIXES, is_hidden, list_folder, list_others, warn_of_others
from mdg.data.reading.images import open_image, quiet_opencv
from mdg.data.reading.names import clues, pick
from mdg.data.reading.pairs import read_pair
from mdg.engine.predictor import Predictor, parse_choices
from mdg.errors import FLAGS, DataError, MachineError, NonFiniteError, UserError
from mdg.utils.files import explained
from mdg.utils.logging import console, setup_logging

logger = logging.getLogger("mdg.infer")
OUTPUTS = ("mask", "overlay")
SHOWN = 20  # pairs in a message
Pairs = dict[str, tuple[Path, Path | None]]


class UnusablePairs(DataError):
    """Some pairs could not be segmented; all others were."""

    exit_code = 1


def predict(
    rgb: str | Path,
    thermal: str | Path | None = None,
    checkpoint: str | Path | None = None,
    config: str | Path | None = None,
    *,
    out_dir: str | Path = "predictions",
    opts: Sequence[str] = (),
    resume: bool = False,
    thermal_scaling: Any = None,
    align: str | None = None,
    grey_rgb: str | None = None,
) -> list[Path]:
    """Segments image pairs and writes, per pair, ``NAME_mask.png`` (class ids) and ``NAME_overlay.png``.

    Args:
        rgb: An image or a folder of images; without ``thermal``, 4-channel PNGs as in MFNet.
        thermal: The thermal image, or a folder with files of the same names.
        checkpoint, config, opts: As for :func:`mdg.evaluate`.
        out_dir: Folder for the outputs; existing files in it are never overwritten.
        resume: Leave out the pairs whose outputs exist.
        thermal_scaling, align, grey_rgb: Options of :class:`PairOptions` (``thermal_scaling`` also as YAML, or as the
            name of a mode); None prepares images as those of the training set were.

    Returns:
        The masks written.

    Raises:
        UserError: Missing or unpaired files, outputs that exist, an unusable checkpoint.
        UnusablePairs: Files of some pairs cannot be used; raised when all the others have been segmented.
    """
    rgb, thermal, out_dir = Path(rgb), None if thermal is None else Path(thermal), Path(out_dir)
    chosen = parse_choices(thermal_scaling=thermal_scaling, align=align, grey_rgb=grey_rgb)
    pairs = find_pairs(rgb, thermal)
    _require_fourth_channel(pairs)
    _require_folder(out_dir, [rgb, thermal])
    pairs = _without_outputs(out_dir, pairs, resume)
    if not pairs:
        console.print(f"nothing left to do: every pair has its mask in {out_dir}")
        return []
    setup_logging(True)
    predictor = Predictor(checkpoint, config, opts=opts, pair_options=chosen)
    masks: list[Path] = []
    failed: dict[str, str] = {}
    with quiet_opencv():
        for name, files in pairs.items():
            try:
                pair = read_pair(*files, predictor.options, FLAGS)
                predictor.predict([pair], [name])[0].save(out_dir, name)
            except (MachineError, NonFiniteError):  # of no pair in particular
                raise
            except UserError as error:
                if len(pairs) == 1:
                    raise
                failed[name] = str(error)
                logger.warning("left out: %s", error)
            else:
                masks.append(out_dir / f"{name}_mask.png")
    console.print(
        f"{len(masks)} masks and overlays in {out_dir}; ids: "
        + ", ".join(f"{k} {name}" for k, name in enumerate(predictor.classes))
    )
    if failed:
        lines = [f"  {message}" for message in list(failed.values())[:SHOWN]]
        lines += [f"  ... and {len(failed) - SHOWN} more"] if len(failed) > SHOWN else []
        raise UnusablePairs(f"{len(failed)} of {len(pairs)} pairs were left out:\n" + "\n".join(lines))
    return masks


def find_pairs(rgb: Path, thermal: Path | None) -> Pairs:
    """Files by name: ``(rgb, thermal)``, or ``(4-channel image, None)`` where ``thermal`` is None.

    Raises:
        DataError: A path that does not exist, a file beside a folder, names without a partner, or two files of a name.
    """
    for path in (rgb, thermal):
        if path is not None and not path.exists():
            raise DataError(
                f"{path}: no such file or folder; expected an image or a folder of images (cameras, streams and topics "
                "are not read)"
            )
    if thermal is not None and rgb.is_dir() != thermal.is_dir():
        raise DataError(f"expected two files or two folders, got {rgb} and {thermal}")
    if not rgb.is_dir():
        return {rgb.stem: (rgb, thermal)}
    images = _list_images(rgb)
    if thermal is None:
        return {name: (file, None) for name, file in sorted(images.items())}
    others = _list_images(thermal)
    _require_partners(images, rgb, others, thermal)
    _require_partners(others, thermal, images, rgb)
    partners = pick(images, others)
    return {name: (images[name], partners[name]) for name in sorted(images)}


def _require_partners(images: Mapping[str, Path], folder: Path, others: Mapping[str, Path], other: Path) -> None:
    lonely = sorted(set(images) - set(pick(images, others)))
    if lonely:
        why = clues(lonely[:1], others, list_others(other, ALL_SUFFIXES))
        raise DataError(
            f"{len(lonely)} image(s) of {folder} have no partner of the same name in {other}: {', '.join(lonely[:5])}"
            + "".join(f"; {clue}" for clue in why.values())
        )


def _list_images(folder: Path) -> dict[str, Path]:
    images, others = list_folder(folder, ALL_SUFFIXES), list_others(folder, ALL_SUFFIXES)
    kinds = ", ".join(ALL_SUFFIXES)
    if not images:
        found = sorted({file.suffix or file.name for file in others.values()})
        there = f"; there are {', '.join(found[:5])}" if found else ""
        raise DataError(f"{folder}: no images in this folder, whose names end in {kinds}{there}")
    warn_of_others(others, images, folder)
    taken = {file.name for file in images.values()}
    twice = sorted(
        name
        for name in os.listdir(folder)
        if not is_hidden(name) and name.lower().endswith(ALL_SUFFIXES) and name not in taken
    )
    if twice:
        kept = images.get(os.path.splitext(twice[0])[0])
        if kept is not None:
            raise DataError(f"{folder}: {kept.name} and {twice[0]} have one name, and so would their masks; rename one")
    return images


def _require_fourth_channel(pairs: Pairs) -> None:
    """Before the network is loaded; one header is read where all is well."""
    files = [rgb for rgb, thermal in pairs.values() if thermal is None]
    channels = None
    for file in files:
        try:
            channels = open_image(file)[1].channels
        except DataError:
            continue  # it is named where the pair is read
        if channels == 4:
            return
    if channels is not None:
        raise DataError(
            f"{files[-1]}: got {channels} channel(s), expected 4 (RGB and thermal in one image): {FLAGS.no_fourth}"
        )


def _require_folder(out_dir: Path, inputs: Sequence[Path | None]) -> None:
    """Outputs can be written there, and will not be taken for inputs by the next command."""
    for path in inputs:
        if path is not None and path.is_dir() and out_dir.resolve() == path.resolve():
            raise DataError(f"--out {out_dir}: the images lie there, and masks would be taken for images; name another")
    existing = next(parent for parent in (out_dir, *out_dir.absolute().parents) if parent.exists())
    with explained(out_dir), tempfile.TemporaryFile(dir=existing):
        pass


def _without_outputs(out_dir: Path, pairs: Pairs, resume: bool) -> Pairs:
    files = {name: [out_dir / f"{name}_{kind}.png" for kind in OUTPUTS] for name in pairs}
    existing = [file for outputs in files.values() for file in outputs if file.exists()]
    if existing and not resume:
        raise DataError(
            f"{out_dir}: {existing[0].name} exists and is not overwritten; --resume leaves out the pairs that are "
            "done, --out names another folder"
        )
    return {name: pair for name, pair in pairs.items() if not all(file.exists() for file in files[name])}
