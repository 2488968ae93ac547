"""The table of docs/reliability.md: one row a fault, rows of faults that were not tried again stay as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mdg.errors import UserError
from mdg.utils.environment import describe_environment
from mdg.utils.files import write_text
from reliability.runs import DIFFERING, LOST, SURVIVED

BEGIN, END = "<!-- generated: make chaos -->", "<!-- end: make chaos -->"
HEADER = ("fault", "`--only`", "tries", "survived", "lost", "differing", "seconds", "code")


@dataclass(frozen=True)
class Row:
    """A line of the table; ``only`` is the name of the kind on the command line."""

    fault: str
    only: str
    counts: tuple[int, int, int]  # survived, lost, differing
    seconds: float
    code: str
    skipped: str = ""

    def cells(self) -> tuple[str, ...]:
        """As Markdown."""
        start = (self.fault, f"`{self.only}`")
        if self.skipped:
            return (*start, f"skipped: {self.skipped}", "", "", "", "", self.code)
        return (*start, str(sum(self.counts)), *map(str, self.counts), f"{self.seconds:.0f}", self.code)


def rows_of(only: str, results: Iterable[Mapping], code: str) -> list[Row]:
    """Rows of one kind, from the results of its cases."""
    found: dict[str, list] = {}
    for result in results:
        counts, seconds = found.setdefault(result["kind"], [{SURVIVED: 0, LOST: 0, DIFFERING: 0}, 0.0])
        # Of a victim that was killed five times and is lost, one fault did it.
        failed = result["outcome"] != SURVIVED
        counts[SURVIVED] += result["tries"] - failed
        counts[result["outcome"]] += failed
        found[result["kind"]][1] = seconds + result["seconds"]
    return [Row(kind, only, tuple(counts.values()), seconds, code) for kind, (counts, seconds) in found.items()]


def around_table(page: Path) -> tuple[str, str, str]:
    """What stands before the table, in it and after it. Raises UserError where the page has no place for it."""
    content = page.read_text(encoding="utf-8") if page.is_file() else ""
    if content.count(BEGIN) != 1 or content.count(END) != 1 or content.index(BEGIN) > content.index(END):
        raise UserError(f"{page}: expected the line '{BEGIN}' and below it '{END}', once each; add them to the page")
    before, _, rest = content.partition(BEGIN)
    table, _, after = rest.partition(END)
    return before, table, after


def write_table(page: Path, command: str, rows: Iterable[Row], order: Iterable[str]) -> None:
    """Puts the rows into the page, in the given order of kinds; rows of other kinds stay."""
    before, table, after = around_table(page)
    rows, order = list(rows), list(order)
    new = {row.only for row in rows}
    lines = [(row.only, _line(row.cells())) for row in rows]
    for line in table.splitlines():
        only = re.match(r"\| .* \| `([\w-]+)` \|", line)
        if only and only[1] in order and only[1] not in new:
            lines.append((only[1], line))
    lines.sort(key=lambda pair: order.index(pair[0]))
    machine = describe_environment()
    about = (
        f"`{command}` on {machine['processor']}, {machine['cpu_threads']} threads, Python {machine['python']}. "
        "Survived: went on to a run that equals one without faults bit for bit, or was refused with one line while "
        "everything saved stayed as it was. `code` is the commit that was tried."
    )
    header = [_line(HEADER), "|---|---|---:|---:|---:|---:|---:|---|"]
    text = "\n".join([about, "", *header, *(line for _, line in lines)])
    write_text(page, f"{before}{BEGIN}\n{text}\n{END}{after}")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
