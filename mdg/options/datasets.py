"""Options of the data sets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mdg.fields import Seed, UserPath
from mdg.options.files import ColourOptions, DatasetOptions, FileOptions, SplitFolderOptions
from mdg.options.folder import FolderOptions
from mdg.options.shards import ShardsOptions
from mdg.registry import DATASETS


class MFNetOptions(FileOptions):
    """Where MFNet lies. A split is a file of names: `train` is `train.txt`."""

    root: UserPath
    """Folder with `train.txt`, `val.txt`, `test.txt` and the folders of images."""
    layout: Literal["auto", "packed", "folders"] = "auto"
    """`packed`: 4-channel PNGs in `images/`; `folders`: `rgb/` and `thermal/`; `auto`: `packed` where it is."""


class PST900Options(SplitFolderOptions):
    """Where PST900 lies and which of its thermal images to read."""

    thermal: Literal["thermal", "thermal_raw"] = "thermal"
    """Folder of the thermal images: 8-bit `thermal`, or 16-bit `thermal_raw`, which needs `thermal_scaling`."""


class FMBOptions(SplitFolderOptions):
    """Where FMB lies and what becomes of its unlabeled pixels."""

    unlabeled: Literal["class", "ignore"] = "class"
    """`class`: unlabeled is learnt and predicted as a class of its own, as rule C wants; `ignore`: its pixels take part
    neither in the loss nor in the score, as the authors of rules A and B train."""


class CityscapesOptions(ColourOptions):
    """Where Cityscapes lies and which of its frames are trained on. There is no thermal camera."""

    root: UserPath
    """Folder with `leftImg8bit/` and `gtFine/`."""
    test_split: str | None = "val"
    """Split to report: that of papers, since the labels of `test` are not public."""
    val_split: str | None = None
    """Split that selects the best checkpoint. Null, with `eval.selection: last` or a `holdout`: what selects must not
    be what is reported."""
    train_list: UserPath | None = None
    """List of a part of the train split, the paths of an image and of its label a line, below `root`; null takes all of
    it."""
    labels: Literal["auto", "trainIds", "labelIds"] = "auto"
    """Label files: `labelTrainIds.png`, or `labelIds.png`, whose ids the official table turns into train ids; `auto`
    takes the second where the first was not made."""


MIN_SIDE = 32  # px


# First scene and number of scenes each split may have. Ranges are fixed, so that the size of one split never moves
# another; starts are even, since odd scenes are night.
RANGES = {"train": (0, 50_000), "val": (50_000, 25_000), "test": (75_000, 25_000)}


Split = Literal["train", "val", "test"]


SceneSide = Annotated[int, Field(ge=MIN_SIDE, le=4096)]


class SyntheticOptions(DatasetOptions):
    """Size and number of the generated scenes. The splits never share a scene."""

    train_split: Split | None = "train"
    """Split to train on."""
    val_split: Split | None = "val"
    """Split that selects the best checkpoint."""
    test_split: Split | None = "test"
    """Split to report."""
    height: SceneSide = 240
    """Pixels."""
    width: SceneSide = 320
    """Pixels."""
    seed: Seed = 0
    """Another seed is another world."""
    train_images: int = Field(64, ge=1, le=RANGES["train"][1])
    """Scenes of the train split."""
    val_images: int = Field(16, ge=1, le=RANGES["val"][1])
    """Scenes of the val split."""
    test_images: int = Field(16, ge=1, le=RANGES["test"][1])
    """Scenes of the test split."""


DATASETS.declare(
    MFNet=MFNetOptions,
    PST900=PST900Options,
    FMB=FMBOptions,
    Cityscapes=CityscapesOptions,
    Folder=FolderOptions,
    Synthetic=SyntheticOptions,
    Shards=ShardsOptions,
)
