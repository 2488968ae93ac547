"""Registers two fixed cameras from pairs of images: where does a thermal pixel lie in the RGB image?

python tools/register.py --rgb rgb/ --thermal thermal/ --out rig.yaml --preview overlay.png

The rig is used as data.align: {mode: rig, file: rig.yaml}, or with --align rig.yaml of tools. Where the images show too
little that both cameras see, points can be clicked:

python tools/register.py --rgb rgb/ --thermal thermal/ --click page.html
python tools/register.py --rgb rgb/ --thermal thermal/ --points points.csv --out rig.yaml
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mdg.errors import ConfigError
from mdg.utils.cli import imports, run_tool, user_path

MODELS = ("homography", "affine", "similarity")


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="register", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rgb", type=user_path, required=True, metavar="DIR", help="folder of RGB images")
    parser.add_argument("--thermal", type=user_path, required=True, metavar="DIR", help="thermal images of these names")
    parser.add_argument("--out", type=user_path, metavar="FILE", help="the rig, a .yaml")
    parser.add_argument("--model", default=MODELS[0], choices=MODELS, help="what the matrix may be (homography)")
    parser.add_argument("--points", type=user_path, metavar="CSV", help="clicked points instead of edges")
    parser.add_argument("--click", type=user_path, metavar="HTML", help="write a page to click points on, and end")
    parser.add_argument("--preview", type=user_path, metavar="PNG", help="write a picture by which to judge the rig")
    parser.add_argument("--rgb-calibration", type=user_path, metavar="FILE", help="OpenCV's calibration of the lens")
    parser.add_argument("--thermal-calibration", type=user_path, metavar="FILE", help="likewise")
    return parser


def run(args: argparse.Namespace) -> None:
    if (args.out is None) == (args.click is None):
        raise ConfigError("name the rig to write (--out rig.yaml), or a page to click points on (--click page.html)")
    if args.out is not None and not args.out.lower().endswith((".yaml", ".yml")):
        raise ConfigError(f"--out {args.out}: expected a name that ends in .yaml, by which --align knows a rig")
    with imports():
        from mdg.data.registration.page import write_click_page
        from mdg.data.registration.preview import draw_preview
        from mdg.data.registration.rig_file import write_rig
        from mdg.data.registration.run import find_rig, read_pictures, told_lines
        from mdg.utils.files import require_writable
        from mdg.utils.visualization import save_picture

    rgb, thermal = Path(args.rgb), Path(args.thermal)
    for option in ("out", "click", "preview"):
        if getattr(args, option) is not None:
            require_writable(getattr(args, option), f"--{option}")
    if args.click is not None:
        pictures = read_pictures(rgb, thermal)
        count = write_click_page(Path(args.click), pictures.rgb, pictures.thermal)
        print(f"written: {args.click} with {count} pairs; open it, click points, save them, and run with --points")
        return
    found = find_rig(
        rgb,
        thermal,
        model=args.model,
        points=None if args.points is None else Path(args.points),
        rgb_calibration=None if args.rgb_calibration is None else Path(args.rgb_calibration),
        thermal_calibration=None if args.thermal_calibration is None else Path(args.thermal_calibration),
    )
    print("\n".join(told_lines(found)))
    write_rig(Path(args.out), found.rig)
    print(f"written: {args.out}; use it as data.align: {{mode: rig, file: {args.out}}} or --align {args.out}")
    if args.preview is not None:
        save_picture(Path(args.preview), draw_preview(found.rig, found.pictures.rgb, found.pictures.thermal))
        print(f"written: {args.preview}; edges of thermal must lie on those of RGB")


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
