"""8-bit greyscale pictures, in and out: how the field's public slice pairs come."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.io.files import atomic_output
from BrainFusionLib.io.reading import naming
from BrainFusionLib.volume import VoxelArray

PICTURES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")


def list_pictures(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Return the pictures of a folder by their names without suffix, in alphabetical order.

    Raises
    ------
    ImageFileError
        The folder is missing or holds no pictures, or two of one name.
    """
    folder = Path(folder)
    with naming(folder):
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise ImageFileError(f"{path} and {found[path.stem].name}: have one name. Remove or rename one of them.")
        found[path.stem] = path
    if not found:
        raise ImageFileError(f"{folder}: holds no pictures. Put 8-bit greyscale slices there ({', '.join(PICTURES)}).")
    return found


def read_grey(path: str | os.PathLike[str]) -> VoxelArray:
    """Read an 8-bit greyscale picture: (rows, columns), float32, levels of 0 to 255.

    A coloured picture whose colours are all grey is taken, too, and transparency is ignored.

    Raises
    ------
    ImageFileError
        It is missing, damaged or no picture, coloured, or of more than 8 bits.
    """
    path = Path(path)
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
                raise ImageFileError(
                    f"{path}: has more than 8 bits a pixel (mode {picture.mode}). Give 8-bit greyscale slices; for "
                    "Hounsfield units use `brainfusion fuse` on volumes."
                )
            colours = np.asarray(picture.convert("RGB"), dtype=np.float32)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, ImageFileError):
            raise
        raise ImageFileError(f"{path}: cannot be read as a picture ({error}). An 8-bit PNG is wanted.") from error
    if np.ptp(colours, axis=2).max(initial=0) > 0:
        raise ImageFileError(f"{path}: is coloured. Greyscale slices are wanted; convert it first.")
    return np.ascontiguousarray(colours[..., 0])


def write_grey(levels: VoxelArray, path: str | os.PathLike[str]) -> None:
    """Write (rows, columns) levels, rounded and cut off at 0 and 255, as an 8-bit PNG, whole or not at all.

    Raises
    ------
    ImageFileError
        The file cannot be written.
    """
    picture = Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    with atomic_output(path) as temporary:
        picture.save(temporary, format="PNG")
