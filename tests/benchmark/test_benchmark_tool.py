"""The command mdg.commands.benchmark: what it writes, and what it says of mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mdg.benchmark.workload import Settings, Workload, classes_of, flag_opts, load_settings
from mdg.commands import benchmark
from mdg.ops import available_backends, set_backend
from mdg.ops.dispatch import OPERATORS

pytestmark = pytest.mark.usefixtures("shallow")

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / "configs" / "demo.yaml"
SMALL = ["--height", 64, "--width", 96]
ONE_THREAD = ["--opts", "threads=1", "device=cpu"]
REQUIRED = {
    "params_m", "gmacs", "latency_ms", "images_per_s", "peak_memory_mb", "modules", "backends", "machine",
}  # fmt: skip


@pytest.fixture(autouse=True)
def backends_as_before():
    yield
    for operator in OPERATORS:
        set_backend(operator, None)


def run(*arguments: object) -> None:
    benchmark.main(list(map(str, arguments)))


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    """The whole command, once."""
    file = tmp_path_factory.mktemp("benchmark") / "b.json"
    repetitions = ["--steps", 2, "--warmup", 0]
    run(
        "--config",
        DEMO,
        *SMALL,
        *repetitions,
        "--backend",
        "channel_scan=torch",
        "neighborhood_attention=tiled",
        "--ops",
        "--json",
        file,
        *ONE_THREAD,
    )
    return json.loads(file.read_text())


def test_keys_and_types(found):
    assert set(found) >= REQUIRED
    assert all(found[key] > 0 for key in ("params_m", "gmacs", "images_per_s", "peak_memory_mb"))
    assert 0 < found["latency_ms"]["min"] <= found["latency_ms"]["median"] <= found["latency_ms"]["p95"]
    assert found["images_per_s"] == pytest.approx(1000 / found["latency_ms"]["median"])
    assert found["peak_memory_mb"] > found["baseline_memory_mb"] > 0
    assert (found["height"], found["width"], found["batch"], found["mode"]) == (64, 96, 1, "infer")
    assert (found["steps"], found["warmup"], found["precision"], found["threads"]) == (2, 0, "fp32", 1)
    assert found["machine"]["processor"] and found["torch"] == torch.__version__


def test_modules_add_up(found):
    rows = {row["name"]: row for row in found["modules"]}
    assert all(set(row) == {"name", "params_m", "gmacs", "ms", "share"} for row in rows.values())
    outer = [row for name, row in rows.items() if "." not in name]
    assert sum(row["params_m"] for row in outer) == pytest.approx(found["params_m"])
    assert sum(row["gmacs"] for row in outer) == pytest.approx(found["gmacs"])
    assert sum(row["share"] for row in outer) == pytest.approx(1)
    assert rows["interaction.0.mamba"]["ms"] < rows["interaction.0"]["ms"] < rows["interaction"]["ms"]
    assert rows["rgb_backbone"]["ms"] > 0 == rows["auxiliary"]["ms"]


def test_backends_in_use_are_named(found):
    assert found["backends"].keys() == {"attention", "linear", "neighborhood_attention", "channel_scan", "resized_sum"}
    assert (found["backends"]["neighborhood_attention"], found["backends"]["channel_scan"]) == ("tiled", "torch")


def test_ops_lists_every_backend_at_every_stage(found):
    for operator, stages in (("neighborhood_attention", 1), ("channel_scan", 4)):
        rows = [row for row in found["ops"] if row["operator"] == operator]
        assert len(rows) == stages * len(available_backends(operator))
        for row in rows:
            right = row["output_error"] is not None and max(row["output_error"], row["gradient_error"]) < 1e-3
            assert right or row["reason"], row
    shapes = {tuple(row["shape"]) for row in found["ops"] if row["operator"] == "channel_scan"}
    assert (16 * 24, 4, 32) in shapes  # all positions of stage 1; 2 * 2 * 32 / 32 tokens of 32


MISTAKES = {
    "unknown backend": (["--backend", "channel_scan=cuda"], ["ops.channel_scan", "'cuda'", "mamba_ssm"]),
    "unknown operator": (["--backend", "channel_scn=torch"], ["Did you mean 'channel_scan'"]),
    "no backend": (["--backend", "torch"], ["--backend torch", "operator=backend"]),
    "backend that cannot run": (["--backend", "channel_scan=mamba_ssm"], ["cannot run", "CUDA"]),
    "small images": (["--height", 16], ["16x96", "at least 32"]),
    "no images": (["--batch", 0], ["--batch 0: expected at least 1"]),
    "no steps": (["--steps", 0], ["--steps 0: expected at least 1"]),
    "mode": (["--mode", "test"], ["--mode test", "infer, train"]),
    "precision": (["--precision", "fp64"], ["train.precision", "'fp64'", "bf16"]),
    "no configuration": (["--config", "nowhere.yaml"], ["nowhere.yaml", "configs/"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(mistake, tmp_path, capsys):
    arguments, words = MISTAKES[mistake]
    file = tmp_path / "b.json"
    with pytest.raises(SystemExit) as stop:
        run("--config", DEMO, *SMALL, *arguments, "--json", file, *ONE_THREAD)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("benchmark: error: ") and "Traceback" not in error
    assert all(word in error for word in words), error
    assert not file.exists()


def settings(**changes) -> Settings:
    return load_settings(DEMO, ["threads=1", "device=cpu", *changes.pop("opts", [])], height=64, width=64, **changes)


def test_settings_survive_the_way_to_another_process():
    before = settings(mode="train", batch=3, steps=7, opts=["train.precision=bf16", "ops.channel_scan=torch"])
    assert Settings.from_plain(json.loads(json.dumps(before.plain()))) == before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_step_trains(precision):
    """Weights of all parts move, the auxiliary heads' too, and no gradient is left."""
    work = Workload(settings(mode="train", batch=2, opts=[f"train.precision={precision}"]), torch.device("cpu"))
    before = {name: value.clone() for name, value in work.model.named_parameters()}
    step = work.step()
    step()
    moved = {name.partition(".")[0] for name, value in work.model.named_parameters() if not value.equal(before[name])}
    assert moved == {"rgb_backbone", "thermal_backbone", "interaction", "fusion", "decoder", "auxiliary"}
    assert all(parameter.grad is None for parameter in work.model.parameters())


