"""Writes trained weights as people pass them on: a slim .safetensors file, its configuration and a model card.

python tools/export_weights.py exp/mdg_b2/<time>
python tools/export_weights.py exp/mdg_b2/<time>/checkpoints/last.pt --precision bf16 --out shared/mdg_b2

Optimizer, names of frames and paths of this machine stay here. infer_mm, val_mm and train.init_from take the file
where they take a checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mdg.utils.cli import imports, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="export_weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=user_path, metavar="RUN", help="run directory (its best.pt), or a checkpoint")
    parser.add_argument("--out", type=user_path, metavar="DIR", help="default: export/ in the run directory")
    parser.add_argument("--name", default="", help="of the file of weights; default: the name of the run")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help="of the matrices (fp32)")
    parser.add_argument("--frame-names", action="store_true", help="tell the names of the frames it was trained on")
    return parser


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.engine.export import export_weights, told_lines

    done = export_weights(
        Path(args.source),
        None if args.out is None else Path(args.out),
        name=args.name,
        precision=args.precision,
        frame_names=args.frame_names,
    )
    print("\n".join(told_lines(done)))


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
