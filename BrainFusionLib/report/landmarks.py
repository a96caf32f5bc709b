"""The report's section on landmarks: residuals as arrows on three planes, and as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.landmarks import CAUTION, LandmarkErrors, LandmarkPoint
from BrainFusionLib.quantities import length, position
from BrainFusionLib.report.images import jpeg_uri
from BrainFusionLib.report.page import Html, render
from BrainFusionLib.report.pictures import EDGE_LETTERS, Plane, PlanePictures, Scene

# Arrows are so many times as long as the residuals, most of which would be two pixels long.
MAGNIFIED = 5
# Axes of S, P, L that are rows and columns of a plane's picture.
_AXES: dict[Plane, tuple[int, int]] = {"axial": (1, 2), "coronal": (0, 2), "sagittal": (0, 1)}


def landmark_section(landmarks: LandmarkErrors | None, scene: Scene, planes: Sequence[PlanePictures]) -> list[Html]:
    """Return the section, with all points projected onto the planes; nothing without landmarks."""
    if landmarks is None:
        return []
    ordered = sorted(landmarks.points, key=lambda point: -point.residual_mm)
    rows = [("landmark", "residual", "in the MRI")]
    rows += [(point.name, length(point.residual_mm), position(point.mri_lps_mm)) for point in ordered]
    return [
        render(
            "landmarks",
            summary=f"{len(ordered)} landmarks: median residual {length(landmarks.median_mm)}, worst "
            f"{length(landmarks.worst_mm)} ({landmarks.worst.name}).",
            caution=CAUTION,
            magnified=MAGNIFIED,
            figures=[_figure(scene, pictures, landmarks) for pictures in planes],
            rows=[render("row", cells=[render("cell", text=text) for text in cells]) for cells in rows],
        )
    ]


def _figure(scene: Scene, pictures: PlanePictures, landmarks: LandmarkErrors) -> Html:
    height, width = pictures.mri.shape
    places = zip(("left", "right", "top", "bottom"), EDGE_LETTERS[pictures.plane], strict=False)
    return render(
        "landmark-figure",
        weight=f"{width / height:.4f}",
        source=jpeg_uri(pictures.mri),
        description=f"{pictures.plane}: residuals of the landmarks",
        width=width,
        height=height,
        arrows=[_arrow(scene, pictures, point) for point in landmarks.points],
        letters=[render("letter", place=place, letter=letter) for place, letter in places],
    )


def _arrow(scene: Scene, pictures: PlanePictures, point: LandmarkPoint) -> Html:
    ends = np.stack([point.mri_lps_mm, point.mri_lps_mm + MAGNIFIED * point.shift_mm])
    (y1, x1), (y2, x2) = pixels_of(scene, pictures, ends).tolist()
    return render(
        "landmark-arrow", name=f"{point.name}: {length(point.residual_mm)}",
        x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}",
    )  # fmt: skip


def pixels_of(scene: Scene, pictures: PlanePictures, points_lps_mm: FloatArray) -> FloatArray:
    """Return row and column, (n, 2), of points, (n, 3) LPS mm, projected onto a plane's picture.

    The first pixel reaches from 0 to 1.
    """
    spl = scene.spl_of_lps(points_lps_mm) + 0.5
    found = np.empty((len(spl), 2))
    # The picture's size is rounded to whole pixels.
    for n, (axis, pixels) in enumerate(zip(_AXES[pictures.plane], pictures.mri.shape, strict=True)):
        low, high = scene.box_spl[axis]
        share = (spl[:, axis] - low) / (high - low)
        found[:, n] = pixels * (1 - share if axis == 0 else share)  # superior on top
    return found
