"""Makes a network know when not to be trusted: fits it on val, and writes that into its checkpoint.

python tools/calibrate.py --checkpoint exp/mdg/.../checkpoints/best.pt

A temperature makes probabilities mean what they say; masks stay as they are. The limits of familiar pairs let
tools/infer_mm.py mark pairs that are unlike the training. tools/val_mm.py then says what the calibration is elsewhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.utils.cli import add_opts, imports, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="calibrate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", type=user_path, metavar="FILE", help="a best.pt or last.pt; default: newest best.pt in exp/"
    )
    parser.add_argument(
        "--config", type=user_path, metavar="YAML", help="default: the configuration inside the checkpoint"
    )
    parser.add_argument("--split", default="val", help="frames that did not train the weights; default: val")
    add_opts(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.engine.trust.calibrate import calibrate

    file, trust = calibrate(args.checkpoint, args.config, split=args.split, opts=args.opts)
    print(
        f"{file}: temperature {trust.temperature:.3f}, fitted on {trust.split} ({trust.images} frames, {trust.mode}); "
        f"expected calibration error there {trust.before:.2f} % before, {trust.after:.2f} % now"
    )
    for group in trust.familiar:
        print(
            f"familiar {group.name}: {len(group.mean)} numbers over {trust.trained} training frames; 99 of 100 frames "
            f"of {trust.split} lie within {group.limit:.2f}"
        )
    print(f"what it is on other frames: python tools/val_mm.py --checkpoint {file} --split test")


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
