#!/usr/bin/env python
"""Draws docs/corruptions.jpg: what every corruption does to a generated scene at the severities 0, 1, 3 and 5.

python scripts/draw_corruptions.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mdg.utils.cli import imports, run_tool

TARGET = Path(__file__).resolve().parent.parent / "docs" / "corruptions.jpg"
SIZE = 120, 160  # pixels of a scene in the picture: height, width
SEVERITIES = 0, 1, 3, 5
MOVED = ("TimeLag", "ThermalShift", "ThermalRotation", "ThermalScale", "Parallax")  # shown with the label's outlines
OUTLINE = (255, 220, 0)
GAP = 12  # pixels between the two halves
FRAMES_BEFORE = 17  # so that a frozen camera has an earlier frame of every age to show


def run(args: argparse.Namespace) -> None:
    with imports():
        import cv2
        import numpy as np

        from mdg.data import build_dataset
        from mdg.data.corruptions import Corrupted, every_corruption
        from mdg.utils import visualization as vis
        from mdg.utils.files import write_bytes

    options = {"type": "Synthetic", "height": SIZE[0], "width": SIZE[1], "test_images": args.frame + FRAMES_BEFORE}
    dataset = build_dataset({**options, "seed": args.seed}, "test")

    def row(corruption) -> np.ndarray:
        parts = []
        for severity in SEVERITIES:
            frame = Corrupted(dataset, corruption, severity)[args.frame]
            picture = frame.rgb_HW3 if corruption.camera == "rgb" else vis.grey(frame.thermal_HW)
            if type(corruption).__name__ in MOVED:
                edges_HW = cv2.morphologyEx(frame.label_HW, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
                picture = np.where(edges_HW[..., None], np.array(OUTLINE, np.uint8), picture)
            parts.append((corruption.name if severity == 0 else f"{severity}", picture))
        return vis.panel(parts, height=SIZE[0])

    rows = [row(corruption) for corruption in every_corruption()]
    half = -(-len(rows) // 2)
    left, right = vis.stack(rows[:half]), vis.stack(rows[half:])
    missing = len(left) - len(right)
    right = cv2.copyMakeBorder(right, 0, missing, 0, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    between = np.full((len(left), GAP, 3), 255, np.uint8)
    picture = cv2.cvtColor(np.concatenate([left, between, right], axis=1), cv2.COLOR_RGB2BGR)
    quality = [cv2.IMWRITE_JPEG_QUALITY, args.quality]
    write_bytes(args.out, cv2.imencode(args.out.suffix, picture, quality)[1].tobytes())
    print(f"{args.out}: {args.out.stat().st_size / 1000:.0f} kB")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="draw_corruptions", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frame", type=int, default=4, help="place in the test split of the generated scenes (4)")
    parser.add_argument("--seed", type=int, default=0, help="of the generated scenes (0)")
    parser.add_argument("--quality", type=int, default=55, help="of the JPEG (55)")
    parser.add_argument("--out", type=Path, default=TARGET, help="the picture (docs/corruptions.jpg)")
    run_tool(run, parser, arguments)


if __name__ == "__main__":
    main()
