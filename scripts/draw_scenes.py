#!/usr/bin/env python
"""Draws docs/scenes.jpg, the picture on the front page: generated scenes, what two cameras see of them, where the
network finds that they differ, and its mask.

python scripts/draw_scenes.py exp/demo/<time>/checkpoints/best.pt
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mdg.utils.cli import imports, run_tool, user_path

TARGET = Path(__file__).resolve().parent.parent / "docs" / "scenes.jpg"
HEIGHT = 168  # pixels of a scene in the picture


def run(args: argparse.Namespace) -> None:
    with imports():
        import cv2

        from mdg import build_dataset, load
        from mdg.engine.outputs import divergence_picture
        from mdg.utils import visualization as vis
        from mdg.utils.files import write_bytes

    predictor = load(args.checkpoint)
    dataset = build_dataset(predictor.config.data, "test")
    rows = []
    for place in args.frames:
        frame = dataset[place]
        result = predictor(frame.rgb_HW3, frame.thermal_HW)
        size = round(HEIGHT * frame.rgb_HW3.shape[1] / frame.rgb_HW3.shape[0]), HEIGHT
        parts = [
            (f"RGB ({dataset.condition(place)})", result.rgb),
            ("thermal", vis.grey(result.thermal)),
            ("divergence", divergence_picture(result)),
            ("mask", result.overlay()),
        ]
        enlarged = [(name, cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)) for name, picture in parts]
        rows.append(vis.panel(enlarged, height=HEIGHT))
    key = vis.legend(predictor.classes, predictor.palette, rows[0].shape[1])
    picture = cv2.cvtColor(vis.stack([*rows, key]), cv2.COLOR_RGB2BGR)
    write_bytes(args.out, cv2.imencode(args.out.suffix, picture, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes())
    print(f"{args.out}: {args.out.stat().st_size / 1000:.0f} kB")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="draw_scenes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=user_path, help="of a network for generated scenes, such as the demo's")
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 2], help="frames of the test split (1 2)")
    parser.add_argument("--out", type=Path, default=TARGET, help="the picture (docs/scenes.jpg)")
    run_tool(run, parser, arguments)


if __name__ == "__main__":
    main()
