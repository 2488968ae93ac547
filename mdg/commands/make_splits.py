"""Writes lists of the frames whose labels count, by fraction and seed, scene by scene.

python scripts/make_splits.py configs/mfnet/mdg_b2.yaml --fractions 1/16 1/8 --seeds 0 1 --out splits
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.utils.cli import add_opts, imports, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make_splits", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=user_path, help="YAML under configs/")
    parser.add_argument(
        "--fractions", nargs="+", default=["1/16", "1/8", "1/4", "1/2"], metavar="F", help="such as 1/16"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N", help="(0)")
    parser.add_argument("--out", type=user_path, default="splits", metavar="DIR", help="default: splits")
    add_opts(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    with imports():
        from pathlib import Path

        from mdg.config import load_config
        from mdg.data.base import UNLABELLED
        from mdg.data.build import open_dataset
        from mdg.utils.files import write_text

    folder = Path(args.out)
    for fraction in args.fractions:
        for seed in args.seeds:
            chosen = f"data.labelled={{fraction: {fraction}, seed: {seed}}}"
            data = load_config(args.config, [*args.opts, chosen]).data
            named = f"{fraction.replace('/', '_').replace(' ', '')}_seed{seed}"
            for role, word in (("train", "labelled"), (UNLABELLED, "unlabelled")):
                dataset = open_dataset(data, role)
                file = folder / f"{named}_{word}.txt"
                write_text(file, "".join(f"{name}\n" for name in dataset.names))
                print(f"{file}: {len(dataset)} frames, {dataset.fingerprint()[:8]}")
    print("train on a list with --opts 'data.labelled={list: FILE}'")


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
