"""The report's still pictures as files of their own."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from BrainFusionLib.case.output import on_mri_grid
from BrainFusionLib.case.result import Result
from BrainFusionLib.io import atomic_output
from BrainFusionLib.report.pictures import PLANES, plane_pictures, prepare_scene, with_edges
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
