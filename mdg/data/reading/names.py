"""Names of frames and the lists that hold them: when two names are the same, and why one finds no file.

Two names are the same where they read the same: macOS stores ``ö`` as two characters and other systems as one. The case
of letters does matter, for ``a`` and ``A`` may be two frames; where it is the only difference, messages say so.

Lines of a list end as on Linux, Windows or old Macs; blank lines and those that start with ``#`` do not count. Text is
UTF-8, or UTF-16 and UTF-32 with their mark (PowerShell's ``>``). Bytes that are no UTF-8 stay what they are in file
names.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from mdg.errors import DataError, first_few
from mdg.utils.files import file_error
from mdg.utils.limits import limit, require_within


def same(name: str) -> str:
    """One spelling (composed characters) for all ways in which a name can be stored."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def alike(name: str) -> str:
    """One spelling for names that differ in the case of letters at most."""
    return same(name).casefold()


def name_bytes(name: str) -> bytes:
    """UTF-8 for hashes; a file name that is not UTF-8 gives the bytes it has on disk."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair, as Windows allows
        return name.encode("utf-8", "surrogatepass")


def unite(parts: Iterable[Iterable[str]]) -> list[str]:
    """The names of all parts in order, each once; it is spelt as in the first part that has it."""
    spelling: dict[str, str] = {}
    for names in parts:
        for name in names:
            spelling.setdefault(same(name), name)
    return sorted(spelling.values())


def pick(names: Iterable[str], files: Mapping[str, Path]) -> dict[str, Path]:
    """The file of every name that has one."""
    by_spelling = {same(name): file for name, file in files.items()}
    return {name: by_spelling[same(name)] for name in names if same(name) in by_spelling}


def clues(
    names: Iterable[str], there: Iterable[str], others: Mapping[str, Path], readable: Collection[str] = ()
) -> dict[str, str]:
    """Why names have no file, where that can be seen.

    Args:
        names: Those without a file.
        there: Names of the files that were found.
        others: Files by name that lie there and are not read, for their suffix.
        readable: Suffixes, in lower case, that another pattern would read.
    """
    there = list(there)
    near, unread = {alike(name): name for name in there}, {alike(name): file for name, file in others.items()}
    longer = {core: name for name in there for core in _cores(alike(name))}
    found = {name: _clue(name, near, unread, longer, readable) for name in names}
    return {name: clue for name, clue in found.items() if clue}


def _cores(name: str) -> list[str]:
    """A name without its last part, and without its first one: ``01_mask`` and ``ir_01`` go with ``01``."""
    pieces = re.split(r"[-_. ]", name)
    return [name[: -len(pieces[-1]) - 1], name[len(pieces[0]) + 1 :]] if len(pieces) > 1 else []


def _clue(
    name: str, near: Mapping[str, str], unread: Mapping[str, Path], longer: Mapping[str, str], readable: Collection[str]
) -> str:
    twin = near.get(alike(name))
    if twin is not None and same(twin) != same(name):
        return f"'{twin}' is there, which differs in the case of letters: rename one of them"
    if alike(name) in unread:
        file = unread[alike(name)]
        if file.suffix.lower() in readable:
            return f"{file.name} is there, and its pattern ends otherwise: end it with '{file.suffix}' or '.*'"
        return f"{file.name} is there, but '{file.suffix}' is not read here: convert it, or name it as expected"
    other = longer.get(alike(name)) or next((near[core] for core in _cores(alike(name)) if core in near), None)
    if other is not None:
        return (
            f"'{other}' is there: rename one of them, or write what they do not share into the pattern, if there is one"
        )
    if any("\udc80" <= letter <= "\udcff" for letter in name):
        return "the name is not UTF-8: save the list as UTF-8, and give the files names that can be read"
    if "\\" in name:
        return "the name has backslashes, as on Windows: write / between folders, below the root of the data set"
    return ""


MARKS = {  # the longer marks first: that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f]")
DOS_END = "\x1a"
SHOWN = 5


def read_lines(file: Path) -> dict[int, str]:
    """Lines of a list file by number, from 1, without blanks around them.

    Raises:
        DataError: It cannot be read, is larger than the limit, or no text.
    """
    try:
        require_within("list_bytes", file.stat().st_size, file, DataError)
        with open(file, "rb") as stream:
            content = stream.read(limit("list_bytes") + 1)
    except OSError as error:
        raise DataError(str(file_error(error, file))) from None
    return decode_lines(content, file)


def decode_lines(content: bytes, where: object) -> dict[int, str]:
    """Lines of a list by number, from 1, without blanks around them.

    Args:
        content: The file; where it may be longer than the limit, one byte more than that is enough to be refused.
        where: The file, for messages.

    Raises:
        DataError: More than the limit, or no text.
    """
    require_within("list_bytes", len(content), where, DataError)
    mark, encoding = next(((m, e) for m, e in MARKS.items() if content.startswith(m)), (b"", "utf-8"))
    try:
        text = content[len(mark) :].decode(encoding, "surrogateescape" if encoding == "utf-8" else "strict")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: cannot be read as {encoding.upper()} ({error.reason}); save it as UTF-8") from None
    text = text.rstrip(DOS_END)
    if text.lstrip()[:14].lower().startswith(("<!doctype html", "<html")):
        raise DataError(f"{where}: is a web page, expected a list of names; download the file itself")
    odd = NO_TEXT.search(text)
    if odd:
        kind = "perhaps UTF-16 without its mark: save it as UTF-8" if odd[0] == "\0" else "is it the right file?"
        raise DataError(f"{where}: holds a byte {ord(odd[0]):#04x}, expected a list in plain text; {kind}")
    lines = enumerate((line.strip() for line in re.split(r"\r\n|\r|\n", text)), 1)
    return {number: line for number, line in lines if line and not line.startswith("#")}


def require_different(file: object, names: Mapping[int, str]) -> None:
    """Raises DataError where a name occurs twice.

    Args:
        file: The list, for the message.
        names: By number of the line.
    """
    lines: dict[str, list[int]] = defaultdict(list)
    for number, name in names.items():
        lines[same(name)].append(number)
    twice = {name: numbers for name, numbers in lines.items() if len(numbers) > 1}
    if twice:
        shown, first = first_few([*twice], SHOWN), first_few(next(iter(twice.values())), SHOWN)
        raise DataError(
            f"{file}: {len(twice)} name(s) occur more than once: {shown} (the first on lines {first}); expected each "
            "frame once, or its score would count twice"
        )
