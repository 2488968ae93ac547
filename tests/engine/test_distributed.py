"""What processes tell each other, how they come together and part. Launches of real ones: test_launch.py."""

from __future__ import annotations

import json
import os
import sys
import threading

import pytest
import torch
import torch.distributed as dist
from torch import nn

from mdg.engine import process_group
from mdg.engine.distributed import World, broadcast_buffers, compare_processes
from mdg.engine.process_group import Control, leave_group, told_reason
from mdg.errors import ConfigError, DataError, MachineError
from mdg.utils import launched
from mdg.utils.launched import launch_id, restart_count


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


# --- one process -------------------------------------------------------------------------------------------------


def test_one_process_agrees_with_itself():
    world = World()
    assert [world.vote(flag) for flag in (False, True, False)] == [False, True, False]
    assert world.any(True) and not world.any(False)
    compare_processes(world, {"code": "1"})
    asked = iter([False, False, True])
    assert list(world.until_stopped(range(5), lambda: next(asked))) == [0, 1]


# --- the others --------------------------------------------------------------------------------------------------


def test_a_difference_names_the_fact_and_who_has_which(monkeypatch):
    facts = [
        {"code": "a", "torch": "2.12"},
        {"code": "b", "torch": "2.12"},
        {"code": "a", "torch": "2.12", "data": "x"},
    ]
    monkeypatch.setattr(
        dist, "all_gather_object", lambda gathered, mine, group: gathered.__setitem__(slice(None), facts)
    )
    with pytest.raises(ConfigError) as caught:
        compare_processes(World(1, 3), facts[1])
    assert "code (processes 0, 2: a; process 1: b); data (processes 0, 1: absent; process 2: x)" in str(caught.value)
    assert "torch (" not in str(caught.value)


def test_buffers_of_the_main_process_replace_those_of_all(monkeypatch):
    """Floats and counters, in place, one operation per type."""
    mine, theirs = (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1), nn.BatchNorm1d(2)) for _ in range(2))
    for number, buffer in enumerate(theirs.buffers()):
        buffer.copy_(torch.arange(buffer.numel()).view(buffer.shape) + 10 * number + 1)
    sent = {
        dtype: torch.cat([buffer.reshape(-1) for buffer in theirs.buffers() if buffer.dtype == dtype])
        for dtype in (torch.float32, torch.int64)
    }
    operations = []

    def broadcast(flat, src, group):
        operations.append((flat.dtype, src))
        flat.copy_(sent[flat.dtype])

    monkeypatch.setattr(dist, "broadcast", broadcast)
    places = [buffer.data_ptr() for buffer in mine.buffers()]
    broadcast_buffers(World(1, 2), mine)
    assert all(torch.equal(one, other) for one, other in zip(mine.buffers(), theirs.buffers(), strict=True))
    assert places == [buffer.data_ptr() for buffer in mine.buffers()]
    assert sorted(operations, key=str) == [(torch.float32, 0), (torch.int64, 0)]


def test_a_stop_called_by_another_process_ends_the_items():
    store = dist.HashStore()
    seen = []
    for item in World(0, 2, control=Control(store)).until_stopped(range(10), lambda: False):
        seen.append(item)
        if item == 3:
            Control(store).call_stop()
    assert seen == [0, 1, 2, 3]
    assert list(World(1, 2, control=Control(dist.HashStore())).until_stopped(range(3), lambda: True)) == []


LOST = RuntimeError(
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1"
)


def test_the_reason_of_one_process_is_what_the_others_end_with():
    store = dist.HashStore()
    own = DataError("images/3.png: broken")
    assert told_reason(own, Control(store), 1) is own
    told = told_reason(LOST, Control(store), 0)
    assert str(told) == "process 1: images/3.png: broken" and told.exit_code == 2


