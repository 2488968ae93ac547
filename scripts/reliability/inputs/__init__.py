"""Inputs that no tool can use: each must be answered by one message and an exit code, in bounded time and memory."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

from reliability import process
from reliability.inputs import archives, arguments, checkpoints, configurations, images, lists, results
from reliability.inputs.kit import Bad, Kit
from reliability.process import Outcome
from reliability.runs import LOST, SURVIVED, Case, Lab, Verdict

SECONDS = 120.0
MEMORY = 4 << 30  # bytes of address space beyond what an idle tool has
FILE_SIZE = 1 << 30  # bytes of a file that a tool may write
MAY_GO_ON = ("tools/check_data.py", "tools/infer_mm.py")  # exit code 1: problems found, or some files failed
SOURCES = {
    "bad-configurations": configurations,
    "bad-arguments": arguments,
    "bad-checkpoints": checkpoints,
    "bad-results": results,
    "bad-images": images,
    "bad-lists": lists,
    "bad-archives": archives,
}


def bad_inputs(source: ModuleType, lab: Lab) -> Iterator[Case]:
    """All inputs of a source, one case each."""
    kit = Kit(lab)
    kit.prepare()
    for bad in source.bad_inputs(kit):
        yield Case(f"bad input: {source.WHAT}", bad.name, partial(_try, kit, bad))


def _try(kit: Kit, bad: Bad, folder: Path) -> Verdict:
    tool, arguments = bad.make(kit, folder)
    outcome = process.run(
        tool, arguments, folder / "output", folder=folder, memory=MEMORY, seconds=SECONDS, before=_limit_files
    )
    problem = judge(tool, outcome, bad.codes)
    return Verdict(LOST, f"{tool}: {problem}") if problem else Verdict(SURVIVED)


def judge(tool: str, outcome: Outcome, codes: tuple[int, ...]) -> str | None:
    """What is wrong with an answer to a bad input; None for one message and one of the exit codes."""
    if outcome.code == 1 and tool in MAY_GO_ON:
        unseen = (
            "Traceback (most recent call last)" in outcome.stdout + outcome.stderr or "unforeseen" in outcome.stderr
        )
        return outcome.fault if unseen else None
    if outcome.fault:
        return outcome.fault
    if outcome.code not in codes:
        return f"exit code {outcome.code}, expected one of {codes}: {(outcome.stderr or outcome.stdout).strip()[-200:]}"
    return None


def _limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
