"""The files of voxels that a text header names: only in the header's own folder, and only true files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.geometry import MAXIMUM_SIZE
from BrainFusionLib.io.reading import refuse_irregular
from BrainFusionLib.io.text_headers import brief

# With folders before it; what a file system takes as one name is 255 bytes.
_LONGEST_NAME = 1024
_NUMBER = re.compile(r"%(0?)(\d{0,2})d")


def data_file(header: Path, name: str) -> Path:
    """Return the file of voxels that a header names.

    Parameters
    ----------
    header
        The header's file.
    name
        The name as it stands in the header, its bytes read as Latin-1. UTF-8 is tried first.

    Raises
    ------
    ImageFileError
        It is missing, outside of the header's folder, or not a true file (a pipe, a device).
    """
    if name in ("", "-") or "\0" in name or len(name) > _LONGEST_NAME:
        raise ImageFileError(f"{header}: names no file for its voxels ({brief(name)}). Put both into one folder.")
    written = os.fsdecode(name.encode("latin-1"))
    spellings = (written, name)
    path = next((header.parent / s for s in spellings if os.path.lexists(header.parent / s)), header.parent / written)
    # A header that is itself a link may stand beside its voxels where it really is.
    homes = (header.parent.resolve(), header.resolve().parent)
    try:
        inside = any(path.resolve().is_relative_to(home) for home in homes)
    except (OSError, RuntimeError):  # links in a circle
        inside = False
    if Path(written).is_absolute() or ".." in Path(written).parts or not inside:
        raise ImageFileError(
            f"{header}: its voxels must be in the folder of the header, but it names {brief(written)}. Put both into "
            "one folder, and the name of the file alone into the header."
        )
    if not path.exists():
        raise ImageFileError(
            f"{header}: {brief(written)}, the file of its voxels, is missing. Put both into one folder."
        )
    refuse_irregular(path)
    return path


def is_pattern(name: str) -> bool:
    """Return whether a name holds a ``%``, which stands for a number in a row of files."""
    return "%" in name


def numbered(header: Path, pattern: str, first_last_step: Sequence[str]) -> list[str]:
    """Return the names that a pattern such as ``slice%03d.raw`` stands for.

    The pattern is filled in here and by nothing else: given to the C library, ``%n`` writes into memory.

    Raises
    ------
    ImageFileError
        There is not exactly one ``%d``, or first, last and step do not make a row of files.
    """
    match = _NUMBER.search(pattern)
    if match is None or pattern.count("%") != 1 or not all(re.fullmatch(r"-?\d{1,9}", n) for n in first_last_step):
        raise ImageFileError(
            f"{header}: its voxels are in files named {brief(pattern)}, which is not a name with one number "
            "(such as slice%03d.raw 1 20 1). Save it as one file."
        )
    first, last, step = (int(n) for n in (*first_last_step, "1", "1", "1")[:3])
    count = (last - first) // step + 1 if step else 0
    if not 1 <= count <= MAXIMUM_SIZE:
        raise ImageFileError(
            f"{header}: counts its files of voxels from {first} to {last} in steps of {step}. Save it as one file."
        )
    zero, width = match.groups()
    numbers = (f"{n:{zero}{width}d}" if width else str(n) for n in range(first, first + count * step, step))
    return [f"{pattern[: match.start()]}{number}{pattern[match.end() :]}" for number in numbers]
