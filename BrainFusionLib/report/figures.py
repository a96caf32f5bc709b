"""The report's pictures as parts of a page."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from BrainFusionLib.geometry import apply_affine
from BrainFusionLib.quantities import coordinate, number
from BrainFusionLib.report.images import edges_uri, jpeg_uri, png_uri
from BrainFusionLib.report.page import Html, render
from BrainFusionLib.report.pictures import (
    EDGE_LETTERS,
    Picture,
    PlanePictures,
    Scene,
    axial_positions,
    joint_histogram,
    plane_pictures,
)


def rows_of_planes(planes: Sequence[PlanePictures]) -> list[Html]:
    """Return three rows (outline on MRI, checkerboard, fused) of three planes, all of one height in millimetres."""
    height = max(p.mri.shape[0] for p in planes)
    kinds = (
        ("CT bone outline on the MRI", "aligned when the MRI's dark skull lies between the lines", "mri", True),
        ("Checkerboard of MRI and CT", "aligned when skin and skull run on from tile to tile", "checkerboard", False),
        ("Fused", "the CT's bone, brighter than nearly all tissue, in the MRI", "fused", False),
    )
    rows = []
    for heading, hint, kind, lined in kinds:
        cells = []
        for p in planes:
            grey = _padded(getattr(p, kind), height)
            edges = _padded(p.edges, height) if lined else None
            figure = _figure(grey, edges, f"{p.plane}: {heading}", EDGE_LETTERS[p.plane], p.mm_per_pixel)
            cells.append(render("plane-cell", weight=f"{grey.shape[1] / height:.4f}", figure=figure))
        shape = "planes lined" if lined else "planes"
        rows.append(render("plane-row", heading=heading, hint=hint, kind=shape, cells=cells))
    return rows


def strip(scene: Scene) -> list[Html]:
    """Return axial slices from feet to head, each with its position where it crosses the middle of the head."""
    cells = []
    lps_from_spl = np.linalg.inv(scene.spl_from_lps)
    for slice_number in axial_positions(scene):
        # Coarser pixels, so that the outline is not too thin at this size.
        p = plane_pictures(scene, "axial", slice_number, mm_per_pixel=0.7)
        place = apply_affine(lps_from_spl, np.array([slice_number, *scene.centre_spl[1:]], dtype=np.float64))
        caption = f"{coordinate(2, place)} mm"
        figure = _figure(p.fused, p.edges, f"axial, fused with the CT bone outline, {caption}", "R", None)
        cells.append(render("strip-cell", figure=figure, caption=caption))
    return cells


def slider(axial: PlanePictures) -> Html:
    """Return MRI and fused, one over the other, with a divider to drag."""
    return render("slider", mri=jpeg_uri(axial.mri_as_fused), fused=jpeg_uri(axial.fused))


def histogram(scene: Scene) -> Html:
    """Return the joint histogram with its axes."""
    picture, hu, values = joint_histogram(scene)
    left, top, side = 52, 6, 300
    ticks = []
    for tick in _round_ticks(*hu):
        x = left + side * (tick - hu[0]) / (hu[1] - hu[0])
        ticks.append(render("tick-x", x=f"{x:.1f}", y=top + side, label_y=top + side + 17, label=number(tick, 4)))
    for tick in _round_ticks(*values):
        y = top + side * (1 - (tick - values[0]) / (values[1] - values[0]))
        ticks.append(
            render("tick-y", x=left - 5, y=f"{y:.1f}", label_x=left - 8, label_y=f"{y + 4:.1f}", label=number(tick, 4))
        )
    return render(
        "histogram", width=left + side + 10, height=top + side + 40, left=left, top=top, side=side,
        picture=png_uri(picture), ticks=ticks, middle_x=left + side / 2, middle_y=top + side / 2,
        label_y=top + side + 36,
    )  # fmt: skip


def _padded(picture: Picture, height: int) -> Picture:
    missing = height - picture.shape[0]
    return np.pad(picture, ((missing // 2, missing - missing // 2), (0, 0)))


def _figure(grey: Picture, edges: Picture | None, description: str, letters: str, mm_per_pixel: float | None) -> Html:
    """One picture with its lines, its letters (left, right, top, bottom) and a 50 mm bar."""
    layers = [] if edges is None else [render("edges", source=edges_uri(edges))]
    for place, letter in zip(("left", "right", "top", "bottom"), letters, strict=False):
        layers.append(render("letter", place=place, letter=letter))
    if mm_per_pixel is not None:
        layers.append(render("scale-bar", width=f"{100 * 50 / mm_per_pixel / grey.shape[1]:.2f}"))
    return render("figure", source=jpeg_uri(grey), description=description, layers=layers)


def _round_ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers between two values."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.8)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
