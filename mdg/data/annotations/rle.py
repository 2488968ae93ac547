"""Run lengths of masks, after the definition of COCO's format and that of CVAT.

COCO (Lin et al., "Microsoft COCO", 2014; the format of its results): pixels are counted column by column, down each
column, beginning with a run of zeros, which may be empty. Written as a list of numbers, or as text: every number from
the third on as its difference from the one two places before it, in groups of five bits, lowest first, each plus 48 as
a character; bit 5 says that another group follows, and bit 4 of the last group is the sign.

CVAT: pixels of a box row by row, beginning with a run of zeros too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

OFFSET, MORE, SIGN, GROUP = 48, 0x20, 0x10, 5
LONGEST = 7  # groups of a number: 35 bits are more than any image has


def decode_counts(text: str) -> list[int]:
    """The run lengths in a text; raises ValueError where it is none, which says at which character."""
    counts: list[int] = []
    value = groups = 0
    for place, character in enumerate(text):
        bits = ord(character) - OFFSET
        if not 0 <= bits < 64 or groups == LONGEST:
            raise ValueError(f"character {place} ({character!r}) cannot stand there")
        value |= (bits & 0x1F) << GROUP * groups
        groups += 1
        if bits & MORE:
            continue
        if bits & SIGN:
            value -= 1 << GROUP * groups
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = groups = 0
    if groups:
        raise ValueError(f"the text ends within a number, after {len(text)} characters")
    return counts


def encode_counts(counts: Sequence[int]) -> str:
    """Run lengths as a text."""
    characters = []
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        while True:
            bits, value = value & 0x1F, value >> GROUP
            done = value == (-1 if bits & SIGN else 0)
            characters.append(chr(bits + OFFSET + (0 if done else MORE)))
            if done:
                break
    return "".join(characters)


def runs_to_mask(counts: Sequence[int], height: int, width: int, columns: bool = True) -> np.ndarray:
    """[H, W] bool out of run lengths.

    Args:
        counts: Lengths of runs, zeros first.
        height, width: Of the mask.
        columns: Whether pixels are counted down the columns (COCO), else along the rows (CVAT).

    Raises:
        ValueError: Negative lengths, or a sum that is not the number of pixels.
    """
    if any(isinstance(count, bool) or not isinstance(count, int) or count < 0 for count in counts):
        raise ValueError("expected whole numbers from 0 up as run lengths")
    if sum(counts) != height * width:
        raise ValueError(f"the runs have {sum(counts)} pixels, expected {height * width} ({height}x{width})")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, np.array(counts, np.int64))
    return flat.reshape(width, height).T if columns else flat.reshape(height, width)


def mask_to_runs(mask_HW: np.ndarray, columns: bool = True) -> list[int]:
    """Run lengths of [H, W], zeros first; see :func:`runs_to_mask`."""
    flat = (mask_HW.T if columns else mask_HW).ravel().astype(bool)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff([0, *changes.tolist(), flat.size])
    return [*([0] if flat.size and flat[0] else []), *lengths.tolist()]
