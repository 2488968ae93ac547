"""A trained network as a file for other runtimes, with everything inside that lies between images and a mask.

python tools/export.py --checkpoint best.pt --out mdg.onnx
python tools/export.py --checkpoint best.pt --dynamic --check photo.png heat.png
python tools/export.py --checkpoint best.pt --format torch-export
python tools/export.py --checkpoint best.pt --int8 --score val

The file takes `rgb` [B, 3, H, W] and `thermal` [B, 1, H, W], float32 in 0..255. It is run at once, beside the network;
where they do not agree nothing is kept. Its metadata tell classes, colours, size, thermal scaling and scores.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mdg.utils.cli import add_checkpoint, add_opts, imports, positive, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_checkpoint(parser)
    parser.add_argument("--format", default="onnx", choices=("onnx", "torch-export", "torchscript"), help="(onnx)")
    parser.add_argument("--out", type=user_path, metavar="FILE", help="default: export/ in the run directory")
    parser.add_argument("--size", type=_size, metavar="HxW", help="of the images; default: that of the evaluation")
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="images at once (1)")
    parser.add_argument("--dynamic", action="store_true", help="any batch, height and width, in multiples of 32")
    parser.add_argument(
        "--output",
        nargs="+",
        default=["mask", "probabilities"],
        choices=("mask", "probabilities", "logits"),
        metavar="WHAT",
        help="mask, probabilities, logits (mask probabilities)",
    )
    parser.add_argument("--opset", type=int, default=20, metavar="N", help="of ONNX (20)")
    parser.add_argument(
        "--check", nargs="+", type=user_path, metavar="PATH", help="a pair to check with; default: validation frames"
    )
    parser.add_argument("--int8", action="store_true", help="encoders in eight bits; states what that changes")
    parser.add_argument(
        "--calibration", nargs=2, type=user_path, metavar="DIR", help="RGB and thermal; default: the train split"
    )
    parser.add_argument("--pairs", type=positive, default=64, metavar="N", help="to calibrate with (64)")
    parser.add_argument("--score", metavar="SPLIT", help="mIoU of the network and of the file: train, val or test")
    parser.add_argument("--time", type=positive, default=0, metavar="N", help="median time of N calls of each runtime")
    add_opts(parser)
    return parser


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"got {text}, expected HEIGHTxWIDTH such as 480x640")
    return int(found[1]), int(found[2])


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.engine.deploy.export_network import Choices, export_network, told_lines
        from mdg.errors import ConfigError

    if args.check is not None and len(args.check) > 2:
        raise ConfigError(f"--check: got {len(args.check)} files, expected RGB and thermal, or one of four channels")
    check = None
    if args.check is not None:
        check = Path(args.check[0]), Path(args.check[1]) if len(args.check) == 2 else None
    calibration = None if args.calibration is None else (Path(args.calibration[0]), Path(args.calibration[1]))
    if args.format == "torchscript":
        print("PyTorch has deprecated TorchScript: take onnx or torch-export where you can", file=sys.stderr)
    choices = Choices(
        format=args.format,
        size=args.size,
        batch=args.batch,
        dynamic=args.dynamic,
        outputs=args.output,
        opset=args.opset,
        check=check,
        int8=args.int8,
        calibration=calibration,
        pairs=args.pairs,
        score=args.score,
        time=args.time,
    )
    done = export_network(args.checkpoint, args.config, out=args.out, opts=args.opts, choices=choices)
    print("\n".join(told_lines(done)))


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
