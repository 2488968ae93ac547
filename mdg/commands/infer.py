"""Segments your own pairs: two files, two folders, 4-channel PNGs as in MFNet, two videos or two cameras.

python tools/infer_mm.py --rgb photo.png --thermal heat.png --out masks
python tools/infer_mm.py --rgb rgb/ --thermal raw/ --thermal-scaling '{mode: fixed, range: [7000, 9500]}'
python tools/infer_mm.py --rgb all/ --thermal all/ --rgb-name '{name}_rgb.*' --thermal-name '{name}_ir.*'
python tools/infer_mm.py --rgb visible.mp4 --thermal infrared.mp4 --out video
python tools/infer_mm.py --rgb photo.png --thermal none
python tools/infer_mm.py --rgb 0 --thermal 1 --frames 500 --save video areas

Exit code 1: some pairs could not be used, and the others are done.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.utils.cli import add_opts, add_pairs, imports, positive, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="infer_mm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_pairs(parser, required=False)
    parser.add_argument("--pairs", type=user_path, metavar="CSV", help="list of pairs: columns rgb, thermal, (name)")
    parser.add_argument("--rgb-name", metavar="PATTERN", help="RGB files are called so: '{name}_rgb.*'")
    parser.add_argument("--thermal-name", metavar="PATTERN", help="thermal files are called so: '{name}_ir.*'")
    parser.add_argument(
        "--rgb-half", choices=("left", "right"), help="one video shows both cameras; colour is in this half"
    )
    parser.add_argument("--delay", type=float, default=0.0, metavar="S", help="the thermal video began so much later")
    parser.add_argument("--every", type=positive, default=1, metavar="N", help="take every Nth frame of a video")
    parser.add_argument("--frames", type=positive, metavar="N", help="stop behind so many pairs or frames")
    parser.add_argument(
        "--save",
        nargs="+",
        default=[],
        metavar="WHAT",
        help="mask, overlay, colour, divergence, entropy, probabilities, labelme of every pair; areas, uncertainty, "
        "coco, cvat, video of all (images: mask overlay; videos: video areas)",
    )
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="pairs of equal size in one pass (1)")
    parser.add_argument("--tile", type=positive, metavar="SIDE", help="large images in windows of so many pixels")
    parser.add_argument("--out", type=user_path, default="predictions", metavar="DIR", help="default: predictions")
    parser.add_argument("--resume", action="store_true", help="leave out the pairs whose outputs exist")
    add_opts(parser)
    return parser


def tiles(side: int | None) -> list[str]:
    """The overrides that make windows of an image."""
    return [] if side is None else ["eval.mode=slide", f"eval.window=[{side}, {side}]"]


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.engine.predict import predict

    predict(
        args.rgb,
        args.thermal,
        args.checkpoint,
        args.config,
        out_dir=args.out,
        opts=[*args.opts, *tiles(args.tile)],
        resume=args.resume,
        save=args.save,
        rgb_name=args.rgb_name,
        thermal_name=args.thermal_name,
        pair_list=args.pairs,
        batch_size=args.batch,
        rgb_half=args.rgb_half,
        delay=args.delay,
        frames=args.frames,
        every=args.every,
        thermal_scaling=args.thermal_scaling,
        align=args.align,
        grey_rgb=args.grey_rgb,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
