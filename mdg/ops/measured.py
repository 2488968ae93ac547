"""How long the backends of the operators take on this machine, as far as it was measured.

``tools/doctor.py --race`` measures and keeps the figures in a file of the user, ``backends.json``; the automatic choice
of :mod:`mdg.ops.dispatch` asks here which backend was the fastest at the nearest shape. Figures speak for the machine
they were taken on alone: its processor, the number of threads, the version of PyTorch and the code of ``mdg/ops``. Only
CPUs are measured. What cannot be read means that nothing was measured.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from mdg.errors import UserError
from mdg.utils.environment import code_fingerprint, package_version, processor
from mdg.utils.files import write_json
from mdg.utils.limits import require_within
from mdg.utils.typed import Content, Text, require

logger = logging.getLogger("mdg.ops")
Phase = Literal["forward", "backward", "training"]  # training: forward and backward
NAME = "backends.json"
FOLDER_VARIABLE = "MDG_CACHE_DIR"
MAX_MACHINES = 64  # in a file: a home folder may be that of a whole cluster, and each change of the code is another one
MARGIN = 0.85  # of the time of the backend ahead: what noise could turn round in the next race stays as it was
MAX_RANKINGS = 4096  # shapes that are remembered; images may have any size

Milliseconds = dict[Text, Annotated[float, Field(gt=0)]]


class Timing(Content):
    """One shape of one operator: the numbers that describe its inputs, and milliseconds by backend."""

    numbers: list[Annotated[int, Field(ge=1, lt=1 << 63)]]
    forward_ms: Milliseconds
    backward_ms: Milliseconds

    def ms(self, phase: Phase) -> dict[str, float]:
        """Milliseconds of the backends that were measured in that phase, the fastest first."""
        forward, backward = self.forward_ms, self.backward_ms
        if phase == "training":
            found = {name: forward[name] + backward[name] for name in forward if name in backward}
        else:
            found = dict(forward if phase == "forward" else backward)
        return dict(sorted(found.items(), key=lambda item: item[1]))


class Measurement(Content):
    """All that was measured on a machine."""

    processor: Text
    threads: Annotated[int, Field(ge=1)]
    torch: Text
    kernels: Text
    """A hash of the code of ``mdg/ops``."""
    at: Text | None
    """When; None where nothing was measured, so that a run remembers that too."""
    operators: dict[Text, list[Timing]]

    @property
    def machine(self) -> tuple[str, int, str, str]:
        """What the figures hold for."""
        return self.processor, self.threads, self.torch, self.kernels


class File(Content):
    """The content of ``backends.json``."""

    machines: list[Measurement]


def of_this_machine(operators: dict[str, list[Timing]] | None = None) -> Measurement:
    """Figures that were just taken in this process, or (None) that there are none."""
    return Measurement(
        processor=processor(),
        threads=torch.get_num_threads(),
        torch=package_version("torch") or torch.__version__,
        kernels=code_fingerprint(room="ops"),
        at=None if operators is None else datetime.now().isoformat(sep=" ", timespec="seconds"),
        operators=operators or {},
    )


# --- the file ---------------------------------------------------------------------------------------------------------


def user_file() -> Path | None:
    """Where the figures of this user lie; None without a home folder."""
    if folder := os.environ.get(FOLDER_VARIABLE):
        return Path(folder).expanduser() / NAME
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mdg" / NAME
    except RuntimeError:
        return None


def read(file: Path | None) -> list[Measurement]:
    """The measurements in a file; none, with a warning, where it is damaged."""
    advice = "`python tools/doctor.py --race` measures anew"
    try:
        if file is None or not file.is_file():
            return []
        require_within("json_bytes", file.stat().st_size, file)
        content = json.loads(file.read_bytes())
        if not isinstance(content, dict):
            raise UserError(f"{file}: got a {type(content).__name__}, expected an object; {advice}")
        require(File, content, file, advice, UserError)
        return File.model_validate(content).machines
    except UserError as error:
        logger.warning("a file of measured backends is not used: %s", error)
    except (OSError, ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        logger.warning("a file of measured backends is not used: %s: %s; %s", file, reason, advice)
    return []


def write(file: Path, measurements: Iterable[Measurement]) -> None:
    """Replaces a file by the measurements, of each machine the first. Raises as :func:`mdg.utils.files.replacing`."""
    machines: dict[Any, Measurement] = {}
    for measurement in measurements:
        machines.setdefault(measurement.machine, measurement)
    write_json(file, {"machines": [one.model_dump() for one in list(machines.values())[:MAX_MACHINES]]})


def keep(measurement: Measurement) -> Path:
    """Adds a measurement to the file of this user, takes it for this process, and returns the file.

    Raises:
        UserError: The file cannot be written.
    """
    file = user_file()
    if file is None:
        raise UserError(f"{NAME}: got no home folder to keep it in; name a folder with {FOLDER_VARIABLE}=FOLDER")
    write(file, [measurement, *read(file)])
    use([measurement])
    return file


# --- what this process goes by ----------------------------------------------------------------------------------------

_in_use: list[Measurement] | None = None  # None: the file was not read yet
_rankings: dict[tuple[Any, ...], tuple[str, ...]] = {}


def use(measurements: Iterable[Measurement] | None) -> None:
    """What this process goes by from now on; None: the file of this user, which is read when it is asked for."""
    global _in_use
    _in_use = None if measurements is None else [one for one in measurements if one.operators]
    _rankings.clear()


def take(saved: Sequence[Measurement]) -> Measurement:
    """Goes by what ``saved`` holds of this machine, else by the file of this user, and returns it."""
    nothing = of_this_machine()
    known = next((one for one in saved if one.machine == nothing.machine), None)
    if known is None:
        known = next((one for one in read(user_file()) if one.machine == nothing.machine), nothing)
    use([known])
    return known


def in_use() -> list[Measurement]:
    """All measurements at hand, those of other machines among them."""
    global _in_use
    if _in_use is None:
        use(read(user_file()))
    return _in_use or []


def is_any_in_use() -> bool:
    """Whether there is anything to look up, which every call of an operator asks first."""
    return bool(in_use() if _in_use is None else _in_use)


def current() -> Measurement | None:
    """What was measured on this machine with as many threads as there are now, or None."""
    measurements = in_use()
    if not measurements:
        return None  # without reading all kernels for their hash
    machine = of_this_machine().machine
    return next((one for one in measurements if one.machine == machine), None)


def measured_at() -> str:
    """When the times that this process goes by were taken, or "never": what a run remembers beside the table."""
    measurement = current()
    return (measurement and measurement.at) or "never"


def nearest(operator: str, numbers: Sequence[int]) -> Timing | None:
    """The measured shape with the smallest sum of ``|log(number / measured number)|``, or None."""
    measurement = current()
    timings = measurement.operators.get(operator, []) if measurement else []
    comparable = [timing for timing in timings if len(timing.numbers) == len(numbers)]
    return min(comparable, key=lambda timing: _distance(timing.numbers, numbers), default=None)


def _distance(one: Sequence[int], other: Sequence[int]) -> float:
    return sum(abs(math.log(a / b)) for a, b in zip(one, other, strict=True))


def by_time(ms: Mapping[str, float], names: Sequence[str]) -> tuple[str, ...]:
    """Those of ``names`` that were measured, the fastest first; one passes another that stands before it in ``names``
    only where it takes less than :data:`MARGIN` of its time, so that two races of one machine agree."""
    order: list[str] = []
    for name in names:
        if name in ms:
            place = len(order)
            while place and ms[name] < MARGIN * ms[order[place - 1]]:
                place -= 1
            order.insert(place, name)
    return tuple(order)


def ranking(operator: str, numbers: tuple[int, ...], phase: Phase, names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the backends by their times at the nearest measured shape, see :func:`by_time`; empty where nothing was
    measured. ``numbers`` are positive, ``names`` all backends, the expected choice first."""
    key = (operator, numbers, phase, names, torch.get_num_threads())
    found = _rankings.get(key)
    if found is None:
        timing = nearest(operator, numbers)
        if len(_rankings) >= MAX_RANKINGS:
            _rankings.clear()
        found = _rankings[key] = by_time(timing.ms(phase), names) if timing else ()
    return found
