"""What the network sees and says, frame by frame, as pictures.

Legend: B batch, K classes, H W size of the label, P pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mdg.data import Batch, RGBTDataset, read_batch
from mdg.engine.inference import Inference
from mdg.models.segmentor import SegmentationOutput
from mdg.utils import visualization as vis


def frame_panel(
    dataset: RGBTDataset,
    batch: Batch,
    prediction_BHW: torch.Tensor,
    output: SegmentationOutput,
    place: int,
    caption: str,
) -> np.ndarray:
    """RGB, thermal and divergence (if any), prediction and label of one image of a batch, side by side.

    ``prediction_BHW`` holds class ids at the size of the images; of ``output`` only the divergence is shown.
    """
    rgb = batch.rgb_B3HW[place].permute(1, 2, 0).cpu().numpy()
    label = batch.label_BHW[place].cpu().numpy()
    prediction = prediction_BHW[place].to(torch.uint8).cpu().numpy()
    parts = [(caption, rgb)]
    if "thermal" in dataset.cameras:
        parts.append(("thermal", vis.grey(batch.thermal_B1HW[place, 0].cpu().numpy())))
    if output.divergence:
        where = output.divergence[0]
        divergence = where.divergence_BHW[place].detach().float().cpu().numpy()
        low, high = np.percentile(divergence, (1, 99))
        # Positions that the mask leaves out are dimmed.
        mask = where.mask()[place].float().cpu().numpy()[..., None]
        heat = (vis.heatmap(divergence, low, high) * (0.35 + 0.65 * np.clip(mask, 0, 1))).astype(np.uint8)
        parts.append(("divergence, stage 1", heat))
    parts += [
        ("prediction over RGB", vis.overlay(rgb, prediction, dataset.palette_K3)),
        ("prediction", vis.colorize(prediction, dataset.palette_K3)),
        ("label", vis.colorize(label, dataset.palette_K3)),
    ]
    return vis.panel(parts)


def spread(count: int, wanted: int) -> list[int]:
    """``wanted`` indices spread evenly over ``range(count)``, so that day and night both show."""
    return sorted({int(place) for place in np.linspace(0, count - 1, min(wanted, count))}) if count and wanted else []


@torch.inference_mode()
def predict_panels(
    inference: Inference, dataset: RGBTDataset, places: Sequence[int], eval_size: tuple[int, int] | None
) -> list[tuple[str, np.ndarray]]:
    """Panels ``(name, picture)`` of the frames at ``places``, predicted as they are scored; leaves the model in
    evaluation mode."""
    inference.model.eval()
    panels = []
    for place in places:
        batch = read_batch(dataset, place, eval_size)
        size = batch.rgb_B3HW.shape[-2:]
        prediction_BHW, output = inference.explain(batch.rgb_B3HW, batch.thermal_B1HW, size, batch.names)
        condition = dataset.condition(place)
        caption = batch.names[0] + (f" ({condition})" if condition else "")
        panels.append((batch.names[0], frame_panel(dataset, batch, prediction_BHW, output, 0, caption)))
    return panels


def write_panels(folder: Path, panels: Sequence[tuple[str, np.ndarray]], dataset: RGBTDataset) -> None:
    """One PNG per frame with a legend below it, and ``overview.png`` with all of them."""
    for name, picture in panels:
        key = vis.legend(dataset.classes, dataset.palette_K3, picture.shape[1])
        vis.save_picture(folder / f"{name}.png", vis.stack([picture, key]))
    if panels:
        key = vis.legend(dataset.classes, dataset.palette_K3, panels[0][1].shape[1])
        vis.save_picture(folder / "overview.png", vis.stack([*[picture for _, picture in panels], key]))
