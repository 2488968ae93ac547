"""Layouts of FMB: a folder per split, each with a folder per part."""

from __future__ import annotations

from mdg.data.prepare.split_folders import SplitFolders


class FMBLayouts(SplitFolders):
    """FMB; ``color`` holds the labels as a picture and is not necessary."""

    name = "FMB"
    config = "configs/fmb/mdg_b2.yaml"
    necessary = {
        "Visible": ("visible", "vi", "vis", "rgb"),
        "Infrared": ("infrared", "ir", "thermal"),
        "Label": ("label", "labels"),
    }
    optional = {"color": ("color", "colour")}
    expected = (
        "  train/ and test/, each with Visible/ (vi), Infrared/ (ir) and Label/ (color/ may be there)\n"
        "  or Visible/, Infrared/ and Label/, with train.txt and test.txt"
    )
