"""One process of a launch: says what happens and behaves as told.

Options that name a process concern that one alone, and --kill the first attempt of a launch alone.
"""

from __future__ import annotations

import argparse
import os
import signal

import torch
from torch import nn

from mdg.engine.distributed import World, broadcast_buffers, compare_processes, distributed
from mdg.engine.stopping import StopSignals
from mdg.errors import DataError
from mdg.utils.cli import EXIT_STOPPED, run_tool
from mdg.utils.launched import launch_id, restart_count


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())  # lines of several processes stay whole


def agree(world: World) -> None:
    """What both processes should print alike."""
    votes = [world.vote(world.rank == 1 and call == 2) for call in range(5)]
    norm = nn.BatchNorm2d(3)
    norm.running_mean.fill_(world.rank + 1)
    norm.num_batches_tracked.fill_(world.rank + 7)
    broadcast_buffers(world, norm)
    items = list(world.until_stopped(range(3 + world.rank), lambda: False))  # uneven shares
    stopped = world.any(False)
    endless = world.until_stopped(iter(int, 1), lambda: world.rank == 0)  # one is asked, the other is busy
    say("agree", votes, norm.running_mean.tolist(), int(norm.num_batches_tracked), len(items) - world.rank, stopped)
    say("ended", sum(endless), world.any(world.rank == 0))


def main(args: argparse.Namespace) -> int:
    rank = int(os.environ["RANK"])
    say("begin", rank, os.getpid(), launch_id(), restart_count())
    with distributed("cpu", 1, args.timeout) as world, StopSignals() as signals:
        if args.differ:
            compare_processes(world, {"configuration": "same", "code": f"version{rank}"})
        if rank == args.fail:
            raise DataError("images/3.png: broken")
        if args.agree:
            agree(world)
        world.barrier()
        say("ready", rank)
        if rank == args.kill and restart_count() == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        for step in range(args.steps):
            world.sum(torch.ones(3))
            if world.vote(signals.received):
                world.barrier()
                say("saved", rank, step, signals.name)
                return EXIT_STOPPED
    say("done", rank)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="ranks")
    parser.add_argument("--agree", action="store_true")
    parser.add_argument("--differ", action="store_true")
    for name, default in (("--fail", None), ("--kill", None), ("--steps", 3)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--timeout", type=float, default=60)
    run_tool(main, parser)
