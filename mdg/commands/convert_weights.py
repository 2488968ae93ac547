"""Writes the encoder in a file of weights in the layout of another library, as .pth or .safetensors.

python scripts/convert_weights.py segformer/model.safetensors pretrained/mit_b2.pth
python scripts/convert_weights.py pretrained/mit_b2.pth mit_b2.safetensors --to huggingface

The layout of the input is found by its names; that of mit_bN.pth (public) is what is written by default.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mdg.utils.cli import imports, run_tool, user_path

TARGETS = ("public", "huggingface", "openmmlab", "smp")


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convert_weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=user_path, help="file of weights of a Mix Transformer, or of a network with one")
    parser.add_argument("target", type=user_path, help="file to write; .safetensors, else as torch.save does")
    parser.add_argument("--to", default="public", choices=TARGETS, help="layout to write (public)")
    return parser


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.models.convert import convert_weights

    done = convert_weights(Path(args.source), Path(args.target), args.to)
    print(f"{args.source}: {done.tensors} tensors of an encoder in the layout of {done.layout}")
    if done.left_out:
        print(f"left out: {done.left_out} tensors that are none of the encoder")
    print(f"written: {args.target}, SHA-256 {done.sha256}")


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