def test_a_failure_ends_the_shares_of_the_others():
    """Without it a process would first validate all of its images."""
    store, seen = dist.HashStore(), []
    for item in World(0, 2, control=Control(store)).until_stopped(range(10), lambda: False):
        seen.append(item)
        if item == 3:
            told_reason(DataError("images/3.png: broken"), Control(store), 1)
    assert seen == [0, 1, 2, 3]


def test_an_unforeseen_error_of_another_process_is_not_a_mistake_of_the_user():
    store = dist.HashStore()
    told_reason(KeyError("oops"), Control(store), 1)
    assert json.loads(store.get("reason")) == {"rank": 1, "code": 1, "text": "KeyError: 'oops'"}
    assert told_reason(LOST, Control(store), 0).exit_code == 1


@pytest.mark.parametrize(
    "text",
    [
        str(LOST),
        "[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 2000ms for recv",
        "Application timeout caused pair closure",  # the first to notice closes its connections: what others then see
        "Remote peer closed the connection.",
        "Connection reset by peer",
        "NCCL communicator was aborted on rank 0.",
    ],
)
def test_contact_lost_without_a_reason(monkeypatch, text):
    monkeypatch.setattr("mdg.engine.process_group.SECONDS_FOR_A_REASON", 0.01)
    told = told_reason(RuntimeError(text), Control(dist.HashStore()), 0)
    assert isinstance(told, MachineError) and str(told).startswith("lost contact with another process")
    assert text in str(told) and told.exit_code == 3


def test_an_error_that_has_nothing_to_do_with_contact_is_ones_own():
    own = RuntimeError("shapes do not match")
    assert told_reason(own, Control(dist.HashStore()), 0) is own


def test_names_of_launches(monkeypatch):
    for name in ("MDG_LAUNCH_ID", "MDG_RESTARTS", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    assert launch_id() is None and restart_count() == 0
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    of_torchrun = launch_id()
    assert of_torchrun.startswith("none-") and str(os.getppid()) in of_torchrun and restart_count() == 2
    assert launch_id() == of_torchrun
    monkeypatch.setattr(launched, "_start_of", lambda process: "another")
    assert launch_id() != of_torchrun  # the number of a process came back
    monkeypatch.setenv("MDG_LAUNCH_ID", "ours")
    assert launch_id() == "ours"


class Silent(dist.Store):
    """As a store behind a cable that was pulled: no answer, no error."""

    def __init__(self, wait: threading.Event):
        super().__init__()
        self.held = wait

    def set(self, key, value):
        self.held.wait()

    def check(self, keys):
        self.held.wait()

    def wait(self, keys, timeout):
        self.held.wait()


@pytest.fixture
def silent(monkeypatch):
    monkeypatch.setattr(process_group, "SECONDS_FOR_A_REASON", 0.1)
    monkeypatch.setattr(process_group, "SECONDS_FOR_AN_ANSWER", 0.1)
    over = threading.Event()
    yield Silent(over)
    over.set()


@pytest.mark.parametrize(
    "error", [DataError("no such file"), dist.DistBackendError("lost"), RuntimeError("gloo: lost")]
)
def test_a_store_that_never_answers_holds_nobody(silent, error):
    told = told_reason(error, Control(silent), 1)
    assert told is error if isinstance(error, DataError) else "lost contact with another process" in str(told)


def test_a_store_that_does_not_answer_is_not_asked_again(silent):
    control = Control(silent)
    assert not control.stop_called() and control.store is None
    control.call_stop()
    assert list(World(1, 2, control=control).until_stopped(range(3), lambda: False)) == [0, 1, 2]
    assert Control(silent).call_stop() is None


def test_an_answer_or_an_error_comes_through():
    assert process_group.within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        process_group.within(5, lambda: 1 / 0)


def test_a_meeting_without_an_answer_names_who_keeps_the_store(silent, monkeypatch):
    monkeypatch.setattr(process_group, "_connect", lambda *_: silent)
    monkeypatch.setattr(dist, "PrefixStore", lambda _, store: store)
    with pytest.raises(MachineError, match="process 0 of 2"):
        process_group.meet(1, 2, 0.1)
