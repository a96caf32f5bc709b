"""8-bit greyscale pictures, in and out: how the field's public slice pairs come."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from BrainFusionLib.errors import ImageContentError, ImageFileError
from BrainFusionLib.io.reading import naming, refuse_irregular
from BrainFusionLib.io.writing import atomic_output
from BrainFusionLib.volume import VoxelArray

# What Pillow may take a picture for, whatever its name says; it knows many more kinds.
_KINDS = ("PNG", "BMP", "TIFF", "JPEG")
_MOST_PIXELS = 1 << 26
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
    from PIL import Image, UnidentifiedImageError  # here, because most commands read no pictures

    path = Path(path)
    with naming(path):
        refuse_irregular(path)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=_KINDS) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise ImageFileError(
                    f"{path}: has {picture.width} x {picture.height} pixels, more than any slice. Crop it, or give "
                    "slices of CT and MRI."
                )
            if picture.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
                raise ImageFileError(
                    f"{path}: has more than 8 bits a pixel (mode {picture.mode}). Give 8-bit greyscale slices; for "
                    "Hounsfield units, fuse volumes instead."
                )
            colours = np.asarray(picture.convert("RGB"))
    except ImageFileError:
        raise
    except UnidentifiedImageError as error:
        raise ImageFileError(f"{path}: cannot be read as a picture of a known kind. Give an 8-bit PNG.") from error
    except Exception as error:  # Pillow raises errors of many kinds for damaged pictures
        raise ImageFileError(f"{path}: cannot be read as a picture ({error}). Give an 8-bit PNG.") from error
    if (colours[..., :1] != colours[..., 1:]).any():
        raise ImageFileError(f"{path}: is coloured. Convert it to greyscale first.")
    return colours[..., 0].astype(np.float32)


def write_grey(levels: VoxelArray, path: str | os.PathLike[str]) -> None:
    """Write (rows, columns) levels, rounded and cut off at 0 and 255, as an 8-bit PNG, whole or not at all.

    Raises
    ------
    ImageFileError
        The file cannot be written.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    picture = Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    said = PngInfo()
    said.add_text("Software", "BrainFusion")  # so that a later run knows it for one of ours
    with atomic_output(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=said)


def pair_names(*folders: Path) -> tuple[dict[str, tuple[Path, ...]], tuple[str, ...]]:
    """Return the pictures of every name that all folders have, and the names that only some of them have.

    Raises
    ------
    ImageFileError
        A folder is missing or empty, or no name is in all of them.
    """
    listed = [list_pictures(folder) for folder in folders]
    shared = [name for name in listed[0] if all(name in pictures for pictures in listed[1:])]
    if not shared:
        raise ImageFileError(
            f"{' and '.join(str(folder) for folder in folders)}: have no picture of the same name (for example "
            f"{' and '.join(next(iter(pictures.values())).name for pictures in listed)}). Slices that belong together "
            "must be named alike."
        )
    unpaired = sorted({name for pictures in listed for name in pictures} - set(shared))
    return {name: tuple(pictures[name] for pictures in listed) for name in shared}, tuple(unpaired)


def read_alike(paths: Sequence[Path]) -> list[VoxelArray]:
    """Read pictures that belong together: levels of 0 to 255, all of one shape (rows, columns).

    Raises
    ------
    ImageFileError, ImageContentError
        One cannot be read, or they differ in size.
    """
    pictures = [read_grey(path) for path in paths]
    if len({picture.shape for picture in pictures}) > 1:
        sizes = ", ".join(f"{p} {'x'.join(map(str, x.shape[::-1]))}" for p, x in zip(paths, pictures, strict=True))
        raise ImageContentError(f"slices that belong together must have one size; got {sizes}. Resample one of them.")
    return pictures
