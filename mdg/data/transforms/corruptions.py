"""Corruptions of cameras and rigs to train with, each under its own name: ``{type: ThermalDrift, p: 0.2}``.

What each does: ``mdg/data/corruptions/`` and docs/robustness.md. The severity is drawn uniformly from a range. What
belongs to a camera there, such as its dead pixels, is drawn anew for every sample here: a network shall not learn one
camera by heart. ``Frozen`` is missing: it shows an earlier frame, and a transform has only its sample.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from mdg.data.corruptions import optics, rigs, sensors, weather
from mdg.data.corruptions.base import Corruption, Images
from mdg.data.transforms.chain import Sample, chance, to_array, to_image, uniform
from mdg.options.transforms import CameraCorruptionOptions, CorruptionOptions, ReversedPolarityOptions
from mdg.registry import TRANSFORMS


class _Corrupts:
    """Changes the image of one camera with probability ``p``; the other one and the label pass."""

    kind: ClassVar[type[Corruption]]

    def __init__(self, options: CorruptionOptions):
        self.p, self.severity = options.p, options.severity
        self.corruption = self.kind(self.kind.cameras[0])

    def __call__(self, sample: Sample) -> Sample:
        if not chance(self.p):
            return sample
        severity = uniform(*self.severity)
        generator = np.random.default_rng(int(torch.randint(2**62, (1,))))
        label_HW = np.ascontiguousarray(sample["label"].as_subclass(torch.Tensor).numpy())
        images = Images(to_array(sample["rgb"]), to_array(sample["thermal"])[..., 0], label_HW)
        camera = self.corruption.camera
        changed = self.corruption.corrupt(images, severity, generator).of(camera)
        return {**sample, camera: to_image(changed)}


class _CorruptsEither(_Corrupts):
    """The same of the camera that the options name."""

    def __init__(self, options: CameraCorruptionOptions):
        super().__init__(options)
        self.corruption = self.kind(options.camera)


@TRANSFORMS.register(CameraCorruptionOptions)
class MissingBlack(_CorruptsEither):
    kind = rigs.MissingBlack


@TRANSFORMS.register(CameraCorruptionOptions)
class MissingMean(_CorruptsEither):
    kind = rigs.MissingMean


@TRANSFORMS.register(CorruptionOptions)
class Darkness(_Corrupts):
    kind = optics.Darkness


@TRANSFORMS.register(CorruptionOptions)
class Glare(_Corrupts):
    kind = optics.Glare


@TRANSFORMS.register(CorruptionOptions)
class Overexposure(_Corrupts):
    kind = optics.Overexposure


@TRANSFORMS.register(CorruptionOptions)
class Fog(_Corrupts):
    kind = weather.Fog


@TRANSFORMS.register(CorruptionOptions)
class Rain(_Corrupts):
    kind = weather.Rain


@TRANSFORMS.register(CorruptionOptions)
class Snow(_Corrupts):
    kind = weather.Snow


@TRANSFORMS.register(CameraCorruptionOptions)
class MotionBlur(_CorruptsEither):
    kind = optics.MotionBlur


@TRANSFORMS.register(CameraCorruptionOptions)
class Defocus(_CorruptsEither):
    kind = optics.Defocus


@TRANSFORMS.register(CorruptionOptions)
class SensorNoise(_Corrupts):
    kind = sensors.SensorNoise


@TRANSFORMS.register(CameraCorruptionOptions)
class JPEG(_CorruptsEither):
    kind = sensors.JPEG


@TRANSFORMS.register(CameraCorruptionOptions)
class LowContrast(_CorruptsEither):
    kind = sensors.LowContrast


@TRANSFORMS.register(CorruptionOptions)
class ThermalNoise(_Corrupts):
    kind = sensors.ThermalNoise


@TRANSFORMS.register(CorruptionOptions)
class ThermalOffset(_Corrupts):
    kind = sensors.ThermalOffset


@TRANSFORMS.register(CorruptionOptions)
class ThermalDrift(_Corrupts):
    kind = sensors.ThermalDrift


@TRANSFORMS.register(CorruptionOptions)
class FixedPattern(_Corrupts):
    kind = sensors.FixedPattern


@TRANSFORMS.register(CorruptionOptions)
class DeadPixels(_Corrupts):
    kind = sensors.DeadPixels


@TRANSFORMS.register(CorruptionOptions)
class DeadRows(_Corrupts):
    kind = sensors.DeadRows


@TRANSFORMS.register(CorruptionOptions)
class ShutterFrame(_Corrupts):
    kind = sensors.ShutterFrame


@TRANSFORMS.register(ReversedPolarityOptions)
class ReversedPolarity(_Corrupts):
    kind = sensors.ReversedPolarity

    def __init__(self, options: ReversedPolarityOptions):
        super().__init__(options)


@TRANSFORMS.register(CorruptionOptions)
class OtherScaling(_Corrupts):
    kind = sensors.OtherScaling


@TRANSFORMS.register(CorruptionOptions)
class TimeLag(_Corrupts):
    kind = rigs.TimeLag


@TRANSFORMS.register(CorruptionOptions)
class ThermalShift(_Corrupts):
    kind = rigs.ThermalShift


@TRANSFORMS.register(CorruptionOptions)
class ThermalRotation(_Corrupts):
    kind = rigs.ThermalRotation


@TRANSFORMS.register(CorruptionOptions)
class ThermalScale(_Corrupts):
    kind = rigs.ThermalScale


@TRANSFORMS.register(CorruptionOptions)
class Parallax(_Corrupts):
    kind = rigs.Parallax
