"""The report's still pictures as files of their own, and the picture of the README."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from BrainFusionLib.case.output import on_mri_grid
from BrainFusionLib.case.result import Result
from BrainFusionLib.io import atomic_output
from BrainFusionLib.report.palette import CAPTION_RGB, TILE_RGB
from BrainFusionLib.report.pictures import PLANES, Picture, plane_pictures, prepare_scene, with_edges
from BrainFusionLib.volume import Volume


def write_pictures(result: Result, mri: Volume, folder: Path) -> list[Path]:
    """Write the report's still pictures as PNGs into a folder that is there: ``axial-fused.png`` and so on.

    Raises
    ------
    GeometryError, ImageContentError, ImageFileError
        As `write_report`.
    """
    result = on_mri_grid(result, mri)
    scene = prepare_scene(result.ct_in_mri, mri, result.fused)
    written = []
    for pictures in (plane_pictures(scene, plane) for plane in PLANES):
        shown = {
            "mri": pictures.mri,
            "ct": pictures.ct,
            "fused": pictures.fused,
            "checkerboard": pictures.checkerboard,
            "outline": with_edges(pictures.mri, pictures.edges),
        }
        for name, picture in shown.items():
            path = folder / f"{pictures.plane}-{name}.png"
            with atomic_output(path) as temporary:
                Image.fromarray(picture).save(temporary, format="PNG")
            written.append(path)
    return written


def write_readme_picture(result: Result, mri: Volume, path_png: str | Path) -> None:
    """Write one row of axial pictures, CT | MRI | fused | MRI with CT edges, as a PNG that suits any background.

    Raises
    ------
    GeometryError
        The volumes are not on one grid.
    ImageFileError
        The file cannot be written.
    """
    shown = plane_pictures(prepare_scene(result.ct_in_mri, mri, result.fused), "axial")
    tiles = [
        ("CT", _rgb(shown.ct)),
        ("MRI", _rgb(shown.mri)),
        ("fused", _rgb(shown.fused)),
        ("CT outline on MRI", with_edges(shown.mri, shown.edges)),
    ]
    with atomic_output(path_png) as temporary:
        _row_of_tiles(tiles).save(temporary, format="PNG", optimize=True)


def _row_of_tiles(tiles: Sequence[tuple[str, Picture]], gap: int = 12, radius: int = 14) -> Image.Image:
    """Put captioned pictures side by side on a transparent ground, with rounded corners."""
    rows, columns = tiles[0][1].shape[:2]
    caption = 40
    height = rows + caption
    row = Image.new("RGBA", (len(tiles) * (columns + gap) - gap, height), (0, 0, 0, 0))
    # Drawn four times as large and reduced, because Pillow's corners are not smoothed.
    corners = Image.new("L", (columns * 4, height * 4), 0)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, columns * 4 - 1, height * 4 - 1), radius * 4, fill=255)
    corners = corners.resize((columns, height), Image.Resampling.LANCZOS)
    for n, (words, picture) in enumerate(tiles):
        tile = Image.new("RGB", (columns, height), TILE_RGB)
        tile.paste(Image.fromarray(picture), (0, caption))
        ImageDraw.Draw(tile).text(
            (columns // 2, caption // 2), words, CAPTION_RGB, ImageFont.load_default(20), anchor="mm"
        )
        row.paste(tile, (n * (columns + gap), 0), corners)
    return row


def _rgb(grey: Picture) -> Picture:
    return np.repeat(grey[..., None], 3, axis=2)
