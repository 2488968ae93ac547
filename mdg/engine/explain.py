"""What the divergence interaction does to a pair, stage by stage, in numbers and as pictures.

Legend: B batch, H W map, C width, P = H*W positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdg.data.reading.images import quiet_opencv
from mdg.data.reading.pairs import read_pair
from mdg.engine.checkpoint import load_model, open_checkpoint
from mdg.engine.distributed import distributed
from mdg.engine.inference import Inference
from mdg.engine.predict import find_pairs, images_of_pair, pair_options, parse_choices
from mdg.engine.runtime import apply_runtime, make_autocast
from mdg.errors import FLAGS, ConfigError
from mdg.models.interaction.stage import ModalityDivergenceInteraction
from mdg.utils import visualization as vis
from mdg.utils.files import require_writable, write_json
from mdg.utils.logging import console, setup_logging

STREAMS = ("rgb", "thermal")


class Stage(NamedTuple):
    """One interaction on one batch: maps before and after it ``[B, H, W, C]`` by stream, divergence and mask
    ``[B, H, W]``, and the gates of the local attention ``[B, H, W]`` by stream (None without one)."""

    number: int
    before: tuple[Tensor, Tensor]
    after: tuple[Tensor, Tensor]
    divergence_BHW: Tensor
    mask_BHW: Tensor
    gates: tuple[Tensor, Tensor] | None


@contextmanager
def watched(model: nn.Module) -> Iterator[list[Stage]]:
    """The interactions of every forward pass inside, in their order.

    Raises:
        ConfigError: A network without a divergence interaction.
    """
    stages: list[Stage] = []
    gates: dict[int, Tensor] = {}
    numbered = [
        (number, module)
        for number, module in enumerate(getattr(model, "interaction", None) or (), start=1)
        if isinstance(module, ModalityDivergenceInteraction)
    ]
    if not numbered:
        raise ConfigError(
            "this network has no divergence interaction (model.interaction), so there is nothing to explain"
        )
    hooks = []
    for number, module in numbered:

        def keep(module: nn.Module, inputs: tuple, out: Any, number: int = number) -> None:
            found = None
            if number in gates:
                rgb_gate, thermal_gate = torch.sigmoid(gates.pop(number)).unbind(-1)
                found = rgb_gate, thermal_gate
            where, after = out.divergence, (out.rgb_BHWC, out.thermal_BHWC)
            stages.append(Stage(number, inputs[:2], after, where.divergence_BHW, where.mask(), found))

        def keep_gate(module: nn.Module, inputs: tuple, out: Tensor, number: int = number) -> None:
            gates[number] = out.float()

        hooks.append(module.register_forward_hook(keep))
        if module.attention is not None:
            hooks.append(module.attention.gate.register_forward_hook(keep_gate))
    try:
        yield stages
    finally:
        for hook in hooks:
            hook.remove()


def measure(stage: Stage, label_BHW: Tensor | None = None) -> dict[str, Any]:
    """The numbers of one stage.

    Per stream, at selected and at other positions: the norm of the features, the norm after the interaction over the
    norm before it, the norm of the change over it, and the cosine between both. Of the mask: the share of all positions
    that it selects, and of those that a label calls an object (any class but the first), an edge between classes, or
    ignored; of the divergence the mean and its spread over positions; of the gates the mean.

    Args:
        stage: What was watched.
        label_BHW: Class ids at the size of the image; 255 is ignored.
    """
    selected_BHW = stage.mask_BHW > 0.5
    numbers: dict[str, Any] = {
        "stage": stage.number,
        "divergence": {"mean": stage.divergence_BHW.mean().item(), "std": stage.divergence_BHW.std().item()},
        "selected": {"all": selected_BHW.float().mean().item()},
    }
    for name, before, after in zip(STREAMS, stage.before, stage.after, strict=True):
        numbers[name] = {}
        for where, place in (("selected", selected_BHW), ("other", ~selected_BHW)):
            if place.any():
                numbers[name][where] = _change(before[place].float(), after[place].float())
    if stage.gates is not None:
        numbers["gate"] = {name: gate.mean().item() for name, gate in zip(STREAMS, stage.gates, strict=True)}
    if label_BHW is not None:
        kinds = _kinds(label_BHW, selected_BHW.shape[-2:])
        for name, place in kinds.items():
            if place.any():
                numbers["selected"][name] = selected_BHW[place].float().mean().item()
    return numbers


def _change(before_NC: Tensor, after_NC: Tensor) -> dict[str, float]:
    norm_N, change_N = before_NC.norm(dim=-1), (after_NC - before_NC).norm(dim=-1)
    return {
        "norm": norm_N.mean().item(),
        "norm after / before": (after_NC.norm(dim=-1) / norm_N.clamp(min=1e-12)).mean().item(),
        "change / norm": (change_N / norm_N.clamp(min=1e-12)).mean().item(),
        "cosine": F.cosine_similarity(before_NC, after_NC, dim=-1).mean().item(),
    }


def _kinds(label_BHW: Tensor, size: Sequence[int]) -> dict[str, Tensor]:
    """Cells of a map that hold a pixel of an object, of an edge, or only ignored ones; bool ``[B, h, w]``."""
    ignored = label_BHW == 255
    objects = (label_BHW > 0) & ~ignored
    edges = torch.zeros_like(ignored)
    edges[:, 1:] |= (label_BHW[:, 1:] != label_BHW[:, :-1]) & ~(ignored[:, 1:] | ignored[:, :-1])
    edges[:, :, 1:] |= (label_BHW[:, :, 1:] != label_BHW[:, :, :-1]) & ~(ignored[:, :, 1:] | ignored[:, :, :-1])

    def any_in_cell(pixels_BHW: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(pixels_BHW[:, None].float(), tuple(size))[:, 0] > 0

    return {"objects": any_in_cell(objects), "edges": any_in_cell(edges), "ignored": ~any_in_cell(~ignored)}


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
    checkpoint, state, run_config = open_checkpoint(checkpoint, config, opts)
    options, written = pair_options(run_config, chosen), []
    with distributed(run_config.device, run_config.threads) as world, quiet_opencv():
        setup_logging(world.main)
        apply_runtime(run_config)
        model = load_model(state, run_config, state["classes"], checkpoint, world.device).eval()
        inference = Inference(model, run_config.eval, make_autocast(run_config, world.device), world.device)
        for name, files in pairs.items():
            rgb_HW3, thermal_HW = read_pair(*files, options, FLAGS)
            images = images_of_pair(rgb_HW3, thermal_HW, run_config.pipeline.eval_size)
            with watched(model) as stages, torch.inference_mode():
                inference.explain(*images, thermal_HW.shape, [name])
            height = min(240, rgb_HW3.shape[0])
            inputs = vis.panel([(name, rgb_HW3), ("thermal", vis.grey(thermal_HW))], height=height)
            picture = vis.stack([inputs, *(draw(stage, 0, height) for stage in stages)])
            file = out_dir / f"{name}_interaction.png"
            vis.save_picture(file, picture)
            write_json(file.with_suffix(".json"), {"stages": [measure(stage) for stage in stages]})
            written.append(file)
    console.print(f"{len(written)} pictures in {out_dir}, with their numbers beside them")
    return written
