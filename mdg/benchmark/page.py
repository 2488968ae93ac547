"""The generated parts of docs/benchmarks.md: one for each type of device, one for a training run on a GPU."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mdg.benchmark.report import RACE_HEADER, module_cells, race_cells
from mdg.benchmark.suite import Result
from mdg.errors import UserError
from mdg.utils.files import write_text

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
    good = [result for result in results if result.found is not None]
    parts = [_machine(good[0].found)] if good else []
    parts += [_commands([*results, pipeline]), _table(HEADER, [_main_row(result) for result in results])]
    parts += [_wrapped(NOTES.format(memory=MEMORY[good[0].found["memory_of"]]))] if good else []
    parts += list(_details(good)) + [_pipeline(pipeline)]
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
        if "ops" not in result.found:
            continue
        yield f"### Forward pass by module ({result.entry.title})"
        yield _table(
            ["module", "params (M)", "GMACs", "ms", "share"],
            [module_cells(row) for row in result.found["modules"]],
        )
        yield "### Backends of the operators, at the shapes of this network"
        rows = result.found["ops"]
        header = ["operator", *RACE_HEADER]
        yield _table(header, [[row["operator"], *race_cells(row)] for row in rows if row["forward_ms"] is not None], 4)
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
    return f"{title}\n\n" + _table(["images/s, one thread per process", "best", "median"], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    align = ["---"] * left + ["---:"] * (len(header) - left)
    lines = [header, align, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").strip() for cell in line) + " |" for line in lines)


def training_section(found: Mapping[str, Any]) -> str:
    """The text of what :func:`mdg.benchmark.training_run.train_for` gives."""
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
