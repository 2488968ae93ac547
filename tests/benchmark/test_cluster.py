"""What many processes hold and exchange: by hand, and counted on the wire of eight of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid

import pytest
from commands import REPOSITORY, environment
from torch import nn

from mdg.benchmark.cluster import GIB, Sizes, estimate_table, held, measure_sizes, received_per_step
from mdg.benchmark.workload import load_settings
from mdg.commands import estimate_cluster

TINY = """
custom_imports: [reliability.tiny]
data: {type: Synthetic, height: 40, width: 48, train_images: 2, val_images: 2, test_images: 2}
model: {type: TinySegmentor}
train: {batch_size: 2}
"""
SIZES = Sizes(weights=800, largest_unit=100, rest=200, buffers=40, kept=5000)


@pytest.fixture
def tiny_yaml(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    return file


def test_what_is_exchanged_by_hand():
    assert received_per_step(SIZES, 1) == received_per_step(SIZES, 1, "fsdp2") == 0
    assert received_per_step(SIZES, 2) == 2 * 0.5 * 800 + 40
    assert received_per_step(SIZES, 8, passes=3) == 2 * 7 / 8 * 800 + 3 * 40
    # Weights twice but for the 200 of the root, gradients once.
    assert received_per_step(SIZES, 8, "fsdp2") == 7 / 8 * (800 + 600 + 800)
    assert received_per_step(SIZES, 8, "fsdp2", passes=2) == 7 / 8 * (2 * 1400 + 800)


def test_what_is_held_by_hand():
    assert held(SIZES, 8, 2, half=False, average=False) == 4 * 800 + 2 * 5000
    assert held(SIZES, 8, 2, half=True, average=True) == 5 * 800 + 5000
    assert held(SIZES, 8, 2, "fsdp2", half=False, average=False) == 400 + 200 + 200 + 10000
    assert held(SIZES, 1, 1, "fsdp2", half=False, average=False) == held(SIZES, 1, 1, half=False, average=False)


def test_the_table_holds_a_row_for_each_number_of_gpus():
    sizes = Sizes(weights=GIB, largest_unit=0, rest=0, buffers=0, kept=GIB)
    text = estimate_table(sizes, [8, 64], images=4, half=False, average=False, link_gb=25, step_ms=100)
    row = text.splitlines()[2].split("|")
    received = 2 * 7 / 8 * GIB
    expected = ["`ddp`", "8", "32", "8.00", f"{received / 1e6:.1f}", f"{received / 25e6:.1f}"]
    assert [cell.strip() for cell in row[1:7]] == expected
    assert row[7].strip() == f"{received / 25e6:.0f} %" and len(text.splitlines()) == 2 + 4


def test_sizes_are_those_of_the_network(tiny_yaml):
    """Two convolutions: 4 * 8 * 9 + 8 + 2 * 8 + 8 * 9 * 9 + 9 numbers, and what they need for their gradients."""
    sizes = measure_sizes(load_settings(tiny_yaml, height=40, width=48, mode="train"))
    assert sizes.weights == 4 * (4 * 8 * 9 + 8 + 16 + 8 * 9 * 9 + 9) and sizes.rest == sizes.weights
    assert sizes.buffers == 2 * 4 * 8 + 8 and sizes.largest_unit == 0
    pixels = 40 * 48
    # The input; the maps before and behind BatchNorm and ReLU, and behind dropout, whose mask may be numbers or bytes.
    least, most = 4 * pixels * (4 + 3 * 8), 4 * pixels * (4 + 5 * 8) + 4096
    assert least <= sizes.kept <= most


def test_the_command_prints_the_table(tiny_yaml, capsys):
    estimate_cluster.main([str(tiny_yaml), "--gpus", "8", "512", "--opts", "train.ema_decay=0.9"])
    text = capsys.readouterr().out
    assert "one image of 40x48" in text
    assert text.count("`fsdp2`") == 2 and "| 512 | 1024 |" in text


@pytest.mark.parametrize("flags", [["--gpus", "0"], ["--link", "0"], ["--step-ms", "-1"]])
def test_sizes_that_cannot_be_are_refused(flags, tiny_yaml, capsys):
    with pytest.raises(SystemExit) as stop:
        estimate_cluster.main([str(tiny_yaml), *flags])
    assert stop.value.code == 2 and flags[0] in capsys.readouterr().err


@pytest.mark.slow  # eight processes on few cores
@pytest.mark.skipif(shutil.which("ip") is None or os.geteuid() != 0, reason="needs root to make a network of its own")
@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_eight_processes_exchange_what_is_estimated(parallel):
    name = f"mdg{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        script = REPOSITORY / "tests" / "support" / "cluster.py"
        command = ["ip", "netns", "exec", name, sys.executable, script, "8", parallel]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300, check=False)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    block, norm = 4 * 700 * 700, nn.BatchNorm1d(700)
    sizes = Sizes(
        weights=4 * said["parameters"],
        largest_unit=block,
        rest=4 * said["parameters"] - 2 * block,
        buffers=sum(buffer.numel() * buffer.element_size() for buffer in norm.buffers()),
        kept=0,
    )
    expected = received_per_step(sizes, 8, parallel)
    if parallel == "fsdp2":
        expected += 7 / 8 * sizes.weights  # Gloo hands out gradients by averaging all of them, NCCL does not
    # TCP and its acknowledgements, and what the processes tell each other, come on top.
    assert said["bytes"] / (8 * expected) == pytest.approx(1.03, abs=0.04)
