"""Makes label PNGs and a configuration out of annotations: labelme, COCO, CVAT, Roboflow, colour PNGs, binary masks.

python scripts/prepare_labels.py annotations/ data/courtyard --images data/courtyard/rgb --split 0.8,0.1,0.1
python scripts/prepare_labels.py result.json data/yard --classes person,vehicle --merge car=vehicle van=vehicle

The annotations are only read, and nothing is overwritten without --force. docs/labels.md has all formats.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mdg.utils.cli import imports, run_tool, user_path

FORMATS = ("labelme", "coco", "cvat", "colours", "roboflow-masks", "binary")
RGB, THERMAL = "rgb/{name}.*", "thermal/{name}.*"


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prepare_labels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=user_path, metavar="SOURCE", help="annotations: a folder, a JSON or an XML")
    parser.add_argument("out", type=user_path, metavar="OUT", help="folder of the data set: labels, lists, data.yaml")
    parser.add_argument("--format", choices=FORMATS, help="default: found by the files")
    parser.add_argument("--classes", type=names, metavar="A,B,C", help="classes by id; default: the labels that occur")
    parser.add_argument("--background", default="background", metavar="NAME", help="class 0: what nobody has drawn")
    parser.add_argument("--ignore", nargs="+", action="extend", default=[], metavar="NAME", help="labels to become 255")
    parser.add_argument(
        "--merge", nargs="+", action="extend", type=pair, default=[], metavar="OLD=NEW", help="labels by another name"
    )
    parser.add_argument("--images", type=user_path, metavar="DIR", help="images that were annotated: sizes, names")
    parser.add_argument(
        "--empty", choices=("background",), help="what images without annotation become; default: they are left out"
    )
    parser.add_argument(
        "--crowd", default="class", choices=("class", "ignore"), help="what crowds of COCO become (class)"
    )
    parser.add_argument("--rgb", default=RGB, metavar="PATTERN", help=f"of the YAML, below OUT ({RGB})")
    parser.add_argument("--thermal", default=THERMAL, metavar="PATTERN", help=f"of the YAML, below OUT ({THERMAL})")
    parser.add_argument("--name", metavar="NAME", help="of the data set in results; default: that of OUT")
    parser.add_argument("--split", type=shares, metavar="0.8,0.1,0.1", help="shares of train, val and test")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of --split (0)")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    return parser


def names(text: str) -> list[str]:
    """Names between commas."""
    return [name.strip() for name in text.split(",")]


def pair(text: str) -> tuple[str, str]:
    """OLD=NEW."""
    old, separator, new = (part.strip() for part in text.partition("="))
    if not (separator and old and new):
        raise argparse.ArgumentTypeError(f"got '{text}', expected OLD=NEW, two names of labels")
    return old, new


def shares(text: str) -> list[float]:
    """Numbers between commas."""
    try:
        return [float(share) for share in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"got '{text}', expected numbers such as 0.8,0.1,0.1") from None


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.data.annotations.prepare import LabelOptions, prepare_labels

    options = LabelOptions(
        format=args.format,
        classes=args.classes,
        background=args.background,
        ignore=args.ignore,
        merge=dict(args.merge),
        images=None if args.images is None else Path(args.images),
        empty=args.empty,
        ignore_crowds=args.crowd == "ignore",
        rgb=args.rgb,
        thermal=args.thermal,
        name=args.name,
        split=args.split,
        seed=args.seed,
        force=args.force,
    )
    prepare_labels(Path(args.source), Path(args.out), options)


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
