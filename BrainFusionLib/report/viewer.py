"""The report's viewer: all slices in three linked planes, in the page itself.

A small canvas viewer of our own (`viewer.js`, 6 kB), not NiiVue: that is 1.5 MB minified and needs WebGL 2, which a
mail attachment opened on a hospital's machine may not have; all that is shown here are grey values in three planes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from BrainFusionLib.evidence import LocalErrors
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.intensity import CT_KNOTS_UNIT, ct_to_unit, hu_from_unit
from BrainFusionLib.io.deflate import ZLIB, compressor
from BrainFusionLib.quantities import interval
from BrainFusionLib.report.page import Html, data, raw, render
from BrainFusionLib.report.pictures import Scene
from BrainFusionLib.volume import VoxelArray

# Voxels of the viewer are not smaller than this: a head of 256x256x220 at 1 mm makes a page of 5 MB.
FINEST_MM = 1.5
# The greatest unit value that the 8 bits show: the end of dense bone.
WHITE_UNIT = CT_KNOTS_UNIT[-2]
LEVELS = 256


@dataclass(frozen=True)
class Layer:
    """One of the three volumes.

    Attributes
    ----------
    name
        What the read-out calls it.
    grey
        Its voxels, 8 bits each, compressed, in base 64: slices, rows, columns.
    readings
        The value of each grey level, with its resolution and unit.
    """

    name: str
    grey: str
    readings: list[str]


@dataclass(frozen=True)
class LocalMisalignment:
    """One region: where, in the viewer's voxels (slice, row, column), and how far misaligned."""

    place: list[float]
    mm: float


@dataclass(frozen=True)
class ViewerData:
    """What `viewer.js` reads.

    Attributes
    ----------
    size
        Slices, rows, columns.
    step_mm
        Voxel size of the viewer.
    centre
        The voxel that it begins at.
    spl
        Of each slice, row and column, which one of the MRI it is.
    lps_from_spl
        4x4: takes those to LPS mm of the MRI's space.
    mri, ct, fused
        The volumes.
    local, local_spacing_mm
        Regions tested, and their distance.
    worst
        The voxel of the largest misalignment; ``None`` where nothing was tested.
    """

    size: list[int]
    step_mm: float
    centre: list[int]
    spl: list[list[int]]
    lps_from_spl: list[list[float]]
    mri: Layer
    ct: Layer
    fused: Layer
    local: list[LocalMisalignment]
    local_spacing_mm: float
    worst: list[float] | None


def viewer(scene: Scene, local: LocalErrors | None) -> Html:
    """Return the viewer as HTML: its controls, its script, and the volumes."""
    return render(
        "viewer",
        levels=LEVELS,
        data=data(viewer_data(scene, local)),
        script=render("inline-script", script=raw("viewer.js")),
    )


def viewer_data(scene: Scene, local: LocalErrors | None) -> ViewerData:
    """Return what the viewer shows.

    Parameters
    ----------
    scene
        The volumes, turned to the anatomical frame.
    local
        Misalignment of regions of the head, where that was measured.
    """
    step = max(FINEST_MM, min(scene.spacing_spl_mm))
    places = [
        _places(first, last, size, step)
        for (first, last), size in zip(scene.box_spl, scene.spacing_spl_mm, strict=True)
    ]
    low, high = scene.mri_range
    mri, fused = (
        (array[np.ix_(*places)] - np.float32(low)) / np.float32(high - low)
        for array in (scene.mri_spl, scene.fused_spl)
    )
    ct = ct_to_unit(scene.ct_spl[np.ix_(*places)])
    mri_readings, ct_readings = readings_of_mri(low, high), readings_of_ct()
    regions: list[LocalMisalignment] = []
    worst = None
    if local is not None and local.worst is not None:
        voxels = _voxels_of(scene, local.points_lps_mm, step).round(1).tolist()
        lengths = local.lengths_mm.round(1).tolist()
        regions = [LocalMisalignment(voxel, mm) for voxel, mm in zip(voxels, lengths, strict=True)]
        worst = _voxels_of(scene, local.worst[0][None], step)[0].round(1).tolist()
    return ViewerData(
        size=list(mri.shape),
        step_mm=step,
        centre=[int(np.abs(where - middle).argmin()) for where, middle in zip(places, scene.centre_spl, strict=True)],
        spl=[where.tolist() for where in places],
        lps_from_spl=np.linalg.inv(scene.spl_from_lps).tolist(),
        mri=Layer("MRI", _packed(mri), mri_readings),
        ct=Layer("CT", _packed(ct), ct_readings),
        fused=Layer("fused", _packed(fused), mri_readings),
        local=regions,
        local_spacing_mm=1.0 if local is None else local.spacing_mm,
        worst=worst,
    )


def readings_of_ct() -> list[str]:
    """Return what each grey level of a CT means, Hounsfield units."""
    return _readings(lambda unit: hu_from_unit(unit).astype(np.float64), "HU")


def readings_of_mri(low: float, high: float) -> list[str]:
    """Return what each grey level of an MRI means, whose values `low` and `high` are 0 and 1 on the unit scale."""
    return _readings(lambda unit: low + (high - low) * unit, "")


def _readings(value_of_unit: Callable[[FloatArray], FloatArray], unit: str) -> list[str]:
    """Return the range of values that was rounded to each grey level; the ends stand for all beyond them, too."""
    units: FloatArray = (np.arange(LEVELS - 1, dtype=np.float64) + 0.5) * (WHITE_UNIT / (LEVELS - 1))
    borders = value_of_unit(units)
    lows, highs = [-np.inf, *borders.tolist()], [*borders.tolist(), np.inf]
    return [interval(low, high, unit) for low, high in zip(lows, highs, strict=True)]


def _places(first: int, last: int, size_mm: float, step_mm: float) -> npt.NDArray[np.intp]:
    """Return which voxels between two the viewer shows: every `step_mm`, the nearest."""
    count = max(1, int((last - first) * size_mm / step_mm))
    places = first + (np.arange(count) + 0.5) * step_mm / size_mm
    return np.minimum(places.astype(np.intp), last - 1)


def _voxels_of(scene: Scene, points_lps_mm: FloatArray, step_mm: float) -> FloatArray:
    """Return where points are in the viewer's voxels (slice, row, column)."""
    spl = scene.spl_of_lps(points_lps_mm)
    firsts = np.array([first for first, _ in scene.box_spl])
    voxels: FloatArray = (spl + 0.5 - firsts) * np.asarray(scene.spacing_spl_mm) / step_mm - 0.5
    return voxels


def _packed(unit: VoxelArray) -> str:
    """Return values on the unit scale as 8 bits, compressed, as text."""
    grey = np.clip(np.rint(unit * np.float32((LEVELS - 1) / WHITE_UNIT)), 0, LEVELS - 1).astype(np.uint8)
    packing = compressor(ZLIB)
    return base64.b64encode(packing.compress(grey.tobytes()) + packing.flush()).decode("ascii")
