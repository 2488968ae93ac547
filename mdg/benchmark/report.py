"""Measurements as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_benchmark(found: Mapping[str, Any], console: Console) -> None:
    """Prints what :func:`mdg.benchmark.run.benchmark` returned."""
    console.print(module_table(found))
    for line in summary_lines(found):
        console.print(Text(line))
    if "ops" in found:
        for operator in dict.fromkeys(row["operator"] for row in found["ops"]):
            console.print(race_table(operator, [row for row in found["ops"] if row["operator"] == operator]))


def headline(found: Mapping[str, Any]) -> str:
    """ "mdg_b2, inference, batch 1, 480x640, fp32"."""
    mode = {"infer": "inference", "train": "training step"}[found["mode"]]
    extras = [name for name in ("compile", "cuda_graphs", "checkpointing") if found.get(name)]
    size = f"{found['height']}x{found['width']}"
    return ", ".join([found["config"], mode, f"batch {found['batch']}", size, found["precision"], *extras])


def summary_lines(found: Mapping[str, Any]) -> list[str]:
    """Everything but the tables."""
    latency, machine = found["latency_ms"], found["machine"]
    backends = ", ".join(f"{operator}: {name}" for operator, name in found["backends"].items()) or "none in use"
    place = ", ".join(machine["gpus"]) if found["device"] == "cuda" else f"{found['threads']} thread(s)"
    return [
        f"parameters     {found['params_m']:.3f} M",
        f"MACs           {found['gmacs']:.3f} G for the forward pass of one image",
        f"latency        median {latency['median']:.1f} ms, p95 {latency['p95']:.1f} ms, min {latency['min']:.1f} ms, "
        f"of {found['steps']} steps after {found['warmup']}",
        f"throughput     {found['images_per_s']:.2f} images/s at the median",
        f"peak memory    {found['peak_memory_mb']:.0f} MB ({found['memory_of']}); before the first step "
        f"{found['baseline_memory_mb']:.0f} MB",
        f"backends       {backends}",
        f"machine        {machine['processor']}, {place}; PyTorch {found['torch']}; code {machine['code']}",
    ]


def module_table(found: Mapping[str, Any]) -> Table:
    """A row per module, indented by its depth."""
    title = f"{headline(found)}\nforward pass by module"
    table = _table(title, ["module", "params (M)", "GMACs", "ms", "share"], left=1)
    for row in found["modules"]:
        table.add_row(*module_cells(row), end_section=row is found["modules"][-1])
    total_ms = sum(row["ms"] for row in found["modules"] if "." not in row["name"])
    table.add_row("total", f"{found['params_m']:.3f}", f"{found['gmacs']:.3f}", f"{total_ms:.1f}", "")
    return table


def module_cells(row: Mapping[str, Any]) -> list[str]:
    """Texts of a row of the table by module."""
    name = "  " * row["name"].count(".") + row["name"]
    return [name, f"{row['params_m']:.3f}", f"{row['gmacs']:.3f}", f"{row['ms']:.1f}", f"{100 * row['share']:.1f} %"]


def race_table(operator: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Backends of an operator by shape; why one did not run stands once below."""
    reasons = dict.fromkeys(f"{row['backend']}: {row['reason']}" for row in rows if row["reason"])
    table = _table(operator, RACE_HEADER, left=3)
    table.caption, table.caption_justify = Text("\n".join(reasons)), "left"
    for place, row in enumerate(rows):
        last = place + 1 == len(rows) or rows[place + 1]["shape"] != row["shape"]
        table.add_row(*race_cells(row), end_section=last)
    return table


RACE_HEADER = ["module", "shape", "backend", "forward ms", "with backward ms", "output error", "gradient error"]


def race_cells(row: Mapping[str, Any]) -> list[str]:
    """Texts of a row of the race; a dash for what did not run."""
    module = row["module"] + (f" ({row['calls']}x)" if row["calls"] > 1 else "")
    times = [_cell(row[key], ".2f") for key in ("forward_ms", "training_ms")]
    errors = [_cell(row[key], ".1e") for key in ("output_error", "gradient_error")]
    return [module, "x".join(map(str, row["shape"])), row["backend"], *times, *errors]


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _table(title: str, header: Sequence[str], left: int) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place < left else "right", no_wrap=True)
    return table
