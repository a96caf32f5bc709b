"""A sheet of pictures: one row per slice, one column per method, and below each its bone rim, enlarged."""

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
        box = _rim_window(read[0])
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


def _head(mri: VoxelArray) -> tuple[slice, slice]:
    """Return the rows and columns, as many of both, that hold what is not air in an MRI."""
    tissue = mri > AIR
    spans = [np.flatnonzero(tissue.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    side = min(*mri.shape, max(last - first + 1 for first, last in spans) + 2 * MARGIN)
    starts = [
        min(max(0, (first + last + 1 - side) // 2), n - side) for (first, last), n in zip(spans, mri.shape, strict=True)
    ]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def _rim_window(ct: VoxelArray) -> tuple[int, int, int, int]:
    """Return the window (left, upper, right, lower) that holds most half bone, a `ZOOM`-th of the picture a side."""
    weight = windowed_bone_weight(ct)
    rim = np.pad((weight * (1 - weight)).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows, columns = (max(1, size // ZOOM) for size in ct.shape)
    inside = rim[rows:, columns:] - rim[:-rows, columns:] - rim[rows:, :-columns] + rim[:-rows, :-columns]
    upper, left = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return int(left), int(upper), int(left) + columns, int(upper) + rows
