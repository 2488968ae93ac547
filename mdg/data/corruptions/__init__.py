"""What goes wrong with cameras and rigs, each at five severities: docs/robustness.md.

``CORRUPTIONS`` holds every type by name; :func:`every_corruption` gives each with each camera that it can befall.
``Corrupted`` (``dataset.py``) is a data set under one of them, ``mdg/data/transforms/corruptions.py`` trains with them.
"""

from mdg.data.corruptions import optics, rigs, sensors, weather
from mdg.data.corruptions.base import MOST_SEVERE, Corruption, Images, Previous
from mdg.data.corruptions.dataset import Corrupted, generator_for

CORRUPTIONS: dict[str, type[Corruption]] = {
    kind.__name__: kind
    for kind in (
        rigs.MissingBlack,
        rigs.MissingMean,
        rigs.Frozen,
        optics.Darkness,
        optics.Glare,
        optics.Overexposure,
        weather.Fog,
        weather.Rain,
        weather.Snow,
        optics.MotionBlur,
        optics.Defocus,
        sensors.SensorNoise,
        sensors.JPEG,
        sensors.LowContrast,
        sensors.ThermalNoise,
        sensors.ThermalOffset,
        sensors.ThermalDrift,
        sensors.FixedPattern,
        sensors.DeadPixels,
        sensors.DeadRows,
        sensors.ShutterFrame,
        sensors.ReversedPolarity,
        sensors.OtherScaling,
        rigs.TimeLag,
        rigs.ThermalShift,
        rigs.ThermalRotation,
        rigs.ThermalScale,
        rigs.Parallax,
    )
}


def every_corruption() -> list[Corruption]:
    """Each corruption of each camera, in the order of docs/robustness.md."""
    return [kind(camera) for kind in CORRUPTIONS.values() for camera in kind.cameras]


__all__ = [
    "CORRUPTIONS",
    "MOST_SEVERE",
    "Corrupted",
    "Corruption",
    "Images",
    "Previous",
    "every_corruption",
    "generator_for",
]
