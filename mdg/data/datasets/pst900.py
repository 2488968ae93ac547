"""PST900: 894 pairs from mines and caves, 720x1280, five classes.

Source: Shivakumar et al., "PST900: RGB-Thermal Calibration, Dataset and Segmentation Network", ICRA 2020. Score: mean
IoU over all five classes, `background` included, at native size. Published counts of train and test differ; results
state the count of the files at hand.
"""

from __future__ import annotations

from mdg.data.base import palette
from mdg.data.datasets.file_dataset import SplitFolderDataset
from mdg.data.reading.labels import IdLabels
from mdg.metrics.scoring import ScoringRule
from mdg.options.datasets import PST900Options
from mdg.registry import DATASETS

CLASSES = ("background", "fire-extinguisher", "backpack", "hand-drill", "survivor")
PALETTE_K3 = palette([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)])


@DATASETS.register(PST900Options)
class PST900(SplitFolderDataset):
    """A split of PST900: ``ROOT/{train,test}/{rgb,thermal,thermal_raw,labels}/NAME.png``.

    Args:
        options: Where it lies and which thermal images to read.
        role: ``train``, ``val`` or ``test``.
    """

    dataset_name = "PST900"
    classes = CLASSES
    palette_K3 = PALETTE_K3
    # The paper, and papers that use other copies.
    published_frames = ({"train": 597, "test": 288}, {"train": 597, "test": 297}, {"train": 606, "test": 288})

    def __init__(self, options: PST900Options, *, role: str):
        folders = {"rgb": ("rgb",), "thermal": (options.thermal,), "label": ("labels", "label")}
        super().__init__(options, role=role, folders=folders)
        self.thermal = options.thermal
        self.read_label = IdLabels(len(CLASSES))

    def scoring_rules(self) -> tuple[ScoringRule, ...]:
        """All five classes, as published."""
        return (ScoringRule("five classes", CLASSES),)

    def preparation(self) -> str:
        """Says so where thermal is read from the raw images."""
        raw = ["16-bit thermal_raw"] if self.thermal == "thermal_raw" else []
        return "; ".join([*raw, super().preparation()])
