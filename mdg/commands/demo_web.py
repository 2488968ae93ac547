"""Serves a page on which pairs and videos are dropped and their segmentation is looked at, on this machine alone.

python tools/demo_web.py --checkpoint exp/demo/20260101-120000/checkpoints/best.pt
python tools/demo_web.py --thermal-scaling '{mode: celsius, range: [-10, 45]}' --align rgb --port 8000

Needs Gradio: pip install "mdg[web]". Ctrl-C ends it, and removes the files that were dropped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.utils.cli import add_network, add_opts, imports, positive, run_tool


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo_web", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_network(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps; default: auto")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="default: 127.0.0.1, which this machine alone reaches"
    )
    parser.add_argument(
        "--port", type=_port, default=7860, metavar="N", help="the first one that is tried; 0: any; default: 7860"
    )
    parser.add_argument("--frames", type=positive, default=300, metavar="N", help="of a video, at most; default: 300")
    add_opts(parser)
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:6]) < 65536):
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected a whole number from 0 to 65535")
    return int(text)


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.web.serve import serve

    serve(
        args.checkpoint,
        args.config,
        device=args.device,
        opts=args.opts,
        thermal_scaling=args.thermal_scaling,
        align=args.align,
        grey_rgb=args.grey_rgb,
        host=args.host,
        port=args.port,
        frames=args.frames,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
