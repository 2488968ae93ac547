"""What stands in for a camera that is absent: a vector per stage in place of the maps of its encoder, which is skipped.

A network learns to do without a camera by losing one of them in some images of training (modality dropout: Neverova et
al., ModDrop, TPAMI 2016).

Legend: B batch, H W map, C width of a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mdg.errors import ConfigError

Camera = Literal["rgb", "thermal"]
CAMERAS: tuple[Camera, Camera] = ("rgb", "thermal")
WORDS = {"rgb": "RGB", "thermal": "thermal"}


class StandIns(nn.Module):
    """One vector per camera and stage, for all positions.

    Args:
        kind: ``learned`` from zero, or ``zero``.
        widths: Of the stages.

    Attributes:
        rates: Shares of the images of training that lose RGB, and thermal; never both. Set by
            :func:`set_modality_dropout`.
    """

    def __init__(self, kind: Literal["zero", "learned"], widths: Sequence[int]):
        super().__init__()
        self.learned, self.rates = kind == "learned", (0.0, 0.0)
        self.values = nn.ModuleDict({camera: nn.ParameterList() for camera in CAMERAS})
        if self.learned:
            for camera in CAMERAS:
                self.values[camera] = nn.ParameterList(torch.zeros(width) for width in widths)

    def draw(self, images: int, device: torch.device) -> dict[Camera, Tensor]:
        """``[B]`` bool per camera: the images of a batch of training that lose it; nothing where the rates are zero."""
        if not self.training or not any(self.rates):
            return {}
        chance_B, (rgb, thermal) = torch.rand(images, device=device), self.rates
        return {"rgb": chance_B < rgb, "thermal": (chance_B >= rgb) & (chance_B < rgb + thermal)}

    def replace(self, camera: Camera, index: int, maps_BHWC: Tensor, absent_B: Tensor | None) -> Tensor:
        """Maps of a stage (``index`` from 0) with the stand-in at the images that lost the camera; None: at none."""
        if absent_B is None:
            return maps_BHWC
        return torch.where(absent_B[:, None, None, None], self._value(camera, index, maps_BHWC), maps_BHWC)

    def like(self, camera: Camera, index: int, other_BHWC: Tensor) -> Tensor:
        """The stand-in in the size of the maps of the other camera."""
        return self._value(camera, index, other_BHWC).expand_as(other_BHWC).contiguous()

    def _value(self, camera: Camera, index: int, maps_BHWC: Tensor) -> Tensor:
        if not self.learned:
            return maps_BHWC.new_zeros(maps_BHWC.shape[-1])
        values = self.values[camera]
        assert isinstance(values, nn.ParameterList)
        return values[index].to(maps_BHWC.dtype)


def set_modality_dropout(model: nn.Module, rgb: float, thermal: float) -> None:
    """Lets shares of the images of training lose a camera.

    Raises:
        ConfigError: Nothing of the network can stand in for a camera, or something would never learn to.
    """
    parts = [module for module in model.modules() if isinstance(module, StandIns)]
    if (rgb or thermal) and not parts:
        raise ConfigError(
            "train.modality_dropout: this network has nothing to stand in for a camera that is absent; set "
            "model.stand_ins=learned (or zero), or leave modality_dropout out"
        )
    for part in parts:
        if part.learned and not (rgb or thermal):
            raise ConfigError(
                "model.stand_ins: learned, and no image of training loses a camera, so that they would stay as they "
                "are; set train.modality_dropout={rgb: 0.1, thermal: 0.1}, or model.stand_ins=zero"
            )
        part.rates = (rgb, thermal)


def why_not_without(model: nn.Module, camera: Camera) -> str | None:
    """Why a network cannot do without a camera; None where it can. Its attribute ``needed_cameras`` says so; a network
    without one needs both."""
    if camera not in getattr(model, "needed_cameras", CAMERAS):
        return None
    return (
        f"{WORDS[camera]} is absent, and this network needs it. Give it, or train a network that can do without, with "
        "model.stand_ins=learned and train.modality_dropout={rgb: 0.1, thermal: 0.1}"
    )


def require_cameras(model: nn.Module, cameras: Sequence[str], dataset: str) -> None:
    """Refuses a data set without a camera that a network needs.

    Args:
        model: The network.
        cameras: That the data set has.
        dataset: Its name.

    Raises:
        ConfigError: The network cannot do without one of the others.
    """
    for camera in CAMERAS:
        if camera not in cameras and why_not_without(model, camera) is not None:
            there = " and ".join(WORDS[name] for name in CAMERAS if name in cameras)
            raise ConfigError(
                f"{dataset} has no {WORDS[camera]} camera, and this network looks at {WORDS[camera]}; take one that "
                f"sees {there} alone (model.type=SingleStream with model.input), or one that can do without "
                "(model.stand_ins)"
            )


def absent_camera(rgb: Tensor | None, thermal: Tensor | None) -> Camera | None:
    """The camera that is not there; raises ValueError where neither is."""
    if rgb is None and thermal is None:
        raise ValueError("expected RGB, thermal or both, got neither")
    return "rgb" if rgb is None else ("thermal" if thermal is None else None)
