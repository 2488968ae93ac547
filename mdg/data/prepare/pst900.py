"""Layouts of PST900: a folder per split (as published), or flat copies with split files."""

from __future__ import annotations

from mdg.data.prepare.split_folders import SplitFolders


class PST900Layouts(SplitFolders):
    """PST900; only ``rgb``, ``thermal`` and ``labels`` are necessary."""

    name = "PST900"
    config = "configs/pst900/mdg_b2.yaml"
    necessary = {
        "rgb": ("rgb", "visible", "vi"),
        "thermal": ("thermal", "th", "ir", "infrared"),
        "labels": ("labels", "label"),
    }
    optional = {"thermal_raw": ("thermal_raw",), "depth": ("depth",)}
    expected = (
        "  train/ and test/, each with rgb/, thermal/ and labels/ (thermal_raw/ and depth/ may be there)\n"
        "  or rgb/, thermal/ and labels/, with train.txt and test.txt"
    )
