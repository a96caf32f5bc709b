"""What the headers of NRRD and MetaImage, which are text, have in common."""

from __future__ import annotations

import re
from typing import Any

# Far more than any header written by a program; keeps a file of another kind from being read whole as one line.
LONGEST_HEADER = 1 << 20
LONGEST_LINE = 1 << 16
MOST_LINES = 20_000

# Each letter can be taken in one way only: a line of digits must not be tried in a thousand million ways.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_LONGEST_NUMBER = 400
_WHOLE = re.compile(r"[+-]?\d{1,18}")
_MOST_SHOWN = 40

# Spellings of the one unit of length that is read, lower case.
MILLIMETRES = ("mm", "millimeter", "millimeters", "millimetre", "millimetres")

NO_SPACING = "the header gives no voxel spacing: 1 mm was assumed along every axis."
NO_PLACE = "the header gives no position: the first voxel was put at the world's origin."
NO_AXES = "the header gives no orientation: assumed that i runs to the left, j to the back and k to the head (LPS)."

PURPOSE = "BrainFusion: for research and planning review, not for diagnosis"


def numbers(text: str) -> list[float]:
    """Return the finite numbers of a text, at spaces or commas.

    Raises
    ------
    ValueError
        A word is not a finite number.
    """
    words = text.replace(",", " ").split()
    for word in words:
        if len(word) > _LONGEST_NUMBER or not _NUMBER.fullmatch(word) or abs(float(word)) == float("inf"):
            raise ValueError(f"{brief(word)} is not a number")
    return [float(word) for word in words]


def whole_numbers(text: str) -> list[int]:
    """Return the whole numbers of a text.

    Raises
    ------
    ValueError
        A word is not a whole number.
    """
    for word in text.split():
        if not _WHOLE.fullmatch(word):
            raise ValueError(f"{brief(word)} is not a whole number")
    return [int(word) for word in text.split()]


def brief(text: str) -> str:
    """Return a text out of a file, or a name, quoted, so that it can be printed: its first letters, on one line.

    Quotes inside are replaced: where it ends must be clear to those who leave it out.
    """
    text = text.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}")
    return repr(text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "...")


def as_ending(suffix: str) -> str:
    """Return the end of a name as a message says what cannot be written: "as '.png'", or "without an ending"."""
    return f"as {brief(suffix)}" if suffix else "under a name without an ending"


def exact(numbers: Any, separator: str) -> str:
    """Return numbers as text of 17 digits, which brings each of them back to the last bit."""
    return separator.join(f"{float(n):.17g}" for n in numbers)
