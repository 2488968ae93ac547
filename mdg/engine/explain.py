"""What the divergence interaction does to a pair, stage by stage, in numbers and as pictures.

Legend: B batch, H W map, C width, P = H*W positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdg.data.reading.images import quiet_opencv
from mdg.data.reading.pairs import read_pair
from mdg.engine.predict import find_pairs
from mdg.engine.predictor import Predictor, parse_choices
from mdg.engine.watching import STREAMS, Stage, measure, watched
from mdg.errors import FLAGS
from mdg.utils import visualization as vis
from mdg.utils.files import require_writable, write_json
from mdg.utils.logging import console, setup_logging


def draw(stage: Stage, place: int, height: int) -> np.ndarray:
    """One image of a stage: divergence with what the mask leaves out dimmed, then per stream the change of the features
    (relative to their norm) and the gate. ``[height, ..., 3]`` uint8."""
    divergence = stage.divergence_BHW[place].float().cpu().numpy()
    mask = stage.mask_BHW[place].float().cpu().numpy()
    low, high = np.percentile(divergence, (1, 99))
    heat = vis.heatmap(divergence, low, high) * (0.35 + 0.65 * np.clip(mask, 0, 1))[..., None]
    parts = [(f"stage {stage.number}: divergence {low:.2f} to {high:.2f}", heat.astype(np.uint8))]
    for name, before, after in zip(STREAMS, stage.before, stage.after, strict=True):
        norm = before[place].float().norm(dim=-1).clamp(min=1e-12)
        change = ((after[place] - before[place]).float().norm(dim=-1) / norm).cpu().numpy()
        top = float(max(np.percentile(change, 99), 1e-6))
        parts.append((f"{name}: change, 0 to {top:.2f} of the norm", vis.heatmap(change, 0.0, top)))
    if stage.gates is not None:
        for name, gate in zip(STREAMS, stage.gates, strict=True):
            parts.append((f"{name}: gate, 0 to 1", vis.heatmap(gate[place].cpu().numpy(), 0.0, 1.0)))
    return vis.panel(parts, height=height)


def explain(
    rgb: str | Path,
    thermal: str | Path | None = None,
    checkpoint: str | Path | None = None,
    config: str | Path | None = None,
    *,
    out_dir: str | Path = "explained",
    opts: Sequence[str] = (),
    choices: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Draws what the interaction does to image pairs: per pair ``NAME_interaction.png`` and ``NAME_interaction.json``.

    Args:
        rgb, thermal, checkpoint, config, opts: As for :func:`mdg.engine.predict.predict`.
        out_dir: Folder for the outputs.
        choices: Options of a pair (``thermal_scaling``, ``align``, ``grey_rgb``); those of the training set else.

    Returns:
        The pictures written.

    Raises:
        UserError: Files that cannot be used, an unusable checkpoint, or a network without such an interaction.
    """
    out_dir, chosen = Path(out_dir), parse_choices(**(choices or {}))
    pairs = find_pairs(Path(rgb), None if thermal is None else Path(thermal))
    require_writable(out_dir / "probe", "--out")
    setup_logging(True)
    predictor, written = Predictor(checkpoint, config, opts=opts, pair_options=chosen), []
    with quiet_opencv():
        for name, files in pairs.items():
            pair = rgb_HW3, thermal_HW = read_pair(*files, predictor.options, FLAGS)
            with watched(predictor.model) as stages:
                predictor.predict([pair], [name])
            height = min(240, rgb_HW3.shape[0])
            inputs = vis.panel([(name, rgb_HW3), ("thermal", vis.grey(thermal_HW))], height=height)
            picture = vis.stack([inputs, *(draw(stage, 0, height) for stage in stages)])
            file = out_dir / f"{name}_interaction.png"
            vis.save_picture(file, picture)
            write_json(file.with_suffix(".json"), {"stages": [measure(stage) for stage in stages]})
            written.append(file)
    console.print(f"{len(written)} pictures in {out_dir}, with their numbers beside them")
    return written
