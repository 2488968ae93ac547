"""Writes the data set of a configuration as shards: tar files that `data.type: Shards` and WebDataset read.

python scripts/make_shards.py configs/mfnet/mdg_b2.yaml --out data/MFNet_shards
python scripts/make_shards.py configs/fmb/mdg_b2.yaml --out data/FMB_shards --frames-per-shard 100

Every split of the configuration is written: train, val and test, as far as it has them. Run it again after an
interruption: shards that are finished and whole are kept. docs/shards.md says how they are used.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mdg.utils.cli import add_opts, imports, positive, run_tool, user_path

DEFAULT_MIB = 256


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make_shards", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=user_path, help="YAML under configs/; only its data set matters")
    parser.add_argument("--out", type=user_path, required=True, metavar="DIR", help="folder for the shards")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--frames-per-shard", type=positive, metavar="N", help="frames of a shard")
    size.add_argument("--shard-mib", type=positive, metavar="M", help=f"MiB of a shard at most ({DEFAULT_MIB})")
    add_opts(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.config import load_config
        from mdg.data.shards.make import MIB, Size, make_shards

    size = Size(args.frames_per_shard, None if args.frames_per_shard else (args.shard_mib or DEFAULT_MIB) * MIB)
    made = make_shards(load_config(args.config, args.opts).data, Path(args.out), size, told=print)
    for name, split in made.content.splits.items():
        total = sum(shard.bytes for shard in split.shards) / MIB
        print(f"{name}: {len(split.frames)} frames of {split.split} in {len(split.shards)} shards, {total:.1f} MiB")
    print(f"written: {Path(args.out, 'index.json')}; use it with --opts 'data={{type: Shards, root: {args.out}}}'")


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
