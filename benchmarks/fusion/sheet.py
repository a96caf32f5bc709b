"""Sheets of pictures: slices by methods with their bone rim enlarged, and bone rims of many slices alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from BrainFusionLib.intensity import windowed_bone_weight
from BrainFusionLib.io import atomic_output, list_pictures, read_grey
from BrainFusionLib.volume import VoxelArray

TILE, GAP, TITLE = 224, 6, 26
ZOOM = 3
# Of a close-up, and how many stand beside each other.
CLOSE_UP_ZOOM, ABREAST = 4, 2
PAPER, INK, FRAME = 16, 235, 255
# Grey level up to which an MRI shows air, and pixels left around the head.
AIR, MARGIN = 24, 4


def write_sheet(folders: Mapping[str, Path], names: Sequence[str], path: Path) -> None:
    """Write the pictures of `names` in each of `folders` (CT, MRI, results), titled by its key, as one PNG.

    Each picture has an enlarged part (3×) of itself below it: where the CT has most rim of bone beside tissue.

    Raises
    ------
    ImageFileError
        A picture is missing or cannot be read, or the sheet cannot be written.
    """
    pictures = {title: list_pictures(folder) for title, folder in folders.items()}
    width = len(folders) * (TILE + GAP) + GAP
    sheet = Image.new("L", (width, TITLE + len(names) * 2 * (TILE + GAP)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for column, title in enumerate(folders):
        draw.text((GAP + column * (TILE + GAP) + TILE / 2, TITLE / 2), title, INK, font, anchor="mm")
    for row, name in enumerate(names):
        read = [read_grey(found[name]) for found in pictures.values()]
        rows, columns = _head(read[1])
        read = [levels[rows, columns] for levels in read]
        box = _rim_window(read[0], read[1], tuple(max(1, size // ZOOM) for size in read[0].shape))
        for column, levels in enumerate(read):
            whole = Image.fromarray(np.rint(levels).astype(np.uint8))
            corner = (GAP + column * (TILE + GAP), TITLE + row * 2 * (TILE + GAP))
            sheet.paste(whole.resize((TILE, TILE), Image.Resampling.LANCZOS), corner)
            part = whole.crop(box).resize((TILE, TILE), Image.Resampling.NEAREST)
            sheet.paste(part, (corner[0], corner[1] + TILE + GAP))
            if column == 0:
                scale = (TILE / whole.width, TILE / whole.height)
                outline = [corner[i % 2] + box[i] * scale[i % 2] for i in range(4)]
                draw.rectangle(outline, outline=FRAME)
    with atomic_output(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def write_close_ups(folders: Mapping[str, Path], path: Path) -> None:
    """Write the bone rim of the slices that all `folders` have (CT, MRI, results), titled by its key, 4 times enlarged.

    Raises
    ------
    ImageFileError
        A picture is missing or cannot be read, or the sheet cannot be written.
    """
    pictures = {title: list_pictures(folder) for title, folder in folders.items()}
    names = sorted(set.intersection(*(set(found) for found in pictures.values())))
    width = len(folders) * (TILE + GAP) + 2 * GAP
    rows = -(-len(names) // ABREAST)
    sheet = Image.new("L", (ABREAST * width, TITLE + rows * (TILE + GAP)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for number, name in enumerate(names):
        left, upper = number // rows * width + GAP, TITLE + number % rows * (TILE + GAP)
        ct, mri = (read_grey(found[name]) for found in list(pictures.values())[:2])
        box = _rim_window(ct, mri, tuple(min(TILE // CLOSE_UP_ZOOM, size) for size in ct.shape))
        for column, (title, found) in enumerate(pictures.items()):
            levels = read_grey(found[name])
            at = left + column * (TILE + GAP)
            part = Image.fromarray(np.rint(levels).astype(np.uint8)).crop(box)
            sheet.paste(part.resize((TILE, TILE), Image.Resampling.NEAREST), (at, upper))
            if number % rows == 0:
                draw.text((at + TILE / 2, TITLE / 2), title, INK, font, anchor="mm")
    with atomic_output(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def _head(mri: VoxelArray) -> tuple[slice, slice]:
    """Return the rows and columns, as many of both, that hold what is not air in an MRI."""
    tissue = mri > AIR
    spans = [np.flatnonzero(tissue.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    side = min(*mri.shape, max(last - first + 1 for first, last in spans) + 2 * MARGIN)
    starts = [
        min(max(0, (first + last + 1 - side) // 2), n - side) for (first, last), n in zip(spans, mri.shape, strict=True)
    ]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def _rim_window(ct: VoxelArray, mri: VoxelArray, size: Sequence[int]) -> tuple[int, int, int, int]:
    """Return the window (left, upper, right, lower), of so many rows and columns, that holds most half bone."""
    weight = windowed_bone_weight(ct, mri)
    rim = weight * (1 - weight)
    # A window that clips bone and hardly anything else leaves no half bone: then the steps from none to bone count.
    rim[1:, 1:] += 1e-6 * (abs(np.diff(weight, axis=0)[:, 1:]) + abs(np.diff(weight, axis=1)[1:]))
    rim = np.pad(rim.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows, columns = size
    inside = rim[rows:, columns:] - rim[:-rows, columns:] - rim[rows:, :-columns] + rim[:-rows, :-columns]
    upper, left = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return int(left), int(upper), int(left) + columns, int(upper) + rows
