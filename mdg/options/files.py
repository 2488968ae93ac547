"""Options that data sets share: splits and their roles, files and how they become images."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, FiniteFloat, TypeAdapter, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from mdg.fields import Count, Seed, UserPath
from mdg.registry import Options


def _fraction(value: Any) -> Any:
    """ "1/16" as papers write it."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", value)) and int(match[2]):
        return int(match[1]) / int(match[2])
    return value


Fraction = Annotated[float, Field(gt=0, lt=1), BeforeValidator(_fraction, json_schema_input_type=float | str)]


class LabelledOptions(Options):
    """Which frames of the train split have a label that counts: a share of its scenes, or those of a list."""

    fraction: Fraction | None = None
    """Share of the scenes, such as `1/16`; mirrored twins stay together."""
    seed: Seed = 0
    """Another seed takes other frames."""
    list: UserPath | None = None
    """File of names, one a line, in place of `fraction`; for Cityscapes also a list of U2PL, image and label a line."""

    @model_validator(mode="after")
    def _one_of_both(self) -> LabelledOptions:
        if (self.fraction is None) == (self.list is None):
            raise ValueError("expected `fraction` or `list`, and not both")
        return self


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
    labelled: LabelledOptions | None = None
    """Train on the labels of these frames of the train split only; the others can be learnt from without their labels
    (`train.method`), which are never opened. Null takes all."""
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

    mode: Literal["none", "fixed", "celsius", "percentile", "minmax", "match"] = "none"
    """`none`: 8-bit as stored; `fixed`: `range` becomes 0..255, so that a temperature keeps its grey value in every
    frame; `celsius`: the same with a `range` in degrees, for files that hold temperatures; `percentile`: between two
    percentiles of each image; `minmax`: between the extremes of each image; `match`: the grey values of each image
    become distributed as `quantiles` say, for a network that learnt from another camera."""
    range: tuple[FiniteFloat, FiniteFloat] | None = None
    """[lowest, highest] raw value of `fixed`, or degrees Celsius of `celsius`; what lies outside is clipped.
    `tools/check_data.py` prints the raw values that occur."""
    unit: Literal["auto", "celsius", "kelvin", "centikelvin", "decikelvin"] = "auto"
    """Of the raw values, for `celsius`. `auto`: floating point and FLIR's radiometric JPEGs are degrees Celsius, whole
    numbers of 16 bits centikelvin (27315 is 0 degrees Celsius)."""
    percentiles: tuple[float, float] = (1.0, 99.0)
    """[lower, upper] percentile of `percentile`."""
    quantiles: tuple[Annotated[float, Field(ge=0, le=255)], ...] | None = Field(None, min_length=2, max_length=256)
    """Of `match`: the grey values that evenly spaced shares of the pixels do not exceed, from the darkest pixel to the
    brightest. `tools/check_data.py` prints those of a data set, the mean over its images."""
    invert: bool = False
    """For black-hot images, where darker is warmer."""

    @model_validator(mode="after")
    def _check_limits(self) -> ThermalScaling:
        if (self.mode in ("fixed", "celsius")) != (self.range is not None):
            raise ValueError(
                f"got mode '{self.mode}' and range {self.range}, expected a range with `mode: fixed` or `mode: "
                "celsius` and with no other"
            )
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"got range {list(self.range)}, expected [lowest, highest]")
        if self.mode == "celsius" and self.range is not None and not -273.15 <= self.range[0] < self.range[1] <= 4000:
            raise ValueError(
                f"got range {list(self.range)} with mode 'celsius', expected degrees Celsius, such as [-10, 45]; raw "
                "values are the range of `mode: fixed`"
            )
        if self.unit != "auto" and self.mode != "celsius":
            raise ValueError(
                f"got unit '{self.unit}' and mode '{self.mode}', expected a unit with `mode: celsius` only"
            )
        if (self.mode == "match") != (self.quantiles is not None):
            raise ValueError(
                f"got mode '{self.mode}' {'without' if self.quantiles is None else 'and'} quantiles, expected "
                "quantiles with `mode: match` and with no other; tools/check_data.py prints those of a data set"
            )
        if self.quantiles is not None and list(self.quantiles) != sorted(self.quantiles):
            raise ValueError(f"got quantiles {list(self.quantiles)}, expected them from the darkest to the brightest")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"got percentiles {list(self.percentiles)}, expected 0 <= lower < upper <= 100")
        return self

    def describe(self) -> str | None:
        """For the protocol; None where images are taken as stored."""
        limits = {
            "none": "",
            "fixed": f"thermal {self.range and list(self.range)} to 8 bits",
            "celsius": f"thermal {self.range and list(self.range)} degrees Celsius to 8 bits"
            + ("" if self.unit == "auto" else f", raw values in {self.unit}"),
            "percentile": f"thermal percentiles {list(self.percentiles)} of each image to 8 bits",
            "minmax": "thermal extremes of each image to 8 bits",
            "match": f"thermal of each image matched to the quantiles {self.quantiles and list(self.quantiles)}",
        }[self.mode]
        return ", ".join(filter(None, [limits, "thermal inverted" if self.invert else ""])) or None


AS_STORED = ThermalScaling()


class RigAlignment(Options):
    """Two cameras that were registered: thermal is warped onto the grid of RGB, whose size labels must have."""

    mode: Literal["rig"] = "rig"
    """Always `rig`."""
    file: UserPath
    """The rig that `tools/register.py` wrote."""


SizeRule = Literal["refuse", "rgb", "thermal", "label"]


def _read_alignment(value: Any, handler: Any) -> SizeRule | RigAlignment:
    """A rule, or a rig: as a mapping, or as the name of its file."""
    if isinstance(value, str) and value not in get_args(SizeRule):
        if value.lower().endswith((".yaml", ".yml")):
            return RigAlignment(file=value)
        expected = f"Input should be {_either(get_args(SizeRule))}, or a file that ends in .yaml, of a rig"
        raise PydanticCustomError("alignment", "{message}", {"message": expected})
    # Not the union itself: it would report what is wrong with every kind of value that this is not.
    kind: Any = RigAlignment if isinstance(value, (dict, RigAlignment)) else SizeRule
    return TypeAdapter(kind).validate_python(value)


def _either(names: Iterable[str]) -> str:
    *others, last = (f"'{name}'" for name in names)
    return f"{', '.join(others)} or {last}"


Alignment = Annotated[SizeRule | RigAlignment, WrapValidator(_read_alignment)]


GreyRGB = Literal["refuse", "repeat"]


class PairOptions(Options):
    """How the files of a pair become images."""

    thermal_scaling: ThermalScaling = AS_STORED
    """How thermal images of more than 8 bits become 8, and which end is warm."""
    align: Alignment = "refuse"
    """Where RGB and thermal differ in size: `refuse`, or resize both to the size of `rgb`, `thermal` or `label`. Where
    two cameras stand side by side, `{mode: rig, file: rig.yaml}` warps thermal onto RGB (`--align rig.yaml` of tools).
    """
    grey_rgb: GreyRGB = "refuse"
    """Where an RGB image has one channel, as some cameras write at night: `refuse`, or `repeat` it three times."""


class FileOptions(PairOptions, DatasetOptions):
    """How files become images."""

    root: UserPath
    """Folder of the data set."""


class ColourOptions(DatasetOptions):
    """Where the files of a colour camera lie that has no thermal one beside it."""

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
