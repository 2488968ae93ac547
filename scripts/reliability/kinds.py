"""The kinds of faults by name, in the order in which they are tried and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from reliability import damage, disk, kills, meetings, ranks
from reliability.inputs import SOURCES, bad_inputs
from reliability.runs import Case, Lab

KINDS: dict[str, Callable[[Lab], Iterator[Case]]] = {
    "random-kills": kills.random_kills,
    "kills-at-changes": kills.kills_at_every_change,
    "kills-in-resume": kills.kills_in_resume,
    "damage": damage.damaged_files,
    "full-disk": disk.full_disk,
    "small-disk": disk.small_disk,
    "results-without-room": disk.unwritable_places,
    "failing-storage": disk.failing_storage,
    "read-only": disk.read_only,
    "vanishing-folder": disk.vanishing_folder,
    "two-resumes": meetings.two_resumes,
    "same-second": meetings.same_second,
    "clock": meetings.clocks,
    "lost-process": ranks.lost_processes,
    "lost-launcher": ranks.lost_launchers,
    "lost-network": ranks.lost_network,
    **{name: partial(bad_inputs, source) for name, source in SOURCES.items()},
}
