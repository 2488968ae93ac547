"""Options that data sets share: splits and their roles, files and how they become images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, FiniteFloat, model_validator

from mdg.fields import Count, Seed, UserPath
from mdg.registry import Options


class DatasetOptions(Options):
    """Which split plays which role (null where there is none), which of its frames take part, how they are kept."""

    train_split: str | None = "train"
    """Split to train on."""
    val_split: str | None = "val"
    """Split that selects the best checkpoint."""
    test_split: str | None = "test"
    """Split to report."""
    holdout: float | None = Field(None, gt=0, lt=1)
    """Share of the train split that is held out of training and plays the val split, for data without one; needs
    `val_split: null`."""
    holdout_seed: Seed = 0
    """Another seed holds out other frames."""
    limit: Count | None = None
    """Use only the first N frames of every split, for quick and for overfitting checks; results say the count."""
    cache: Literal["none", "packed", "ram"] = "none"
    """`none` decodes files again in every epoch; `packed` decodes them once into a memory-mapped file per split (5
    bytes per pixel), shared by all processes and later runs; `ram` once per run into memory."""
    cache_dir: UserPath | None = None
    """Folder of the packed splits; null takes `.mdg_cache` in the root of the data set."""

    @model_validator(mode="after")
    def _one_validation_split(self) -> DatasetOptions:
        if self.holdout is not None and self.val_split is not None:
            raise ValueError(
                f"got val_split '{self.val_split}' and holdout {self.holdout}, expected one of them: set val_split: "
                "null to hold frames out of the train split, or holdout: null to use the val split"
            )
        return self


class ThermalScaling(Options):
    """How raw values become 0..255. 8-bit images need none of it; 16-bit and floating point ones must say."""

    mode: Literal["none", "fixed", "percentile", "minmax"] = "none"
    """`none`: 8-bit as stored; `fixed`: `range` becomes 0..255, so that a temperature keeps its grey value in every
    frame; `percentile`: between two percentiles of each image; `minmax`: between the extremes of each image."""
    range: tuple[FiniteFloat, FiniteFloat] | None = None
    """[lowest, highest] raw value of `fixed`; what lies outside is clipped. `tools/check_data.py` prints the values
    that occur."""
    percentiles: tuple[float, float] = (1.0, 99.0)
    """[lower, upper] percentile of `percentile`."""
    invert: bool = False
    """For black-hot images, where darker is warmer."""

    @model_validator(mode="after")
    def _check_limits(self) -> ThermalScaling:
        if (self.mode == "fixed") != (self.range is not None):
            raise ValueError(
                f"got mode '{self.mode}' and range {self.range}, expected a range with `mode: fixed` and with no other"
            )
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"got range {list(self.range)}, expected [lowest, highest]")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"got percentiles {list(self.percentiles)}, expected 0 <= lower < upper <= 100")
        return self

    def describe(self) -> str | None:
        """For the protocol; None where images are taken as stored."""
        limits = {
            "none": "",
            "fixed": f"thermal {self.range and list(self.range)} to 8 bits",
            "percentile": f"thermal percentiles {list(self.percentiles)} of each image to 8 bits",
            "minmax": "thermal extremes of each image to 8 bits",
        }[self.mode]
        return ", ".join(filter(None, [limits, "thermal inverted" if self.invert else ""])) or None


AS_STORED = ThermalScaling()


Alignment = Literal["refuse", "rgb", "thermal", "label"]


GreyRGB = Literal["refuse", "repeat"]


class PairOptions(Options):
    """How the files of a pair become images."""

    thermal_scaling: ThermalScaling = AS_STORED
    """How thermal images of more than 8 bits become 8, and which end is warm."""
    align: Alignment = "refuse"
    """Where RGB and thermal differ in size: `refuse`, or resize both to the size of `rgb`, `thermal` or `label`."""
    grey_rgb: GreyRGB = "refuse"
    """Where an RGB image has one channel, as some cameras write at night: `refuse`, or `repeat` it three times."""


class FileOptions(PairOptions, DatasetOptions):
    """How files become images."""

    root: UserPath
    """Folder of the data set."""


class SplitFolderOptions(FileOptions):
    """Where the data set lies. It has no val split: a tenth of train is held out, by a seed."""

    root: UserPath
    """Folder with `train/` and `test/`."""
    val_split: str | None = None
    """Folder of a val split of your own; needs `holdout: null`."""
    holdout: float | None = Field(0.1, gt=0, lt=1)
    """Share of the train split that is held out of training and plays the val split; null trains on all of it, with
    `eval.selection: last`."""
