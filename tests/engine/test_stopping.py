"""Signals that ask for a stop: noted once, logged by who asks, insisted on by a second one."""

from __future__ import annotations

import logging
import os
import signal

import pytest

from mdg.engine import stopping
from mdg.engine.stopping import StopSignals
from mdg.utils.launched import NAMES

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.mark.parametrize("name", NAMES)
def test_every_signal_that_asks_for_a_stop_is_noted(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert not signals.received and signals.name == ""
        signal.raise_signal(number)
        assert signals.received and signals.name == name
    assert signal.getsignal(number) is before


def test_an_ignored_signal_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert not signals.received
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_one_acts_as_usual():
    with StopSignals() as signals, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)  # its usual action would be the end
        assert signals.name == "SIGUSR1"
        signal.raise_signal(signal.SIGINT)


def test_what_a_launcher_hands_on_is_not_a_second_one(monkeypatch):
    """A cluster signals every process of a job, the launcher among them."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    now = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    with StopSignals() as signals, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        now[0] += 1
        signal.raise_signal(signal.SIGINT)
        assert signals.received
        now[0] += 10
        signal.raise_signal(signal.SIGINT)


def said(caplog):
    records = dict.fromkeys(caplog.records)  # one may come through several loggers, by what other tests have loaded
    return [record.getMessage() for record in records if record.name == "mdg.train"]


def test_the_handler_logs_nothing_and_who_asks_logs_once(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "mdg.train")
    monkeypatch.setattr(logging.getLogger("mdg"), "propagate", True)
    with StopSignals() as signals:
        assert not signals.asked()
        signal.raise_signal(signal.SIGTERM)
        assert not said(caplog)
        assert signals.asked() and signals.asked()
    assert [line.split(":")[0] for line in said(caplog)] == ["SIGTERM"]
