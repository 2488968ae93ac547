"""FMB: 1500 pairs of streets by day, night and in fog, 600x800, fifteen classes.

Source: Liu et al., "Multi-interactive Feature Learning and a Full-time Multi-modality Benchmark for Image Fusion and
Segmentation", ICCV 2023. No test label holds a bicycle, and published numbers follow three rules that cannot be
compared; all three are always reported, from one confusion matrix.
"""

from __future__ import annotations

from mdg.data.base import palette
from mdg.data.datasets.file_dataset import SplitFolderDataset
from mdg.data.reading.labels import IdLabels
from mdg.fields import IGNORED
from mdg.metrics.scoring import ScoringRule
from mdg.options.datasets import FMBOptions
from mdg.registry import DATASETS

CLASSES = (
    "unlabeled",
    "road",
    "sidewalk",
    "building",
    "traffic lamp",
    "traffic sign",
    "vegetation",
    "sky",
    "person",
    "car",
    "truck",
    "bus",
    "motorcycle",
    "bicycle",
    "pole",
)
PALETTE_K3 = palette(
    [
        (0, 0, 0),
        (228, 228, 179),
        (133, 57, 181),
        (177, 162, 67),
        (50, 178, 200),
        (199, 45, 132),
        (84, 172, 66),
        (79, 73, 179),
        (166, 99, 76),
        (253, 121, 66),
        (91, 165, 137),
        (152, 97, 155),
        (140, 153, 105),
        (158, 215, 222),
        (90, 113, 135),
    ]
)
LABELLED, UNLABELED = CLASSES[1:], CLASSES[:1]
RULES = (
    ScoringRule("C", CLASSES),
    ScoringRule("B", LABELLED, ignored=UNLABELED),
    ScoringRule("A", LABELLED, ignored=UNLABELED, absent=0.0),
)
FOLDERS = {
    "rgb": ("visible", "vi", "rgb"),
    "thermal": ("infrared", "ir", "thermal"),
    "label": ("label", "labels"),
}


@DATASETS.register(FMBOptions)
class FMB(SplitFolderDataset):
    """A split of FMB: ``ROOT/{train,test}/{Visible,Infrared,Label}/NAME.png``.

    Args:
        options: Where it lies and what becomes of unlabeled pixels.
        role: ``train``, ``val`` or ``test``.
    """

    dataset_name = "FMB"
    classes = CLASSES
    palette_K3 = PALETTE_K3
    published_frames = ({"train": 1220, "test": 280},)

    def __init__(self, options: FMBOptions, *, role: str):
        super().__init__(options, role=role, folders=FOLDERS)
        self.unlabeled = options.unlabeled
        mapping = {k: k for k in range(len(CLASSES))} | ({0: IGNORED} if self.unlabeled == "ignore" else {})
        self.read_label = IdLabels(len(CLASSES), mapping)

    def scoring_rules(self) -> tuple[ScoringRule, ...]:
        """C: 15 classes with unlabeled, absent left out. B: 14 without it. A: 14, where an absent class counts 0.

        Where unlabeled pixels are ignored there is no C.
        """
        return RULES if self.unlabeled == "class" else RULES[1:]

    def preparation(self) -> str:
        """Says so where unlabeled pixels are ignored."""
        ignored = ["unlabeled pixels ignored in training and scoring"] if self.unlabeled == "ignore" else []
        return "; ".join([*ignored, super().preparation()])
