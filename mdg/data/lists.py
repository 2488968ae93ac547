"""List files as people write them: decoded, whatever program saved them, and never larger than the limit.

Lines end as on Linux, Windows or old Macs; blank lines and those that start with ``#`` do not count. Text is UTF-8, or
UTF-16 and UTF-32 with their mark (PowerShell's ``>``). Bytes that are no UTF-8 stay what they are in file names.
"""

from __future__ import annotations

import codecs
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from mdg.data.reading.names import same
from mdg.errors import DataError
from mdg.utils.files import file_error
from mdg.utils.limits import limit, require_within

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
        shown = ", ".join(list(twice)[:SHOWN]) + (f" ... ({len(twice)} in all)" if len(twice) > SHOWN else "")
        first = ", ".join(map(str, next(iter(twice.values()))[:SHOWN]))
        raise DataError(
            f"{file}: {len(twice)} name(s) occur more than once: {shown} (the first on lines {first}); expected each "
            "frame once, or its score would count twice"
        )
