"""The fenced blocks of README and docs, and a folder like a fresh clone in which they run.

A block whose first line is a comment with the name of a file is that file (``# my_fusion.py``); the others are run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from commands import REPOSITORY

PAGES = ["README.md", *(f"docs/{page.name}" for page in sorted((REPOSITORY / "docs").glob("*.md")))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"^# ([\w./-]+\.(?:py|yaml))$")
# What a run of the documentation is cut to. The network stays that of the page, but small.
SHORT_RUN = (
    "train.max_steps=2",
    "train.epochs=1",
    "train.batch_size=2",
    "train.stop_epoch=null",
    "schedule.warmup_epochs=0",
    "data.limit=4",
    "pipeline.workers=0",
    "threads=1",
)
SMALL_FRAMES = ("pipeline.train=[{type: Resize, size: [96, 128]}]", "pipeline.eval_size=[96, 128]")
SMALL_NETWORK = ("model.rgb_backbone=b0", "model.thermal_backbone=b0", "model.pretrained=null")
# Not run: what `make` does is run by CI, the scripts of TriVN by tests/scripts/, the rest changes the machine, needs a
# network or waits for a reader.
ELSEWHERE = re.compile(
    r"^(make|pip|source|tensorboard|npm|sbatch)\b|^NNODES=|fetch_weights\.py|demo_web\.py|--click|-m pytest"
    r"|run_study\.py \S+$|scripts/(train_trikd|eval)\.sh"
)
# Names that the Python of a page takes for granted.
PRELUDE = {
    "docs/python.md": f"""
import mdg, numpy as np

def short_train(*args, resume=None):
    opts = {list(SHORT_RUN)!r} if resume is None else ["train.max_steps=4"]
    return mdg.train(*args[:1], opts=opts, resume=resume)

frames = list_of_rgb = [np.zeros((96, 128, 3), np.uint8)] * 2
thermal_frames = list_of_thermal = [np.zeros((96, 128), np.uint8)] * 2
show = print
""",
    "docs/two_cameras.md": "import mdg",
    "docs/model.md": "import mdg.ops",
}


@dataclass(frozen=True)
class Block:
    """One fenced block: where it begins, its language and its text."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that the block is, if it says so in its first line."""
        found = FILE_NAME.match(self.text.split("\n", 1)[0])
        return found[1] if found else None


def blocks(page: str) -> list[Block]:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return [Block(page, text[: m.start()].count("\n") + 1, m[1], m[2]) for m in FENCE.finditer(text)]


def commands(block: Block) -> Iterator[str]:
    """The commands of a shell block, one each: comments gone, continued lines and open quotes with what follows."""
    pending = ""
    for line in block.text.splitlines():
        line = re.sub(r"(^|\s{2,})# .*$", "", line)
        pending += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        try:
            words = shlex.split(pending)
        except ValueError:  # an open quote
            pending += "\n"
            continue
        if words:
            yield pending
        pending = ""
    assert not pending.strip(), f"{block.place}: unfinished: {pending}"


def arguments_of(command: str) -> tuple[str, list[str]] | None:
    """The script of this repository that a command starts, and its arguments; None for other programs."""
    words = [word for word in shlex.split(command) if not re.match(r"^[A-Z_]+=", word)]
    script = next(
        (place for place, word in enumerate(words[:3]) if re.match(r"^(tools|scripts)/\w+\.(py|sh)$", word)), None
    )
    return None if script is None else (words[script], words[script + 1 :])


def shortened(command: str) -> str | None:
    """The command as the tests run it; None where it is not run."""
    if ELSEWHERE.search(command):
        return None
    command = re.sub(r"\bNPROC=\d+", "NPROC=2", command)
    command = re.sub(r"--height \d+ --width \d+ --steps \d+", "--height 96 --width 128 --steps 1", command)
    command = re.sub(r"--height \d+ --width \d+", "--height 96 --width 128", command)
    started = arguments_of(command)
    if started is None:
        return command
    script, arguments = started
    extra: list[str] = []
    if script == "tools/benchmark_data.py":
        return re.sub(r" --seconds \S+", "", command).replace(script, f"{script} --seconds 0.5", 1)
    if script in ("tools/train.py", "tools/train_ddp.sh", "scripts/find_lr.py", "scripts/find_batch_size.py"):
        extra = [*SHORT_RUN]
        if any("mfnet" in word or "folder" in word for word in arguments):
            extra += [*SMALL_FRAMES, *SMALL_NETWORK]
        if script == "scripts/find_lr.py":  # which needs many steps
            extra = ["threads=1", "pipeline.workers=0"]
        if "--resume" in arguments:
            extra = ["train.max_steps=4"]
    return command + _as_opts(arguments, extra)


def _as_opts(arguments: list[str], extra: list[str]) -> str:
    if not extra:
        return ""
    return " " + shlex.join(extra if "--opts" in arguments else ["--opts", *extra])


def script_of(page: str, run: str) -> str:
    """The blocks of a page as one shell script, each command preceded by its place. ``run`` stands for ``<time>``.

    What a page has of Python, and is no file, is one program, which runs where the last of it stands.
    """
    lines, program = ["set -euo pipefail"], [PRELUDE.get(page, "")]
    parts = [block for block in blocks(page) if block.file is None]
    last = next((block for block in reversed(parts) if block.language == "python"), None)
    for block in parts:
        if block.language == "bash":
            for command in filter(None, map(shortened, commands(block))):
                lines += [f"echo {shlex.quote(f'@@ {block.place}: {command}')}", command.replace("<time>", run)]
        elif block.language == "python":
            program.append(block.text.replace("mdg.train(", "short_train("))
            if block is last:
                lines += [f"echo '@@ {block.place}'", "python - <<'PROGRAM'", "\n".join(program), "PROGRAM"]
    return "\n".join(lines) + "\n"


def write_files(page: str, folder: Path) -> list[Path]:
    """Writes the files that a page's blocks are."""
    written = []
    for block in blocks(page):
        if block.file is not None:
            file = folder / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
            written.append(file)
    return written
