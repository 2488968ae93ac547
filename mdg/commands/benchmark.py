"""Measures a network: parameters, multiply-accumulates, latency, images/s, peak memory, and the same by module.

Images are random and weights untrained: neither changes what a pass costs. Latency is that of images on the device to
logits (infer) or of one whole optimizer step (train). Peak memory is that of a process of its own. Precision, backends
and compilation are those of the configuration unless a flag says otherwise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.utils.cli import add_opts, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", type=user_path, metavar="YAML", required=True, help="such as configs/mfnet/mdg_b2.yaml"
    )
    parser.add_argument("--height", type=int, default=480, metavar="N", help="of the images, default 480")
    parser.add_argument("--width", type=int, default=640, metavar="N", help="of the images, default 640")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images per pass, default 1")
    parser.add_argument("--mode", default="infer", metavar="infer|train", help="a forward pass, or an optimizer step")
    parser.add_argument("--backend", nargs="+", action="extend", default=[], metavar="OPERATOR=BACKEND",
                        help="such as neighborhood_attention=tiled channel_scan=numba")  # fmt: skip
    parser.add_argument("--precision", metavar="fp32|bf16|fp16", help="default: train.precision")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network")
    parser.add_argument(
        "--cuda-graphs", action="store_true", help="in inference on a GPU, record the pass and replay it"
    )
    parser.add_argument(
        "--checkpointing", action="store_true", help="in training, compute activations again instead of keeping them"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="measured; default 10 (train 5), GPU 100 (train 30)")
    parser.add_argument("--warmup", type=int, metavar="N", help="before them; default 2 (train 1), GPU 10 (train 5)")
    parser.add_argument("--ops", action="store_true", help="race all backends of the operators at the network's shapes")
    parser.add_argument("--json", type=user_path, metavar="FILE", help="write the figures there too")
    add_opts(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from mdg.benchmark.page import print_benchmark
    from mdg.benchmark.run import benchmark
    from mdg.benchmark.workload import flag_opts, load_settings
    from mdg.utils.files import require_writable, write_json
    from mdg.utils.logging import console

    if args.json:
        require_writable(args.json, "--json")
    opts = [*args.opts, *flag_opts(args.backend, args.precision, args.compile, args.checkpointing, args.cuda_graphs)]
    sizes = {name: getattr(args, name) for name in ("height", "width", "batch", "mode", "steps", "warmup")}
    found = benchmark(load_settings(args.config, opts, **sizes), ops=args.ops)
    print_benchmark(found, console)
    if args.json:
        write_json(args.json, found)


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
