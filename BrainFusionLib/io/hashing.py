"""The sha256 of bytes, of a file and of a folder, for everything that works with files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

PIECE_BYTES = 1 << 20


def sha256_of_bytes(content: bytes) -> str:
    """Return the sha256 of bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file in hexadecimal digits; the file is read in pieces.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    whole = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            whole.update(piece)
    return whole.hexdigest()


def sha256_of_folder(folder: str | os.PathLike[str]) -> str:
    """Return one sha256 for all files of a folder and its subfolders: their contents and their relative names.

    Raises
    ------
    OSError
        A file cannot be read.
    """
    folder = Path(folder)
    files = sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    # Each content has its own sha256, so that no content can pass for the name of the next file.
    return sha256_of_bytes(b"".join(os.fsencode(f"{name}\0{sha256_of_file(path)}\n") for name, path in files))


def sha256_of_files(files: Sequence[Path]) -> str:
    """Return one sha256 for the contents of several files in this order; for a single one, that of its bytes.

    Raises
    ------
    OSError
        A file cannot be read.
    """
    if len(files) == 1:
        return sha256_of_file(files[0])
    return sha256_of_bytes("".join(f"{sha256_of_file(path)}\n" for path in files).encode())


def sha256_of_set(files: Sequence[Path]) -> str:
    """Return one sha256 for the contents of several files, whatever their order and names; of one, that of its bytes.

    Raises
    ------
    OSError
        A file cannot be read.
    """
    digests = sorted(sha256_of_file(path) for path in files)
    return digests[0] if len(digests) == 1 else sha256_of_bytes("".join(f"{one}\n" for one in digests).encode())


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file, or of a folder as `sha256_of_folder` does.

    Raises
    ------
    OSError
        It cannot be read.
    """
    return sha256_of_folder(path) if Path(path).is_dir() else sha256_of_file(path)
