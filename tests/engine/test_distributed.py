"""The end of a run on several processes."""

from __future__ import annotations

import subprocess
import sys

# Freeing the group hangs about once in two thousand times, too rarely to wait for: that it is not freed is what counts.
CODE = """
import sys
import torch
import torch.distributed as dist
from mdg.engine.distributed import leave_group

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 3))
model(torch.ones(2, 3)).sum().backward()
dist.barrier()
group = dist.group.WORLD
leave_group()
assert not dist.is_initialized()
del model
assert sys.getrefcount(group) == 3, sys.getrefcount(group)  # this name, the argument, and the one never given back
print("left", flush=True)
"""


def test_a_group_is_left_and_not_freed():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and done.stdout.endswith("left\n"), done.stderr
