"""Storage that refuses: full at every change, small for real, read-only, taken away in the middle."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from reliability import process
from reliability.faults import Fault, Points
from reliability.kills import failing_calls, stopped_run
from reliability.process import Outcome
from reliability.runs import DIFFERING, LOST, SURVIVED, Case, Lab, Skip, Verdict, broken_state, compare

PLACES = ("open", "write", "fsync", "mkdir", "link")  # what needs room
CHANGES = (*PLACES, "rename", "replace", "unlink", "remove", "rmdir", "truncate", "ftruncate")
NOBODY = 65534


def full_disk(lab: Lab) -> Iterator[Case]:
    """The disk is full from one change on: one line, exit code 3, what was saved is there, nothing unfinished is."""
    for name, fault in failing_calls(lab, errno.ENOSPC, PLACES, stays=True):
        yield Case("disk full at every write", name, partial(_refusing, lab, fault))
    for name, fault in failing_calls(lab, errno.ENOSPC, PLACES, stays=False):
        yield Case("disk full for one write", name, partial(_refusing, lab, fault))


def failing_storage(lab: Lab) -> Iterator[Case]:
    """The storage fails, or turns read-only, from one change on."""
    for error in (errno.EIO, errno.EROFS):
        for name, fault in failing_calls(lab, error, CHANGES, stays=True):
            yield Case("storage fails or turns read-only at every change", name, partial(_refusing, lab, fault))


def small_disk(lab: Lab) -> Iterator[Case]:
    """File systems of 4 kB and more: each is full at another write; then the disk grows and the run goes on."""
    require_mounts(lab.work)
    for kilobytes in range(4, 4 * lab.tries, 8):
        if kilobytes > 260:
            break
        yield Case("small disk (tmpfs)", f"{kilobytes}kB", partial(_small, lab, kilobytes))


def read_only(lab: Lab) -> Iterator[Case]:
    """A run folder in which nothing may be written, for a new run, a resume and results."""
    begin = stopped_run(lab)
    require_mounts(lab.work)
    yield Case("read-only folder", "mounted-new", partial(_mounted_read_only, lab, None))
    yield Case("read-only folder", "mounted-resume", partial(_mounted_read_only, lab, begin))
    yield Case("read-only folder", "no-rights-new", partial(_without_rights, lab, None))
    yield Case("read-only folder", "no-rights-resume", partial(_without_rights, lab, begin))


def vanishing_folder(lab: Lab) -> Iterator[Case]:
    """The folder of the run, or of its checkpoints, is moved away at a random moment and brought back afterwards."""
    seconds = lab.train(lab.work / "probe", lab.work / "probe-output").seconds
    shutil.rmtree(lab.work / "probe")
    for number in range(min(lab.tries, 40)):
        part = ("", "checkpoints")[number % 2]
        yield Case("folder vanishes", f"{number}-{part or 'run'}", partial(_vanish, lab, number, seconds, part))


def _refusing(lab: Lab, fault: Fault, folder: Path) -> Verdict:
    run = folder / "run"
    outcome = lab.train(run, folder / "output", before=Points(run, fault).install)
    return _judge(lab, run, outcome, folder, removable=fault.error == errno.ENOSPC)


def _judge(lab: Lab, run: Path, outcome: Outcome, folder: Path, removable: bool = True) -> Verdict:
    """A storage that refuses a log line may be survived in silence; all else ends with one line and exit code 3."""
    if outcome.fault:
        return Verdict(LOST, outcome.fault)
    if outcome.code not in (0, 3):
        return Verdict(LOST, f"exit code {outcome.code}, expected 3: {outcome.stderr.strip()[:200]}")
    if removable and (left := [path.name for path in run.rglob("*partial*")] if run.exists() else []):
        return Verdict(DIFFERING, f"left on the full disk: {left}")
    if outcome.code == 0:
        problem = broken_state(run) or compare(lab.reference, run, ("last.pt", "best.pt", "config")).why
        return Verdict(DIFFERING if problem else SURVIVED, problem or "")
    return lab.finish(run, folder / "output")


def _small(lab: Lab, kilobytes: int, folder: Path) -> Verdict:
    with mounted(folder / "disk", f"size={kilobytes}k") as disk:
        run = disk / "run"
        outcome = lab.train(run, folder / "output")
        if outcome.code != 3 or outcome.fault:
            return _judge(lab, run, outcome, folder)
        if left := [path.name for path in run.rglob("*partial*")]:
            return Verdict(DIFFERING, f"left on the full disk: {left}")
        _mount("-o", "remount,size=16m", disk)
        return lab.finish(run, folder / "output")


def _mounted_read_only(lab: Lab, begin: Path | None, folder: Path) -> Verdict:
    with mounted(folder / "disk", "size=16m") as disk:
        run = disk / "run"
        if begin:
            shutil.copytree(begin, run)
        _mount("-o", "remount,ro", disk)
        outcome = lab.train(run, folder / "output")
        if outcome.fault or outcome.code not in (2, 3):
            return Verdict(LOST, outcome.fault or f"exit code {outcome.code}")
        _mount("-o", "remount,rw", disk)
        return lab.finish(run, folder / "output")


def _without_rights(lab: Lab, begin: Path | None, folder: Path) -> Verdict:
    run = folder / "place" / "run"
    run.parent.mkdir()
    if begin:
        shutil.copytree(begin, run)
    for path in (run.parent, *run.parent.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    outcome = lab.train(run, folder / "output", before=_become_nobody)
    if outcome.fault or outcome.code not in (2, 3):
        return Verdict(LOST, outcome.fault or f"exit code {outcome.code}")
    for path in (run.parent, *run.parent.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return lab.finish(run, folder / "output")


def _become_nobody() -> None:
    if os.getuid() == 0:  # root writes anywhere
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def _vanish(lab: Lab, number: int, seconds: float, part: str, folder: Path) -> Verdict:
    run, away = folder / "run", folder / "away"
    draw = random.Random(f"{lab.seed} {number}")
    child = lab.start(run, folder / "output")
    ended = child.ends_within(draw.uniform(0.1, 1.0) * seconds)
    place = run / part
    moved = place.exists()
    if moved:
        place.rename(away)
    outcome = child.wait()
    if outcome.fault or outcome.code not in (0, 2, 3):
        return Verdict(LOST, outcome.fault or f"exit code {outcome.code}: {outcome.stderr[-200:]}")
    if not moved or ended:
        return Verdict(SURVIVED, "the run was faster", 0)
    if place.exists():  # made again by what was saved later, which is newer than what is brought back
        shutil.rmtree(place)
    away.rename(place)
    return lab.finish(run, folder / "output")


def require_mounts(work: Path) -> None:
    """Raises Skip where file systems cannot be mounted."""
    try:
        with mounted(work / "mount-test", "size=64k"):
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        raise Skip(f"no file system can be mounted here ({error}); it takes root") from None


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    """A file system in memory at ``place`` (a new folder), gone at the end of the block."""
    place.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", options, "tmpfs", place)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)


def _mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


def unwritable_places(lab: Lab) -> Iterator[Case]:
    """Results, pages and pictures that have no room: one line, and a device stays a device."""
    best = lab.reference / "checkpoints" / "best.pt"
    for name, tool, arguments in (
        (
            "val-json-full",
            "tools/val_mm.py",
            ["--checkpoint", best, "--config", lab.config, "--json", "/dev/full", "--out", "OUT"],
        ),
        ("check-json-full", "tools/check_data.py", [lab.config, "--json", "/dev/full"]),
        ("check-html-full", "tools/check_data.py", [lab.config, "--html", "/dev/full"]),
    ):
        yield Case("results without room", name, partial(_unwritable, tool, arguments))
    require_mounts(lab.work)
    for kilobytes in range(4, 204, 8):
        yield Case("results without room", f"val-{kilobytes}kB", partial(_small_results, lab, kilobytes))


def _unwritable(tool: str, arguments: list, folder: Path) -> Verdict:
    arguments = [folder / "out" if argument == "OUT" else argument for argument in arguments]
    outcome = process.run(tool, arguments, folder / "output")
    if outcome.fault or outcome.code != 3:
        return Verdict(LOST, outcome.fault or f"exit code {outcome.code}, expected 3")
    if not Path("/dev/full").is_char_device():
        return Verdict(LOST, "/dev/full was replaced by a file")
    return Verdict(SURVIVED)


def _small_results(lab: Lab, kilobytes: int, folder: Path) -> Verdict:
    checkpoint = ["--checkpoint", lab.reference / "checkpoints" / "best.pt", "--config", lab.config]
    with mounted(folder / "disk", f"size={kilobytes}k") as disk:
        outcome = process.run("tools/val_mm.py", [*checkpoint, "--out", disk / "out"], folder / "output")
        left = [path.name for path in disk.rglob("*partial*")]
    if outcome.fault or outcome.code not in (0, 3):
        return Verdict(LOST, outcome.fault or f"exit code {outcome.code}, expected 3")
    return Verdict(DIFFERING, f"left on the full disk: {left}") if left else Verdict(SURVIVED)
