"""Command lines of all tools."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from reliability.inputs.kit import REFUSED, Bad, Kit

WHAT = "command lines"
LONG = "x" * 300
NOT_UTF8 = "\udcd6\udcd0"
TOOLS = (
    "train", "val_mm", "infer_mm", "check_data", "compare", "benchmark", "benchmark_data", "doctor"
)  # fmt: skip
# CONFIG, RUN, BEST, MODEL (a checkpoint with its configuration), RESULTS, IMAGE and DIR stand for good things; FILE for
# a small text file, EMPTY for an empty folder.
LINES: dict[str, tuple[str, ...]] = {
    "train": ("", "CONFIG extra", "nothing.yaml", "DIR", "/dev/null", f"{LONG}.yaml", f"{NOT_UTF8}.yaml", "FILE",
              "CONFIG --resume", "--resume nothing", "--resume EMPTY", "--resume FILE", f"--resume {LONG}",
              "--resume RUN --run-dir x", "CONFIG --run-dir DIR", "CONFIG --run-dir FILE", "CONFIG --run-dir FILE/x",
              "CONFIG --run-dir /proc/x", f"CONFIG --run-dir {LONG}", "CONFIG --opts", "CONFIG --unknown",
              "CONFIG --limit", "CONFIG --limit x", "CONFIG --limit x=1", "CONFIG --limit yaml_bytes=x",
              "CONFIG --limit yaml_bytes=-1", "CONFIG --limit yaml_bytes=1", "CONFIG --limit yaml_nodes=2",
              f"CONFIG --limit yaml_bytes={'9' * 5000}", "--resume RUN --opts optimizer.type=SGD",
              "--resume RUN --opts train.precision=fp16", "--resume RUN --opts seed=7",
              "--resume RUN --opts train.batch_size=1", "--resume RUN --opts train.epochs=1",
              "--resume RUN --opts optimizer.weight_decay=0.2", "--resume RUN --opts train.ema_decay=null",
              "--resume RUN --opts model.width=9", "--resume RUN --opts data.train_images=4"),
    "val_mm": ("--checkpoint nothing.pt", "--checkpoint DIR", "--checkpoint FILE", "--checkpoint /dev/null",
               f"--checkpoint {LONG}", f"--checkpoint {NOT_UTF8}.pt", "--checkpoint BEST",
               "--split nothing MODEL",
               "--checkpoint BEST --config nothing.yaml", "--checkpoint BEST --config DIR",
               "MODEL --json DIR", "MODEL --json FILE/x.json",
               "MODEL --out FILE", "MODEL --out FILE/x",
               "MODEL --out /proc/x", f"MODEL --out {LONG}",
               f"MODEL --json {LONG}", "MODEL --opts model.width=9",
               "MODEL --opts eval.window=[0,1]", "--checkpoint IMAGE --config CONFIG",
               "MODEL --opts data.height=64 eval.mode=slide eval.window=[1000,1000] eval.stride=[2000,1]"),
    "infer_mm": ("", "--rgb nothing.png", "--rgb EMPTY MODEL", "--rgb FILE --thermal FILE MODEL",
                 "--rgb IMAGE MODEL", "--rgb IMAGE --thermal nothing MODEL",
                 "--rgb IMAGE --thermal DIR MODEL", "--rgb DIR --thermal IMAGE MODEL",
                 f"--rgb {LONG} MODEL", "--rgb /dev/zero --thermal /dev/zero MODEL",
                 "--rgb IMAGE --thermal IMAGE MODEL --out FILE",
                 "--rgb IMAGE --thermal IMAGE MODEL --out FILE/x",
                 "--rgb IMAGE --thermal IMAGE MODEL --out /proc/x",
                 f"--rgb IMAGE --thermal IMAGE MODEL --out {LONG}",
                 "--rgb IMAGE --thermal IMAGE --checkpoint nothing.pt",
                 "--rgb IMAGE --thermal IMAGE --checkpoint FILE"),
    "check_data": ("", "nothing.yaml", "DIR", "CONFIG --workers 0", "CONFIG --workers -1", "CONFIG --workers x",
                   "CONFIG --workers \u00b2", f"CONFIG --workers {'9' * 5000}", "CONFIG --workers 100000000",
                   "CONFIG --json DIR", "CONFIG --json FILE/x", "CONFIG --json /proc/x", f"CONFIG --json {LONG}",
                   "CONFIG --html DIR", "CONFIG --html FILE/x", "CONFIG --html /proc/x", f"CONFIG --html {LONG}"),
    "compare": ("", "nothing", "EMPTY", "DIR", "FILE", "/dev/null", LONG, NOT_UTF8, "RUN --split nothing",
                "RUN --split val", "RESULTS --json DIR", "RESULTS --json FILE/x", "RESULTS --json /proc/x",
                "RESULTS --csv DIR", "RESULTS --csv FILE/x", "RESULTS --markdown DIR", "RESULTS --markdown /proc/x.md",
                f"RESULTS --markdown {LONG}", "RESULTS --split ../../x RUN", "RUN/checkpoints"),
    "benchmark": ("", "--config nothing.yaml", "--config CONFIG --height 0", "--config CONFIG --height -3",
                  "--config CONFIG --height x", "--config CONFIG --height 1000000 --width 1000000 --steps 1",
                  "--config CONFIG --batch 0", "--config CONFIG --mode nothing", "--config CONFIG --steps 0",
                  "--config CONFIG --steps -1", "--config CONFIG --warmup -1", "--config CONFIG --precision fp8",
                  "--config CONFIG --backend x", "--config CONFIG --backend x=y", "--config CONFIG --backend linear=x"),
    "benchmark_data": ("", "--config nothing.yaml", "--config CONFIG --seconds 0", "--config CONFIG --seconds -1",
                       "--config CONFIG --seconds nan", "--config CONFIG --seconds inf", "--config CONFIG --seconds x",
                       "--config CONFIG --workers -1", "--config CONFIG --workers x"),
    "doctor": ("extra", "--unknown"),
}  # fmt: skip


# Odd, and yet of use: results go beside a file that is in the way, workers are no more than frames.
ALL_RIGHT = ("val_mm MODEL --out FILE", "check_data CONFIG --workers 100000000")


def bad_inputs(kit: Kit) -> Iterator[Bad]:
    """Arguments that are absent, of the wrong kind, or name something that cannot serve."""
    for tool in TOOLS:
        for line in LINES[tool]:
            shown = line.encode("ascii", "backslashreplace").decode().replace(LONG, "LONG")[:90].replace("/", "_")
            codes = (0, *REFUSED) if f"{tool} {line}" in ALL_RIGHT else REFUSED
            yield Bad(f"{tool} {shown}", partial(_line, f"tools/{tool}.py", line), codes)


def _line(tool: str, line: str, kit: Kit, folder: Path) -> tuple[str, list]:
    (folder / "file.txt").write_text("hello\n")
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "note.txt").write_text("hello\n")
    root, _ = kit.dataset(folder)
    known = {
        "CONFIG": kit.lab.config,
        "RUN": kit.run,
        "BEST": kit.run / "checkpoints" / "best.pt",
        "RESULTS": kit.run / "results" / "test",
        "IMAGE": root / "train" / "rgb" / "00.png",
        "DIR": folder / "full",
        "FILE": folder / "file.txt",
        "EMPTY": folder / "empty",
    }
    arguments = []
    for word in line.replace("MODEL", "--checkpoint BEST --config CONFIG").split():
        head, slash, rest = word.partition("/")
        arguments.append(f"{known[head]}{slash}{rest}" if head in known else word)
    return tool, arguments
