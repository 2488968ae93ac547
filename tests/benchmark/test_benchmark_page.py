"""The generated part of docs/benchmarks.md and the commands behind it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from mdg.benchmark.page import BENCH, TRAINING_RUN, markers, section, training_section, write_section
from mdg.benchmark.suite import Entry, Result, pipeline, run_entry, suite
from mdg.errors import UserError

BEGIN, END = markers("some part")
REPOSITORY = Path(__file__).resolve().parents[2]
ENTRY = Entry("inference, batch 1", "mdg.commands.benchmark", ("--config", "a.yaml", "--ops"))
PIPELINE = Entry("input pipeline", "mdg.commands.benchmark_data", ("--config", "a.yaml"))
RACE = {
    "operator": "channel_scan", "module": "interaction.0.mamba.scans", "calls": 1, "shape": [192, 8, 32],
    "forward_ms": None, "training_ms": None, "output_error": None, "gradient_error": None,
}  # fmt: skip
FOUND = {
    "config": "mdg_b2", "height": 480, "width": 640, "precision": "fp32", "device": "cpu", "threads": 2,
    "torch": "2.12.1", "params_m": 67.4139, "gmacs": 66.188, "images_per_s": 0.4241, "memory_of": "process",
    "latency_ms": {"median": 2357.83, "p95": 2400.04, "min": 2300.0}, "peak_memory_mb": 1594.4,
    "baseline_memory_mb": 1030.2,
    "backends": {"neighborhood_attention": "tiled", "channel_scan": "numba"},
    "machine": {"processor": "AMD EPYC x 2", "gpus": [], "python": "3.11", "code": "0123abc"},
    "modules": [{"name": "interaction.0", "params_m": 0.13, "gmacs": 3.379, "ms": 638.04, "share": 0.2705}],
    "ops": [
        {**RACE, "backend": "triton", "reason": "it runs on CUDA"},
        {**RACE, "backend": "numba", "reason": None, "forward_ms": 52.19, "training_ms": 274.561,
         "output_error": 1.5e-7, "gradient_error": 1.6e-6},
    ],
}  # fmt: skip


def test_the_section_replaces_what_was_there_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\nkept\n\n{BEGIN}\nold\n{END}\n\nkept too\n")
    write_section(page, "new\n", "some part")
    write_section(page, "newer\n\nlines", "some part")
    assert page.read_text() == f"# Title\n\nkept\n\n{BEGIN}\nnewer\n\nlines\n{END}\n\nkept too\n"


@pytest.mark.parametrize("content", [None, "no markers", f"{END}\n{BEGIN}", f"{BEGIN}\n{BEGIN}\n{END}"])
def test_a_page_without_its_place_is_left_alone(content, tmp_path):
    page = tmp_path / "page.md"
    if content is not None:
        page.write_text(content)
    with pytest.raises(UserError, match="generated: some part"):
        write_section(page, "new", "some part")
    assert content is None or page.read_text() == content


@pytest.mark.parametrize("name", [*BENCH.values(), TRAINING_RUN])
def test_the_page_in_docs_has_the_places(name):
    text = (REPOSITORY / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert [text.count(marker) for marker in markers(name)] == [1, 1]


def test_a_training_run_in_words():
    text = training_section(
        {
            "config": "mdg_b2", "precision": "bf16", "batch_size": 16, "seconds": 490.0, "steps": 1234, "epochs": 25,
            "images": 19744, "images_per_s": 40.29, "scores": {"mIoU": 41.234, "pixel_accuracy": 97.3},
            "protocol": {"dataset": "MFNet", "split": "val", "images": 392, "weights": "scratch"},
            "machine": {"gpus": ["A GPU"], "processor": "x", "packages": {"torch": "2.12.1"}, "code": "0123abc"},
        }
    ).replace("\n", " ")  # fmt: skip
    assert text.startswith("A GPU; PyTorch 2.12.1; code 0123abc. `mdg_b2` on MFNet, bf16, batch 16: 8.2 minutes")
    assert "1234 steps, 25 whole epochs, 40.3 images/s" in text and "mIoU 41.23, pixel accuracy 97.30." in text


def test_figures_commands_and_machine_stand_in_the_section():
    large = Entry("inference, large", "mdg.commands.benchmark", ("--height", "960"))
    text = section([Result(ENTRY, FOUND), Result(large, None, "out of memory")], Result(PIPELINE, None, "no data"))
    assert "| inference, batch 1 | 67.41 | 66.19 | 2357.8 | 2400.0 | 2300.0 | 0.42 | 1594 | 1030 |" in text
    assert "inference, large: not measured: out of memory" in text
    assert "AMD EPYC x 2; device cpu, 2 CPU threads; PyTorch 2.12.1" in text and "code 0123abc" in text
    assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith(("|", "-")))
    command = "python -m mdg.commands.benchmark"
    assert f"{command} --config a.yaml --ops\n{command} --height 960" in text
    assert "| interaction.0 | 0.130 | 3.379 | 638.0 | 27.1 % |" in text
    assert "| 192x8x32 | numba | 52.19 | 274.56 | 1.5e-07 | 1.6e-06 |" in text
    assert "- `channel_scan`, triton: it runs on CUDA" in text and "| triton |" not in text
    assert "Not measured: no data" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables if "channel_scan" in line or "backend" in line}) == 1


def test_the_input_pipeline_has_a_table():
    rates = {"images_per_second": {"reading": {"best": 94.04, "median": 91.0}}}
    assert "| reading | 94.0 | 91.0 |" in section([], Result(PIPELINE, rates))


def test_nothing_measured_is_a_section_too():
    assert "not measured: broken" in section([Result(ENTRY, None, "broken")], Result(PIPELINE, None, "no data"))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_commands_are_understood_by_the_tools(device):
    for entry in [*suite("configs/mfnet/mdg_b2.yaml", 480, 640, device), pipeline("configs/mfnet/mdg_b2.yaml")]:
        args = importlib.import_module(entry.module).parse().parse_args(list(entry.arguments))
        assert args.config == "configs/mfnet/mdg_b2.yaml"
        assert entry.command().startswith(f"python -m {entry.module} --config configs/mfnet/mdg_b2.yaml")
    titles = [entry.title for entry in suite("a.yaml", 480, 640, device)]
    assert len(set(titles)) == len(titles) and "inference, batch 1, 960x1280" in titles


def test_an_entry_gives_its_json_or_its_message(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "good.py").write_text("import sys; open(sys.argv[-1], 'w').write('{\"a\": 1}')")
    (tmp_path / "bad.py").write_text("import sys; sys.exit('warning\\nbad: error: no\\nsuch thing')")
    (tmp_path / "crash.py").write_text("raise RuntimeError('sudden')")
    assert run_entry(Entry("t", "good", ())).found == {"a": 1}
    assert run_entry(Entry("t", "bad", ())).message == "no such thing"
    assert run_entry(Entry("t", "crash", ())).message == "RuntimeError: sudden"
