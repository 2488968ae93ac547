"""Masks for images without labels: what ``tools/infer_mm.py`` calls.

Legend: H W image size, K classes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from mdg.config import load_config
from mdg.data.alignment import Alignment, align
from mdg.data.files import list_folder
from mdg.data.geometry import resize_image
from mdg.data.images import read_rgb, read_rgb_thermal
from mdg.data.patterns import SUFFIXES
from mdg.data.thermal import AS_STORED, ThermalScaling, read_raw_thermal, scale_thermal
from mdg.engine.checkpoint import load_checkpoint
from mdg.engine.distributed import distributed
from mdg.engine.evaluate import config_inside, find_checkpoint, load_model
from mdg.engine.evaluator import make_autocast
from mdg.engine.inference import Inference
from mdg.engine.train import apply_runtime
from mdg.errors import DataError
from mdg.utils import visualization as vis
from mdg.utils.logging import console, setup_logging

logger = logging.getLogger("mdg.infer")
OUTPUTS = ("mask", "overlay")


def predict(
    rgb: str | Path,
    thermal: str | Path | None = None,
    checkpoint: str | Path | None = None,
    config: str | Path | None = None,
    *,
    out_dir: str | Path = "predictions",
    opts: Sequence[str] = (),
) -> list[Path]:
    """Segments image pairs and writes, per pair, ``NAME_mask.png`` (class ids) and ``NAME_overlay.png``.

    Args:
        rgb: An image or a folder of images; without ``thermal``, 4-channel PNGs as in MFNet.
        thermal: The thermal image, or a folder with files of the same names.
        checkpoint, config, opts: As for :func:`mdg.evaluate`.
        out_dir: Folder for the outputs; existing files in it are never overwritten.

    Returns:
        The masks written.

    Raises:
        UserError: Missing or unpaired files, sizes that differ, outputs that exist, an unusable checkpoint.
    """
    out_dir = Path(out_dir)
    pairs = find_pairs(Path(rgb), Path(thermal) if thermal is not None else None)
    _refuse_to_overwrite(out_dir, pairs)
    checkpoint = find_checkpoint(checkpoint, opts)
    state = load_checkpoint(checkpoint)
    run_config = load_config(config, opts) if config is not None else config_inside(state, checkpoint, opts)
    palette_K3 = np.array(state["palette"], np.uint8)
    with distributed(run_config.device, run_config.threads) as world:
        setup_logging(world.main)
        apply_runtime(run_config)
        model = load_model(state, run_config, state["classes"], checkpoint, world.device).eval()
        inference = Inference(model, run_config.eval, make_autocast(run_config, world.device), world.device)
        masks = []
        # The thermal images of a new scene are prepared as those of the training set were.
        scaling = getattr(run_config.data, "thermal_scaling", AS_STORED)
        for name, rgb_HW3, thermal_HW in read_pairs(pairs, scaling, getattr(run_config.data, "align", "refuse")):
            mask_HW = segment(inference, rgb_HW3, thermal_HW, run_config.pipeline.eval_size)
            masks.append(out_dir / f"{name}_mask.png")
            vis.save_picture(masks[-1], mask_HW)
            painted = vis.overlay(rgb_HW3, mask_HW, palette_K3)
            key = vis.legend(state["classes"], palette_K3, painted.shape[1])
            vis.save_picture(out_dir / f"{name}_overlay.png", vis.stack([painted, key]))
    console.print(
        f"{len(masks)} masks and overlays in {out_dir}; ids: "
        + ", ".join(f"{k} {name}" for k, name in enumerate(state["classes"]))
    )
    return masks


def segment(
    inference: Inference, rgb_HW3: np.ndarray, thermal_HW: np.ndarray, eval_size: tuple[int, int] | None
) -> np.ndarray:
    """Class ids ``[H, W]`` uint8 of one uint8 pair, at the size of the pair, by the rules that score it.

    Args:
        inference: Network in evaluation mode, and the rules.
        rgb_HW3, thermal_HW: uint8.
        eval_size: [height, width] to which the pair is resized for the network; None keeps its size.
    """
    rgb_13HW = torch.from_numpy(np.ascontiguousarray(rgb_HW3)).permute(2, 0, 1)[None].contiguous()
    thermal_11HW = torch.from_numpy(np.ascontiguousarray(thermal_HW))[None, None]
    if eval_size is not None:
        rgb_13HW, thermal_11HW = (resize_image(image, eval_size) for image in (rgb_13HW, thermal_11HW))
    return inference(rgb_13HW, thermal_11HW, thermal_HW.shape)[0].to(torch.uint8).cpu().numpy()


def find_pairs(rgb: Path, thermal: Path | None) -> dict[str, tuple[Path, Path | None]]:
    """Files by name: ``(rgb, thermal)``, or ``(4-channel image, None)`` where ``thermal`` is None.

    Raises:
        DataError: A path that does not exist, a file beside a folder, or names without a partner.
    """
    for path in (rgb, thermal):
        if path is not None and not path.exists():
            raise DataError(f"{path}: no such file or folder")
    if thermal is not None and rgb.is_dir() != thermal.is_dir():
        raise DataError(f"expected two files or two folders, got {rgb} and {thermal}")
    if rgb.is_file():
        return {rgb.stem: (rgb, thermal)}
    images = list_folder(rgb, SUFFIXES)
    if not images:
        raise DataError(f"{rgb}: no images in this folder")
    if thermal is None:
        return {name: (file, None) for name, file in sorted(images.items())}
    partners = list_folder(thermal, SUFFIXES)
    lonely = sorted(images.keys() ^ partners.keys())
    if lonely:
        raise DataError(
            f"{len(lonely)} images of {rgb} and {thermal} have no partner of the same name: {', '.join(lonely[:5])}"
        )
    return {name: (images[name], partners[name]) for name in sorted(images)}


def read_pairs(
    pairs: dict[str, tuple[Path, Path | None]],
    scaling: ThermalScaling = AS_STORED,
    alignment: Alignment = "refuse",
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, RGB ``[H, W, 3]`` and thermal ``[H, W]``, uint8; raises DataError naming a file that cannot be used."""
    for name, (rgb, thermal) in pairs.items():
        rgb_HW3, raw_HW = read_rgb_thermal(rgb) if thermal is None else (read_rgb(rgb), read_raw_thermal(thermal))
        thermal_HW = scale_thermal(raw_HW, scaling, thermal or rgb)
        yield name, *align(rgb_HW3, thermal_HW, None, alignment, {"rgb": rgb, "thermal": thermal})


def _refuse_to_overwrite(out_dir: Path, names: dict[str, tuple[Path, Path | None]]) -> None:
    existing = [f"{name}_{kind}.png" for name in names for kind in OUTPUTS if (out_dir / f"{name}_{kind}.png").exists()]
    if existing:
        raise DataError(f"{out_dir}: {existing[0]} exists and is not overwritten; name another folder with --out")