def test_checkpointing_trains_to_the_same_weights():
    """And keeps less on the way."""
    weights, kept = [], []
    for flags in (flag_opts(), flag_opts(checkpointing=True)):
        work = Workload(settings(mode="train", opts=["train.clip_grad_norm=5", *flags]), torch.device("cpu"))
        step = work.step()
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(len(weights)) or x, lambda x: x):
            step()
        weights.append(work.model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert kept.count(1) < 0.8 * kept.count(0)


def test_inference_is_evaluation_without_gradients():
    work = Workload(settings(), torch.device("cpu"))
    first, second = work.step()(), work.step()()
    assert not first.auxiliary and not first.logits.requires_grad
    assert torch.equal(first.logits, second.logits) and first.logits.shape == (1, 9, 64, 64)


def test_images_are_random_and_the_same_every_time():
    first, second = (Workload(settings(batch=2), torch.device("cpu")).images for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert first.rgb_B3HW.shape == (2, 3, 64, 64) and first.thermal_B1HW.shape == (2, 1, 64, 64)
    assert first.rgb_B3HW.dtype == torch.uint8 and first.rgb_B3HW.float().std() > 60
    assert first.label_BHW.unique().tolist() == list(range(9))


def test_classes_are_known_without_files():
    config = load_settings(REPOSITORY / "configs" / "folder" / "example.yaml").config
    assert classes_of(config.data) == (len(config.data.classes), 255)
    assert classes_of(load_settings(REPOSITORY / "configs" / "mfnet" / "mdg_b2.yaml").config.data) == (9, 255)


def test_a_place_that_takes_no_figures_is_known_before_measuring(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mdg.benchmark.run.benchmark", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(SystemExit, match="2"):
        run("--config", DEMO, *SMALL, "--json", tmp_path, *ONE_THREAD)
    assert f"--json {tmp_path}" in capsys.readouterr().err
