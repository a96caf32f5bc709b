"""The end of a file's name, which says the format."""

from __future__ import annotations

from pathlib import Path


def suffix_of(path: Path) -> str:
    """Return the end of a name in lower case, with what stands before ``.gz``: ``.nii.gz`` of ``Head.NII.GZ``."""
    name = path.name.lower()
    if name.endswith(".gz"):
        return Path(name.removesuffix(".gz")).suffix + ".gz"
    return Path(name).suffix


def with_suffix(path: Path, suffix: str) -> Path:
    """Return the path with another suffix in the place of the whole of `suffix_of`."""
    return path.with_name(path.name[: len(path.name) - len(suffix_of(path))] + suffix)
