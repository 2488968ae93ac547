"""What sensors and their electronics do: noise, compression, drift, patterns, dead parts, the shutter, other levels.

Of an uncooled thermal camera (a microbolometer): its response drifts with its own temperature until a shutter closes
before it and it is levelled again; every pixel and every column of its read-out has its own gain and offset; some give
nothing. How many kelvin a grey level is depends on the scaling, so strengths count in grey levels.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

import cv2
import numpy as np

from mdg.data.corruptions.base import ImageCorruption, Images, as_levels, normal_noise, sign, smooth_field
from mdg.data.corruptions.optics import HENDRYCKS

READ_SHARE = 0.25  # of the variance at white: what is there without light
ROW_SHARE = 0.25  # of the noise of a thermal pixel: common to a row
MICROBOLOMETER = "uncooled focal plane arrays; Vollmer and Moellmann 2018, Infrared Thermal Imaging, chapter 2"


class SensorNoise(ImageCorruption):
    """Photons and read-out of a colour camera: normal, of variance ``s^2 * (1/4 + 3/4 * level / 255)``."""

    cameras = ("rgb",)
    strengths = (0.04, 0.08, 0.12, 0.18, 0.26)
    unit = "standard deviation at white, over white"
    source = "Foi et al. 2008, Practical Poissonian-Gaussian Noise Modeling"

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        rgb_HW3 = images.of("rgb")
        levels = np.arange(256)
        deviation = 255 * strength * np.sqrt(READ_SHARE + (1 - READ_SHARE) * levels / 255)
        noise_HW3 = normal_noise(rgb_HW3.shape, generator)
        noise_HW3 *= cv2.LUT(rgb_HW3, deviation.astype(np.float32))
        return as_levels(noise_HW3 + rgb_HW3)


class ThermalNoise(ImageCorruption):
    """Temporal noise of a thermal camera (NETD): normal, in every pixel, and a quarter of it common to each row."""

    cameras = ("thermal",)
    strengths = (4.0, 8.0, 14.0, 22.0, 32.0)
    unit = "standard deviation of a pixel, grey levels"
    source = "D'Agostino and Webb 1991, three-dimensional noise: pixel and row"

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        thermal_HW = images.of("thermal")
        noise_HW = normal_noise(thermal_HW.shape, generator)
        noise_HW += ROW_SHARE * generator.standard_normal((len(thermal_HW), 1), dtype=np.float32)
        return as_levels(noise_HW * np.float32(strength) + thermal_HW)


class JPEG(ImageCorruption):
    """Compressed and read again."""

    cameras = ("rgb", "thermal")
    strengths = (75.0, 82.0, 86.0, 90.0, 93.0)
    unit = "100 - quality"
    source = HENDRYCKS

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        image = images.of(self.camera)
        stored = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
        done, content = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, round(100 - strength)])
        assert done, image.shape
        read = cv2.imdecode(content, cv2.IMREAD_COLOR if image.ndim == 3 else cv2.IMREAD_GRAYSCALE)
        assert read is not None, image.shape
        return cv2.cvtColor(read, cv2.COLOR_BGR2RGB) if image.ndim == 3 else read


class LowContrast(ImageCorruption):
    """Levels move towards their mean: ``mean + (1 - lost) * (level - mean)``, the mean per channel."""

    cameras = ("rgb", "thermal")
    strengths = (0.4, 0.6, 0.7, 0.8, 0.9)
    unit = "share of the contrast lost"
    source = HENDRYCKS

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        image = images.of(self.camera)
        means = np.array(cv2.mean(image)[: 3 if image.ndim == 3 else 1])
        tables = as_levels(means + (1 - strength) * (np.arange(256)[:, None] - means))
        return cv2.LUT(image, tables[None])


class ThermalOffset(ImageCorruption):
    """All levels higher or lower: another temperature of the camera, not yet levelled."""

    cameras = ("thermal",)
    strengths = (12.0, 24.0, 38.0, 54.0, 75.0)
    unit = "grey levels"
    source = MICROBOLOMETER

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        table = as_levels(np.arange(256) + sign(generator) * strength)
        return cv2.LUT(images.of("thermal"), table)


class ThermalDrift(ImageCorruption):
    """Gain and offset that differ slowly over the picture, as they come about between two closings of the shutter.

    ``level * (1 + s / 510 * G) + s * O`` with smooth random fields G and O of mean 0 and largest magnitude 1.
    """

    cameras = ("thermal",)
    strengths = (15.0, 28.0, 45.0, 65.0, 90.0)
    unit = "largest offset, grey levels"
    source = MICROBOLOMETER

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        thermal_HW = images.of("thermal")
        gain_HW = smooth_field(thermal_HW.shape, generator)
        offset_HW = smooth_field(thermal_HW.shape, generator)
        return as_levels(thermal_HW * (1 + np.float32(strength / 510) * gain_HW) + np.float32(strength) * offset_HW)


class FixedPattern(ImageCorruption):
    """Non-uniformity: an offset per column, half as much per pixel, and a gain per pixel; the same in every frame.

    ``level * (1 + s / 255 * N) + s * N + s / 2 * N``, N normal: per pixel, per column, per pixel.
    """

    cameras = ("thermal",)
    strengths = (3.0, 6.0, 10.0, 16.0, 24.0)
    unit = "standard deviation over columns, grey levels"
    source = "D'Agostino and Webb 1991, three-dimensional noise: column and fixed pixel"
    of_camera = True

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        thermal_HW = images.of("thermal")
        gain_HW = normal_noise(thermal_HW.shape, generator)
        pixels_HW = normal_noise(thermal_HW.shape, generator)
        columns_W = generator.standard_normal(thermal_HW.shape[1], dtype=np.float32)
        offset_HW = np.float32(strength) * (columns_W + 0.5 * pixels_HW)
        return as_levels(thermal_HW * (1 + np.float32(strength / 255) * gain_HW) + offset_HW)


class DeadPixels(ImageCorruption):
    """Pixels stuck at black or white, the same in every frame; those of a severity are also in every stronger one."""

    cameras = ("thermal",)
    strengths = (0.002, 0.006, 0.015, 0.035, 0.08)
    unit = "share of the pixels"
    source = MICROBOLOMETER
    of_camera = True

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        thermal_HW = images.of("thermal").copy()
        dead_HW = generator.random(thermal_HW.shape, dtype=np.float32) < strength
        thermal_HW[dead_HW] = 255 * (generator.random(thermal_HW.shape, dtype=np.float32) < 0.5)[dead_HW]
        return thermal_HW


class DeadRows(ImageCorruption):
    """Rows stuck at black or white, the same in every frame; those of a severity are also in every stronger one."""

    cameras = ("thermal",)
    strengths = (0.01, 0.025, 0.05, 0.1, 0.2)
    unit = "share of the rows"
    source = MICROBOLOMETER
    of_camera = True

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        thermal_HW = images.of("thermal").copy()
        height = len(thermal_HW)
        dead, white_H = generator.permutation(height)[: int(np.ceil(strength * height))], generator.random(height) < 0.5
        thermal_HW[dead] = 255 * white_H[dead, None]
        return thermal_HW


class ShutterFrame(ImageCorruption):
    """The shutter of a thermal camera, at one temperature of its own, in front of part of the picture or all of it."""

    cameras = ("thermal",)
    strengths = (0.2, 0.4, 0.6, 0.8, 1.0)
    unit = "share of the width that is covered"
    source = MICROBOLOMETER

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        thermal_HW = images.of("thermal").copy()
        from_left, level = generator.random() < 0.5, generator.integers(70, 181)
        covered = int(np.ceil(strength * thermal_HW.shape[1]))
        part = np.s_[:, :covered] if from_left else np.s_[:, thermal_HW.shape[1] - covered :]
        noise_HW = normal_noise(thermal_HW.shape, generator)
        thermal_HW[part] = as_levels(level + 1.5 * noise_HW[part])
        return thermal_HW


class ReversedPolarity(ImageCorruption):
    """Black is hot: ``255 - level``. A frame is reversed or it is not, so a severity is the share of frames."""

    cameras = ("thermal",)
    strengths = (0.2, 0.4, 0.6, 0.8, 1.0)
    unit = "share of the frames"
    source = "`white hot` and `black hot` of thermal cameras"

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        thermal_HW = images.of("thermal")
        return 255 - thermal_HW if generator.random() < strength else thermal_HW


class OtherScaling(ImageCorruption):
    """Scaled as other cameras do: on the way to levels that are equally frequent (histogram equalisation).

    ``(1 - s) * level + s * equalised``.
    """

    cameras = ("thermal",)
    strengths = (0.2, 0.4, 0.6, 0.8, 1.0)
    unit = "share of the equalised picture"
    source = "automatic gain control of thermal cameras by histogram; Vickers 1996, Plateau equalization algorithm"

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        thermal_HW = images.of("thermal")
        return cv2.addWeighted(thermal_HW, 1 - strength, cv2.equalizeHist(thermal_HW), strength, 0)
