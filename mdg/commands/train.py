"""Trains a configuration, or resumes a run. Several processes: bash tools/train_ddp.sh."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.errors import ConfigError
from mdg.utils.cli import EXIT_STOPPED, add_opts, imports, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train", description=__doc__)
    parser.add_argument(
        "config", type=user_path, nargs="?", help="YAML under configs/; with --resume the run's own by default"
    )
    parser.add_argument(
        "--config", type=user_path, dest="config_option", metavar="CONFIG", help="the same, spelt as an option"
    )
    parser.add_argument(
        "--resume", type=user_path, metavar="RUN_DIR", help="continue this run exactly where it stopped"
    )
    parser.add_argument("--allow-changes", action="store_true",
                        help="resume with another configuration, code or data; scores then say so")  # fmt: skip
    parser.add_argument(
        "--run-dir", type=user_path, metavar="DIR", help="keep the run here instead of exp/NAME/TIME; must be empty"
    )
    add_opts(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    config = args.config or args.config_option
    if config is None and args.resume is None:
        raise ConfigError("name a configuration, for instance configs/demo.yaml, or a run to continue with --resume")
    if args.resume is not None and args.run_dir is not None:
        raise ConfigError("--resume continues in the run's own folder; leave --run-dir out")

    with imports():
        from mdg.engine.train import run_training  # after the arguments are known to be good: torch takes seconds

    outcome = run_training(
        config, args.opts, resume=args.resume, run_dir=args.run_dir, allow_changes=args.allow_changes
    )
    return EXIT_STOPPED if outcome.stopped else 0


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
