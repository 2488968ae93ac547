"""TensorBoard's files may fail in any way; the run goes on."""

from __future__ import annotations

import importlib.util
import logging
import sys
import threading

import numpy as np
import pytest

from mdg.engine import monitor
from mdg.engine.trackers import TensorBoard

CURVES = [("loss", 0.5, 1), ("loss", 0.25, 2)]


def write(folder) -> TensorBoard:
    board = TensorBoard(folder)
    board.open()
    for point in CURVES:
        board.scalar(*point)
    board.picture("frames", np.zeros((4, 6, 3), np.uint8), 2)
    return board


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_is_written_can_be_read(tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    hook = threading.excepthook
    board = write(tmp_path / "board")
    assert board.works
    board.close()
    assert threading.excepthook is hook and not board.works
    events = reading.EventAccumulator(str(tmp_path / "board" / "tensorboard"))
    events.Reload()
    assert [(event.value, event.step) for event in events.Scalars("loss")] == [(0.5, 1), (0.25, 2)]
    assert events.Tags()["images"] == ["frames"]


@pytest.mark.parametrize("absent", ["tensorboard", "torch.utils.tensorboard"])
def test_absent(tmp_path, monkeypatch, caplog, absent):
    for name in list(sys.modules):
        if name.partition(".")[0] == "tensorboard" or name.startswith("torch.utils.tensorboard"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, absent, None)
    board = write(tmp_path)
    board.close()
    (message,) = warnings(caplog)
    assert "tensorboard" in message and "log.trackers" in message and "goes on" in message


def test_a_folder_that_cannot_be_made(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    write(tmp_path / "file" / "board").close()
    assert len(warnings(caplog)) == 1


def test_a_disk_that_fills_up_while_a_thread_writes(tmp_path, caplog, capsys, monkeypatch):
    """The writing thread ends with the error: it prints no traceback, and neither the next call nor closing waits."""
    board = TensorBoard(tmp_path / "board")
    board.open()
    worker = board._writer.file_writer.event_writer._async_writer._worker

    def full(*data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(worker._record_writer, "write", full)
    for step in range(1000):  # far more than the queue between the threads holds
        board.scalar("loss", 0.5, step)
    worker.join(60)
    assert not worker.is_alive()
    board.scalar("loss", 0.5, 1000)
    board.close()
    assert not board.works and len(warnings(caplog)) == 1 and "No space left" in warnings(caplog)[0]
    assert "Traceback" not in capsys.readouterr().err


def test_a_disk_that_is_full_when_closing(tmp_path, caplog, monkeypatch):
    board = write(tmp_path / "board")
    board._writer.file_writer.event_writer.flush()

    def full(*data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(board._writer.file_writer.event_writer._async_writer._writer, "flush", full)
    board.close()
    assert len(warnings(caplog)) == 1


def test_other_threads_still_say_what_they_fail_with(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda failure: print("told", failure.exc_type.__name__))
    board = write(tmp_path / "board")
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    board.close()
    assert "told ZeroDivisionError" in capsys.readouterr().out


def test_a_system_without_the_resource_module(monkeypatch):
    """Windows has none, and every tool imports the monitor; here a second copy of it is."""
    monkeypatch.setitem(sys.modules, "resource", None)
    spec = importlib.util.spec_from_file_location("monitor_without_resource", monitor.__file__)
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    assert copy.resource is None and copy.memory() == ""
