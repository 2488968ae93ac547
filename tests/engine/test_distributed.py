"""The end of a run on several processes."""

from __future__ import annotations

import sys
import threading

import torch.distributed as dist

from mdg.engine.distributed import leave_group


def test_other_threads_get_the_lock_before_a_group_is_destroyed(monkeypatch):
    """The hang itself comes too rarely to wait for."""
    go, ran, seen = threading.Event(), [], []
    thread = threading.Thread(target=lambda: (go.wait(), ran.append(True)))
    thread.start()
    monkeypatch.setattr(dist, "destroy_process_group", lambda: seen.extend(ran))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # no thread has to give the lock away
    try:
        go.set()
        leave_group()
    finally:
        sys.setswitchinterval(before)
        thread.join()
    assert seen == [True]
