"""The commands a user types: exit codes, messages without tracebacks, several processes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import yaml
from commands import REPOSITORY, environment, shell

from mdg.data import build_dataset


def load_tool(name: str):
    spec = importlib.util.spec_from_file_location(f"tool_{name}", REPOSITORY / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_in_process(name: str, *arguments: object) -> None:
    load_tool(name).main([str(argument) for argument in arguments])


@pytest.mark.parametrize("name", ["benchmark", "benchmark_data", "check_data", "compare", "infer", "train", "val"])
def test_every_path_of_a_tool_knows_the_home_folder(name):
    """A shell replaces the ``~`` of ``--out ~/x`` and leaves that of ``--out=~/x`` alone."""
    paths = {"FILE", "DIR", "RUN_DIR", "PATH", "YAML", "CONFIG", "RUN"}
    parser = importlib.import_module(f"mdg.commands.{name}").parse()
    actions = [a for a in parser._actions if a.metavar in paths or a.dest == "config"]
    actions = [a for a in actions if a.dest != "thermal_scaling"]  # YAML itself, not a file of it
    assert actions
    for action in actions:
        assert action.type is not None and action.type("~/x") == os.path.expanduser("~/x"), action.dest


MISTAKES = {
    "unknown key": (["train.epoch=3"], ["train.epoch", "Did you mean 'epochs'"]),
    "missing data root": (["data={type: MFNet, root: /nowhere}"], ["/nowhere", "data.root", "make demo"]),
    "missing weights": (
        ["model={type: MDG, rgb_backbone: b0, thermal_backbone: b0, pretrained: {rgb: mit_b0.pth}}"],
        ["mit_b0.pth", "fetch_weights.py mit_b0", "model.pretrained=null"],
    ),
    "no such backend": (["ops.channel_scan=cuda"], ["ops.channel_scan", "mamba_ssm"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_leaves_nothing(mistake, tiny_yaml, tmp_path, capsys):
    opts, words = MISTAKES[mistake]
    with pytest.raises(SystemExit) as stop:
        run_in_process("train", tiny_yaml, "--run-dir", tmp_path / "run", "--opts", *opts)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("train: error: ") and "Traceback" not in error
    assert all(word in error for word in words), error
    assert not (tmp_path / "run").exists()


def test_train_wants_a_configuration(capsys):
    with pytest.raises(SystemExit):
        run_in_process("train")
    assert "configs/demo.yaml" in capsys.readouterr().err


def test_val_without_arguments_takes_the_newest_run(tiny_run, tiny_yaml, tmp_path, capsys, monkeypatch):
    run = tiny_run("exp/tiny/1", "train.epochs=1")
    monkeypatch.chdir(tmp_path)
    run_in_process("val_mm", "--config", tiny_yaml, "--json", tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["checkpoint"].endswith("exp/tiny/1/checkpoints/best.pt")
    assert (run.path / "results" / "test" / "results.json").is_file()


@pytest.mark.slow  # two launches; test_sharding.py trains and counts with two processes, in one
def test_two_processes_are_launched_train_and_count_the_same_integers(tiny_yaml, tmp_path):
    """`NPROC=2 bash tools/train_ddp.sh`, then the checkpoint scored by one process and by two."""
    run = tmp_path / "run"
    command = ["bash", REPOSITORY / "tools" / "train_ddp.sh", tiny_yaml, "--run-dir", run]
    done = shell(*command, "--opts", "train.epochs=2", NPROC="2")
    assert done.returncode == 0, done.stderr
    assert "2 process(es)" in done.stdout
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    val = ["--config", tiny_yaml, "--checkpoint", run / "checkpoints" / "best.pt", "--json"]
    run_in_process("val_mm", *val, files[0])
    done = shell("bash", REPOSITORY / "tools" / "val_ddp.sh", *val, files[1], NPROC="2")
    assert done.returncode == 0, done.stderr
    one, two = (json.loads(file.read_text()) for file in files)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["confusion_matrix"] == two["confusion_matrix"] and one["groups"] == two["groups"]
    assert one["images"] == two["images"] == 5


def test_a_signal_to_the_whole_group_stops_cleanly(tiny_yaml, tmp_path):
    """Ctrl-C reaches the loader processes too; the run still ends with a saved step."""
    run = tmp_path / "run"
    command = [sys.executable, REPOSITORY / "tools" / "train.py", tiny_yaml, "--run-dir", run]
    process = subprocess.Popen(
        [*map(str, command), "--opts", "train.epochs=100000", "pipeline.workers=2", "log.every_steps=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=environment(),
    )
    for line in process.stdout:
        if "step 3/" in line:
            os.killpg(process.pid, signal.SIGINT)
            break
    rest = process.stdout.read()
    assert process.wait(timeout=60) == 75, rest
    assert re.search("stopped (in|behind) epoch", rest) and "Traceback" not in rest
    assert (run / "checkpoints" / "last.pt").is_file()


@pytest.mark.slow  # every launch imports PyTorch twice
def test_more_processes_than_images_is_a_message(tiny_yaml, tmp_path):
    done = shell(
        "bash",
        REPOSITORY / "tools" / "train_ddp.sh",
        tiny_yaml,
        "--run-dir",
        tmp_path / "run",
        "--opts",
        "data.val_images=1",
        NPROC="2",
    )
    assert done.returncode == 2
    assert done.stderr.count("more processes (2) than images (1)") == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("script, tool", [("train_ddp.sh", "train.py"), ("val_ddp.sh", "val_mm.py")])
def test_what_a_script_launches(script, tool, tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    launched = ["-m", "mdg.launch", "--nproc-per-node", "2", "--max-restarts", "0", "--grace", "600"]
    for processes, launcher in (("1", []), ("2", launched)):
        done = shell("bash", REPOSITORY / "tools" / script, "x.yaml", "--opts", "a=1", NPROC=processes, PYTHON=python)
        expected = [*launcher, str(REPOSITORY / "tools" / tool), "x.yaml", "--opts", "a=1"]
        assert done.returncode == 0 and done.stdout.split() == expected, done.stderr


def test_wrong_number_of_processes():
    done = shell("bash", REPOSITORY / "tools" / "train_ddp.sh", "x.yaml", NPROC="two")
    assert done.returncode == 2 and "NPROC=two" in done.stderr


@pytest.fixture
def b0_checkpoint(tiny_run, tiny_yaml, shallow):
    """A checkpoint without custom imports, from one step of the small MDG."""
    config = yaml.safe_load(tiny_yaml.read_text()) | {
        "custom_imports": [],
        "data": {"type": "Synthetic", "height": 64, "width": 64, "train_images": 2},
    }
    tiny_yaml.write_text(yaml.safe_dump(config))
    return tiny_run(
        "b0", "model={type: MDG, rgb_backbone: b0, thermal_backbone: b0}", "train.max_steps=1", "train.batch_size=1"
    ).last


def test_masks_for_pairs_folders_and_four_channels(b0_checkpoint, tmp_path, capsys):
    frame = build_dataset({"type": "Synthetic", "height": 50, "width": 70}, "test").read(0)
    bgr = np.ascontiguousarray(frame.rgb_HW3[..., ::-1])
    for folder in ("rgb", "thermal", "packed"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / "rgb" / f"{name}.png"), bgr)
        cv2.imwrite(str(tmp_path / "thermal" / f"{name}.png"), frame.thermal_HW)
    cv2.imwrite(str(tmp_path / "packed" / "c.png"), np.dstack([bgr, frame.thermal_HW]))
    common = ["--checkpoint", b0_checkpoint, "--out", tmp_path / "masks"]
    run_in_process("infer_mm", "--rgb", tmp_path / "rgb", "--thermal", tmp_path / "thermal", *common)
    run_in_process("infer_mm", "--rgb", tmp_path / "packed", *common)
    masks = [cv2.imread(str(tmp_path / "masks" / f"{name}_mask.png"), cv2.IMREAD_UNCHANGED) for name in "abc"]
    assert all(mask.shape == (50, 70) and mask.max() < 9 for mask in masks)
    assert np.array_equal(masks[0], masks[2])  # the same scene by either way
    assert cv2.imread(str(tmp_path / "masks" / "a_overlay.png")).shape[1] == 70
    with pytest.raises(SystemExit):
        run_in_process("infer_mm", "--rgb", tmp_path / "packed", *common)
    assert "c_overlay.png exists and is not overwritten" in capsys.readouterr().err
    (tmp_path / "thermal" / "b.png").unlink()
    with pytest.raises(SystemExit):
        run_in_process("infer_mm", "--rgb", tmp_path / "rgb", "--thermal", tmp_path / "thermal", *common)
    assert "have no partner of the same name in" in capsys.readouterr().err
