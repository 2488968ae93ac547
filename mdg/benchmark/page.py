"""Measurements as tables: for the terminal, and as the generated parts of docs/benchmarks.md, one for each type of
device and one for a training run on a GPU.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mdg.benchmark.suite import Result
from mdg.errors import UserError
from mdg.ops.measured import Measurement
from mdg.utils import markdown
from mdg.utils.files import write_text


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


def machine_table(measurement: Measurement) -> Table:
    """What was measured on a machine: a row per operator and shape, the fastest backend in bold."""
    place = f"{measurement.processor}, {measurement.threads} thread(s), PyTorch {measurement.torch}"
    table = _table(place, ["operator", "shape", "forward ms", "backward ms"], left=4)
    for operator, timings in measurement.operators.items():
        for timing in timings:
            times = [_ranked(timing.ms(phase)) for phase in ("forward", "backward")]
            table.add_row(operator, "x".join(map(str, timing.numbers)), *times, end_section=timing is timings[-1])
    return table


def _ranked(ms: Mapping[str, float]) -> Text:
    cells = [f"{name} {value:.3g}" for name, value in ms.items()]
    return Text("  ").join(Text(cell, "" if place else "bold") for place, cell in enumerate(cells))


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


BENCH = {device: f"make bench on {device}" for device in ("cpu", "cuda")}
TRAINING_RUN = "training run of make gpu"
HEADER = [
    "",
    "params (M)",
    "GMACs per image",
    "median ms",
    "p95 ms",
    "min ms",
    "images/s",
    "peak MB",
    "MB before the first step",
]
NOTES = """GMACs: multiply-accumulates of the forward pass of one image (in training with the auxiliary heads), counted
by the definition of each operator and so the same for all backends. Norms, activations, softmax and resizing are left
out; an FFT of n real points counts 1.25 n log2 n. Peak: of a process of its own, {memory}; MB are 2^20 bytes."""
MEMORY = {"process": "its resident set, libraries included", "GPU": "what PyTorch holds on the GPU"}


def markers(name: str) -> tuple[str, str]:
    """The lines around a generated part."""
    return f"<!-- generated: {name} -->", f"<!-- end: {name} -->"


def around_section(page: Path, name: str) -> tuple[str, str]:
    """What stands before and after a generated part of a page.

    Raises:
        UserError: No page, or not one pair of markers in it.
    """
    begin, end = markers(name)
    content = page.read_text(encoding="utf-8") if page.is_file() else ""
    if content.count(begin) != 1 or content.count(end) != 1 or content.index(begin) > content.index(end):
        raise UserError(f"{page}: expected the line '{begin}' and below it '{end}', once each; add them to the page")
    before, _, rest = content.partition(begin)
    return before, rest.partition(end)[2]


def write_section(page: Path, text: str, name: str) -> None:
    """Puts text between the markers of a page and keeps everything else; raises as :func:`around_section` does."""
    before, after = around_section(page, name)
    begin, end = markers(name)
    write_text(page, f"{before}{begin}\n{text.strip()}\n{end}{after}")


def section(results: Sequence[Result], pipeline: Result) -> str:
    """The text of the section; failed measurements stand in it with their message."""
    found = [result.found for result in results if result.found is not None]
    parts = [_machine(found[0])] if found else []
    parts += [_commands([*results, pipeline]), markdown.table(HEADER, [_main_row(result) for result in results])]
    parts += [_wrapped(NOTES.format(memory=MEMORY[found[0]["memory_of"]]))] if found else []
    parts += list(_details(results)) + [_pipeline(pipeline)]
    return "\n\n".join(parts)


def _machine(found: Mapping[str, Any]) -> str:
    machine = found["machine"]
    gpus = f", {', '.join(machine['gpus'])}" if machine["gpus"] else ""
    backends = ", ".join(f"`{operator}`: {name}" for operator, name in found["backends"].items())
    return _wrapped(
        f"Machine: {machine['processor']}{gpus}; device {found['device']}, {found['threads']} CPU threads; "
        f"PyTorch {found['torch']}; Python {machine['python']}; code {machine['code']}. "
        f"`{found['config']}`, {found['height']}x{found['width']} unless said otherwise, {found['precision']}; "
        f"backends {backends}."
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _commands(results: Sequence[Result]) -> str:
    return "\n".join(["```bash", *[result.entry.command() for result in results], "```"])


def _main_row(result: Result) -> list[str]:
    found = result.found
    if found is None:
        return [f"{result.entry.title}: not measured: {result.message}", *[""] * (len(HEADER) - 1)]
    latency = found["latency_ms"]
    numbers = [latency["median"], latency["p95"], latency["min"]]
    return [
        result.entry.title,
        f"{found['params_m']:.2f}",
        f"{found['gmacs']:.2f}",
        *[f"{number:.1f}" for number in numbers],
        f"{found['images_per_s']:.2f}",
        f"{found['peak_memory_mb']:.0f}",
        f"{found['baseline_memory_mb']:.0f}",
    ]


def _details(results: Sequence[Result]) -> Iterator[str]:
    """By module, and the race of the backends, of the measurement that has it."""
    for result in results:
        found = result.found
        if found is None or "ops" not in found:
            continue
        yield f"### Forward pass by module ({result.entry.title})"
        yield markdown.table(
            ["module", "params (M)", "GMACs", "ms", "share"],
            [module_cells(row) for row in found["modules"]],
        )
        yield "### Backends of the operators, at the shapes of this network"
        rows = found["ops"]
        header = ["operator", *RACE_HEADER]
        ran = [[row["operator"], *race_cells(row)] for row in rows if row["forward_ms"] is not None]
        yield markdown.table(header, ran, left=4)
        reasons = dict.fromkeys(
            f"- `{row['operator']}`, {row['backend']}: {row['reason']}" for row in rows if row["reason"]
        )
        if reasons:
            yield "Not run:\n\n" + "\n".join(reasons)


def _pipeline(result: Result) -> str:
    title = "### Input pipeline on this machine"
    if result.found is None:
        return f"{title}\n\nNot measured: {result.message}"
    rows = [
        [name, f"{rate['best']:.1f}", f"{rate['median']:.1f}"]
        for name, rate in result.found["images_per_second"].items()
    ]
    return f"{title}\n\n" + markdown.table(["images/s, one thread per process", "best", "median"], rows)


def training_section(found: Mapping[str, Any]) -> str:
    """The text of what :func:`mdg.benchmark.suite.train_for` gives."""
    machine, protocol, scores = found["machine"], found["protocol"], found["scores"]
    text = (
        f"{', '.join(machine['gpus']) or machine['processor']}; PyTorch {machine['packages']['torch']}; code "
        f"{machine['code']}. `{found['config']}` on {protocol['dataset']}, {found['precision']}, batch "
        f"{found['batch_size']}: {found['seconds'] / 60:.1f} minutes from start to end, {found['steps']} steps, "
        f"{found['epochs']} whole epochs, {found['images_per_s']:.1f} images/s over all of the time, validations and "
        f"checkpoints included. On {protocol['split']} ({protocol['images']} images, weights {protocol['weights']}): "
        f"mIoU {scores['mIoU']:.2f}, pixel accuracy {scores['pixel_accuracy']:.2f}."
    )
    return _wrapped(text)
