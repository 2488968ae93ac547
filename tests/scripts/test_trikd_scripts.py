"""scripts/train_trikd.sh and scripts/eval.sh on a generated Cityscapes: what they hand on, and a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from commands import REPOSITORY, shell
from layouts import write_cityscapes, write_cityscapes_list

from mdg.config import load_config
from mdg.engine.checkpoint import load_checkpoint

TRAIN, EVAL = REPOSITORY / "scripts" / "train_trikd.sh", REPOSITORY / "scripts" / "eval.sh"
DECODER = "{type: DualFrequencyDecoder, level_widths: [8, 8, 8, 8], embed_dim: 8}"
CNN = f"{{type: SingleStream, backbone: {{type: Timm, name: resnet10t}}, decoder: {DECODER}}}"
VIT_ENCODER = "{type: PlainViT, name: vit_tiny_patch16_224, blocks: [1, 2, 3, 4], width: 8}"
VIT = f"{{type: SingleStream, backbone: {VIT_ENCODER}, decoder: {DECODER}}}"
SMALL = [
    "model.backbone.name=tiny_vit_5m_224",
    f"model.decoder={DECODER}",
    f"train.method.cnn_view={CNN}",
    f"train.method.vit_view={VIT}",
    "pipeline.train=[{type: RandomResizedCrop, size: [64, 64], scale: [1.0, 2.0]}]",
    "pipeline.workers=0",
    "eval.window=[64, 64]",
    "eval.stride=[43, 43]",
    "train.epochs=1",
    "train.precision=fp32",
    "log.trackers=[]",
    "device=cpu",
]


@pytest.fixture
def told(tmp_path):
    """Runs a script with a Python that notes its arguments."""
    python = tmp_path / "python"
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)

    def run(script: Path, *arguments: object, **variables: object):
        given = {"PYTHON": str(python), "NPROC": "1", "PRETRAINED": str(tmp_path / "none")}
        return shell("bash", script, *arguments, **given | {name: str(value) for name, value in variables.items()})

    return run


@pytest.mark.parametrize("size", ["11m", "21m"])
@pytest.mark.parametrize("split", ["1_30", "1_16", "1_8", "1_4", "1_2"])
def test_what_it_hands_on_is_a_configuration(told, split, size):
    """With all three networks from scratch, which is said of each."""
    done = told(TRAIN, split, size, "seed=5")
    tool, config, flag, *opts = done.stdout.splitlines()
    assert done.returncode == 0 and tool.endswith("tools/train.py") and flag == "--opts"
    run = load_config(config, opts)
    assert run.name == f"{split}_trivn_{size}" and run.seed == 5 and run.eval.selection == "last"
    method = run.train.method
    assert run.model.pretrained is None and method.cnn_view.pretrained is None and method.vit_view.pretrained is None
    assert done.stderr.count("FROM SCRATCH") == 3 and "BEST ON VAL" in done.stderr
    assert (method.low_weight, method.high_weight, method.cps_weight) == ({"11m": 0.9, "21m": 0.5}[size], 0.5, 0.1)


def test_weights_lists_seeds_and_selection(told, tmp_path):
    (tmp_path / "w").mkdir()
    for name in ("tiny_vit_11m_224.safetensors", "resnet101d.pth"):
        (tmp_path / "w" / name).touch()
    (tmp_path / "labeled.txt").touch()
    data = {"ROOT": tmp_path, "PRETRAINED": tmp_path / "w"}
    done = told(TRAIN, "1_8", "11m", LIST=tmp_path / "labeled.txt", SELECT="holdout", **data)
    _, config, _, *opts = done.stdout.splitlines()
    run = load_config(config, opts)
    assert run.model.pretrained == tmp_path / "w" / "tiny_vit_11m_224.safetensors"
    assert run.train.method.cnn_view.pretrained == tmp_path / "w" / "resnet101d.pth"
    assert run.train.method.vit_view.pretrained is None and done.stderr.count("FROM SCRATCH") == 1
    assert run.data.root == tmp_path and run.data.holdout == 0.1 and run.eval.selection == "val"
    assert run.data.labelled.list == tmp_path / "labeled.txt" and run.data.labelled.fraction is None
    _, config, _, *opts = told(TRAIN, "1_8", "11m", SEED=7, **data).stdout.splitlines()
    assert load_config(config, opts).data.labelled.seed == 7


@pytest.mark.parametrize(
    ("script", "arguments", "variables", "words"),
    [
        (TRAIN, ["1_16"], {}, "got 1 arguments, expected SPLIT"),
        (TRAIN, ["1_3", "11m"], {}, "SPLIT: got 1_3, expected 1_30, 1_16"),
        (TRAIN, ["1_16", "5m"], {}, "SIZE: got 5m, expected 11m or 21m"),
        (TRAIN, ["1_16", "11m"], {"LIST": "/no/labeled.txt"}, "LIST=/no/labeled.txt: no such file"),
        (TRAIN, ["1_16", "11m"], {"SELECT": "best"}, "SELECT=best: expected last or holdout"),
        (EVAL, [], {}, "expected CHECKPOINT"),
        (EVAL, ["/no.pt"], {}, "/no.pt: no such file"),
        (EVAL, [REPOSITORY / "README.md", "vall"], {}, "SPLIT: got vall, expected test, val or train"),
    ],
)
def test_a_mistake_is_a_line(told, script, arguments, variables, words):
    done = told(script, *arguments, **variables)
    assert done.returncode == 2 and words in done.stderr and not done.stdout


def test_a_run_and_its_score(tmp_path):
    """From scratch, the labels of a list of U2PL; label files of all other frames are not even there."""
    root = write_cityscapes(tmp_path / "cityscapes", train=6, val=2)
    listed = write_cityscapes_list(tmp_path / "labeled.txt", "train", [0, 3])
    wanted = {Path(line.split()[1]).name for line in listed.read_text().splitlines()}
    for file in (root / "gtFine" / "train").rglob("*.png"):
        if file.name not in wanted:
            file.unlink()
    variables = {"PYTHON": sys.executable, "NPROC": "1", "PRETRAINED": str(tmp_path / "none")}
    where = {"ROOT": str(root), "LIST": str(listed)}
    run = tmp_path / "run"
    done = shell("bash", TRAIN, "1_16", "11m", *SMALL, "--run-dir", run, **variables, **where)
    assert done.returncode == 0, done.stderr
    best, last = (load_checkpoint(run / "checkpoints" / f"{name}.pt") for name in ("best", "last"))
    assert {name.partition(".")[0] for name in best["model"]} == {"backbone", "decoder"}
    assert {"student", "cnn", "vit"} < {name.partition(".")[0] for name in last["model"]}
    done = shell("bash", EVAL, run, "test", "--json", tmp_path / "score.json", **variables)
    assert done.returncode == 0 and "BEST ON VAL" in done.stderr, done.stderr
    protocol = json.loads((tmp_path / "score.json").read_text())["protocol"]
    assert protocol["images"] == 2 and protocol["mode"] == "sliding window 64x64, stride 43x43, RGB alone"
    assert "train, those of labeled.txt with labels (2 frames" in protocol["trained_on"]
    assert "(4 frames" in protocol["trained_on"]
