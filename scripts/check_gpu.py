#!/usr/bin/env python
"""Everything that needs a CUDA GPU, in one call: correctness, speed, a training run; `make gpu`.

1. The tests marked `gpu`: the CUDA backends against brute force. If one fails, nothing is measured.
2. The measurements of `make bench`.
3. A training run of some minutes, scored on the validation split.

Writes the parts of docs/benchmarks.md that need a GPU. The data set of --run-config must be there; its encoders start
from pretrained weights where their files are.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from mdg.errors import UserError
from mdg.utils.cli import add_opts, run_tool

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
NO_TESTS = 5  # pytest's exit code where it found none


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="check_gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", metavar="YAML", default="configs/mfnet/mdg_b2.yaml",
                        help="to measure, default: %(default)s")  # fmt: skip
    parser.add_argument("--run-config", metavar="YAML", help="to train, default: that of --config")
    parser.add_argument(
        "--minutes", type=float, default=8.0, metavar="N", help="of training, default 8; 0 leaves it out"
    )
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="images per step of the run, default 16")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="default: docs/benchmarks.md")
    add_opts(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    import torch

    from mdg.benchmark.page import TRAINING_RUN, around_section, training_section, write_section
    from mdg.benchmark.suite import train_for

    if not torch.cuda.is_available():
        raise UserError("PyTorch finds no CUDA GPU here; `python tools/doctor.py` says what this machine can run")
    around_section(args.page, TRAINING_RUN)
    config = args.run_config or args.config
    opts = run_options(config, args.batch, args.opts) if args.minutes > 0 else []
    print("[1/3] correctness", flush=True)
    code = subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu", "-ra"], cwd=ROOT, check=False).returncode
    if code:
        reason = "found no test" if code == NO_TESTS else f"ended with exit code {code}"
        raise UserError(f"pytest -m gpu {reason}; nothing was measured, because a wrong kernel's speed means nothing")
    print("[2/3] speed", flush=True)
    command = [sys.executable, "scripts/run_benchmarks.py", "--config", args.config, "--page", str(args.page.resolve())]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code:
        raise UserError(f"scripts/run_benchmarks.py ended with exit code {code}; see its messages above")
    if args.minutes > 0:
        print(f"[3/3] {args.minutes:g} minutes of training", flush=True)
        found = train_for(config, 60 * args.minutes, opts, fresh_run_dir(config))
        write_section(args.page, training_section(found), TRAINING_RUN)
        print(f"wrote {args.page}")


def run_options(config: str, batch: int, opts: list[str]) -> list[str]:
    """Overrides of the training run; raises UserError where its data set is missing, before hours are spent."""
    from mdg.config import load_config
    from mdg.data import build_dataset

    loaded = load_config(config, opts)
    build_dataset(loaded.data, "train")
    chosen = ["train.precision=bf16", f"train.batch_size={batch}"]
    pretrained = getattr(loaded.model, "pretrained", None)
    if pretrained is not None and not all(file.is_file() for file in (pretrained.rgb, pretrained.thermal) if file):
        print(f"{pretrained.rgb or pretrained.thermal} is missing: the encoders start from scratch", flush=True)
        chosen.append("model.pretrained=null")
    return [*chosen, *opts]


def fresh_run_dir(config: str) -> Path:
    from mdg.utils.run_directory import fresh_path

    return fresh_path(ROOT / "exp" / "check_gpu" / Path(config).stem)


if __name__ == "__main__":
    run_tool(main, parse())
