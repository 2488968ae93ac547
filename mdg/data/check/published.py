"""Published numbers of frames, to be shown beside those that were found; other counts are no mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mdg.data.base import RGBTDataset
from mdg.data.datasets.mfnet import FLIP

# MFNet: Ha et al., IROS 2017. PST900: Shivakumar et al., ICRA 2020, and papers that use other copies of it.
# FMB: Liu et al., ICCV 2023.
PUBLISHED: Mapping[str, Sequence[Mapping[str, int]]] = {
    "MFNet": ({"train": 784, "val": 392, "test": 393},),
    "PST900": ({"train": 597, "test": 288}, {"train": 597, "test": 297}, {"train": 606, "test": 288}),
    "FMB": ({"train": 1220, "test": 280},),
}


def published_notes(datasets: Sequence[RGBTDataset]) -> list[str]:
    """Counts of the splits on disk beside the published ones; nothing where none are known, or only a part was read.

    Args:
        datasets: The splits of one data set, one per role.
    """
    published = PUBLISHED.get(datasets[0].dataset_name, ()) if datasets else ()
    if not published or any(dataset.limit is not None for dataset in datasets):
        return []
    found: dict[str, int] = {}
    for dataset in datasets:  # a held-out part and the rest are one split on disk
        part = len(dataset) if dataset.holdout is not None or dataset.split_name not in found else 0
        found[dataset.split_name] = found.get(dataset.split_name, 0) + part
    shown = {split: found[split] for split in published[0] if split in found}
    if not shown:
        return []
    known = " or ".join("/".join(str(counts[split]) for split in shown) for counts in published)
    mine = "/".join(map(str, shown.values()))
    names = "/".join(shown)
    equal = any(all(counts[split] == shown[split] for split in shown) for counts in published)
    verdict = "as published" if equal else "no error, but scores compare on equal splits only"
    flips = sum(name.endswith(FLIP) for dataset in datasets for name in dataset.names)
    mirrored = f"; {flips} of them are mirror images ({FLIP})" if flips else ""
    return [f"frames of {names}: {mine}{mirrored}; published: {known} ({verdict})"]
