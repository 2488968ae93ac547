"""Threads follow what the user, the container and the system say."""

from __future__ import annotations

import os

import pytest

from mdg.utils import cores


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """Eight cores, no container, nothing asked for."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    monkeypatch.delenv(cores.ENVIRONMENT, raising=False)
    return tmp_path


def test_all_cores_are_shared_among_the_processes():
    assert cores.usable_cores() == 8
    assert [cores.threads_of_process(size) for size in (1, 2, 3, 9)] == [8, 4, 2, 1]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("250000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("1600000 100000", 8), ("", 8), ("0 0", 8)],
)
def test_a_container_may_grant_fewer(machine, limit, expected):
    (machine / "cpu.max").write_text(limit + "\n")
    assert cores.usable_cores() == expected


@pytest.mark.parametrize(("quota", "expected"), [("300000", 3), ("-1", 8)])
def test_an_older_container_too(machine, quota, expected):
    (machine / "cpu").mkdir()
    (machine / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (machine / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.usable_cores() == expected


@pytest.mark.parametrize(
    ("asked", "expected"), [("3", 3), ("16", 16), ("3,1", 3), ("", 4), ("0", 4), ("many", 4), ("-2", 4)]
)
def test_what_the_user_says_comes_first(monkeypatch, asked, expected):
    monkeypatch.setenv(cores.ENVIRONMENT, asked)
    assert cores.threads_of_process(2) == expected


def test_loader_processes_are_four_or_a_share_of_the_cores(monkeypatch):
    monkeypatch.setenv(cores.ENVIRONMENT, "1")  # the threads of a process say nothing about who reads for it
    for processes, expected in {"1": 4, "2": 4, "3": 2, "8": 1, "16": 1}.items():
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert cores.loader_processes(None) == expected
        assert [cores.loader_processes(asked) for asked in (0, 7)] == [0, 7]


def test_systems_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores.usable_cores() == 6
