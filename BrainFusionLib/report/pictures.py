"""Pictures to judge an alignment by: slices of CT, MRI and fused volume as 8-bit images.

Pure functions, arrays in and arrays out; `report` puts them into a page. Slices are cut along the grid's own axes and
shown in the nearest anatomical frame, in radiological convention: the patient's right on the viewer's left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from BrainFusionLib.errors import GeometryError, ImageContentError
from BrainFusionLib.geometry import FloatArray, Grid, anatomical_axes, apply_affine
from BrainFusionLib.intensity import BONE_HU, CT_KNOTS_UNIT, ct_to_unit, head_of, mri_scale, otsu_threshold
from BrainFusionLib.intensity.bone import bone_mask
from BrainFusionLib.report.palette import COUNTS_RGB, EDGE_RGB
from BrainFusionLib.volume import AIR_HU, Volume, VoxelArray

Plane = Literal["axial", "coronal", "sagittal"]
Picture = npt.NDArray[np.uint8]

PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
# What stands at the viewer's left, right, top and bottom of a picture.
EDGE_LETTERS: dict[Plane, str] = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
# Position along S, P, L of the axis that a plane is cut across.
_NORMAL: dict[Plane, int] = {"axial": 0, "coronal": 1, "sagittal": 2}

MM_PER_PIXEL = 0.5
MARGIN_MM = 8.0
# A head is about 200 mm from vertex to chin; the neck below says nothing about how well the brain is aligned.
TALLEST_HEAD_MM = 210.0
# The ventricles and the basal ganglia lie about this far below the vertex in an adult.
VERTEX_TO_CENTRE_MM = 75.0
VERTEX_TO_SKULL_BASE_MM = 155.0
TILE_MM = 24.0
AXIAL_SLICES = 6
HISTOGRAM_HU = (-200.0, 1600.0)
# The MRI keeps the lower part of the grey scale of a fused picture; bone has the rest to itself, so that it is always
# brighter than tissue and still shows its own structure.
_GREY_OF_BRIGHTEST_TISSUE = 185


@dataclass(frozen=True, eq=False)
class Scene:
    """Three volumes on one grid, turned to the nearest anatomical frame and ready to be cut.

    Attributes
    ----------
    ct_spl, mri_spl, fused_spl
        Views (no copies) whose axes grow to superior, posterior and left.
    bone_spl
        The CT, with air in the place of what is dense and no bone of the head: holder, frame, pins, clips.
    spacing_spl_mm
        Voxel size along those axes.
    box_spl
        First and last-plus-one voxel of the head along each axis: what the pictures show.
    centre_spl
        Voxel that the three main planes go through.
    centre_lps_mm
        The same place in the MRI's space, LPS mm.
    mri_range
        MRI values that mean 0 and 1 on the unit scale (see `intensity`).
    spl_from_lps
        4x4: takes points in LPS mm to voxels of the views.
    tilt_deg
        Largest angle between an axis of the grid and the body axis that it stands for.
    """

    ct_spl: VoxelArray
    mri_spl: VoxelArray
    fused_spl: VoxelArray
    bone_spl: VoxelArray
    spacing_spl_mm: tuple[float, float, float]
    box_spl: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    centre_spl: tuple[int, int, int]
    centre_lps_mm: FloatArray
    mri_range: tuple[float, float]
    tilt_deg: float
    spl_from_lps: FloatArray

    def spl_of_lps(self, points_lps_mm: FloatArray) -> FloatArray:
        """Return where points, (n, 3), LPS mm, are in voxels of the views, (n, 3), between them too."""
        return apply_affine(self.spl_from_lps, points_lps_mm)


@dataclass(frozen=True, eq=False)
class PlanePictures:
    """One slice, seen in several ways: 8-bit pictures (rows, columns) of one shape, square pixels of `mm_per_pixel`.

    `edges` is how much of each pixel the outline of the CT's bone covers, 0 to 255. `mri_as_fused` is the MRI in the
    grey scale of `fused`, so that switching between the two changes nothing but the bone.
    """

    plane: Plane
    ct: Picture
    mri: Picture
    mri_as_fused: Picture
    fused: Picture
    checkerboard: Picture
    edges: Picture
    mm_per_pixel: float


def prepare_scene(ct_in_mri: Volume, mri: Volume, fused: Volume) -> Scene:
    """Turn three volumes on the MRI's grid to the anatomical frame and find the head in them.

    Raises
    ------
    GeometryError
        The volumes are not on one grid.
    ImageContentError
        The MRI is constant.
    """
    grid = mri.grid
    for other in (ct_in_mri, fused):
        if not other.grid.same_as(grid, tolerance_mm=1e-3):
            raise GeometryError(
                f"pictures need all volumes on the MRI's grid; {other.name} is on another "
                f"({other.grid.size_ijk} voxels against {grid.size_ijk}). Resample it onto the MRI's grid first."
            )
    ct_spl, mri_spl, fused_spl = (spl_view(v.array_kji, grid) for v in (ct_in_mri, mri, fused))
    order = _spl_order(grid)
    spacing = [grid.spacing_ijk_mm[2 - kji] for kji, _ in order]
    spacing_spl = (spacing[0], spacing[1], spacing[2])
    box, centre = _find_head(ct_spl, mri_spl, spacing_spl)
    ijk = np.zeros(3)
    for (kji, flipped), position, length in zip(order, centre, mri_spl.shape, strict=True):
        ijk[2 - kji] = length - 1 - position if flipped else position
    cosines = np.sort(np.abs(grid.direction), axis=0)[-1]
    return Scene(
        ct_spl,
        mri_spl,
        fused_spl,
        spl_view(_with_bone_alone(ct_in_mri), grid),
        spacing_spl,
        box,
        centre,
        apply_affine(grid.lps_from_ijk, ijk),
        mri_scale(mri_spl),
        float(np.degrees(np.arccos(np.clip(cosines.min(), -1, 1)))),
        _spl_from_ijk(order, mri_spl.shape) @ grid.ijk_from_lps,
    )


def _with_bone_alone(ct: Volume) -> VoxelArray:
    """Return the voxels of a CT with air where it is dense without being bone of the head."""
    try:
        head = head_of(ct)
    except ImageContentError:  # air alone
        return ct.array_kji
    is_other = (ct.array_kji > BONE_HU) & ~bone_mask(ct, head)
    return np.where(is_other, np.float32(AIR_HU), ct.array_kji)


def _spl_from_ijk(order: list[tuple[int, bool]], shape_spl: tuple[int, ...]) -> FloatArray:
    """Return the 4x4 matrix that takes the grid's voxel indices ijk to those of the turned views."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for row, ((kji, flipped), length) in enumerate(zip(order, shape_spl, strict=True)):
        matrix[row, 2 - kji] = -1 if flipped else 1
        matrix[row, 3] = length - 1 if flipped else 0
    return matrix


def spl_view(array_kji: VoxelArray, grid: Grid) -> VoxelArray:
    """Return a view of a volume's array whose axes grow to superior, posterior and left (as near as the grid can)."""
    order = _spl_order(grid)
    turned = array_kji.transpose([kji for kji, _ in order])
    return turned[tuple(slice(None, None, -1) if flipped else slice(None) for _, flipped in order)]


def _spl_order(grid: Grid) -> list[tuple[int, bool]]:
    """For S, P and L: which array axis lies along it, and whether that axis grows the other way."""
    letters = anatomical_axes(grid.direction)[::-1]  # of k, j, i
    return [
        next((kji, letter != positive) for kji, letter in enumerate(letters) if letter in (positive, negative))
        for positive, negative in ("SI", "PA", "LR")
    ]


def _find_head(
    ct_spl: VoxelArray, mri_spl: VoxelArray, spacing_spl_mm: tuple[float, float, float]
) -> tuple[tuple[tuple[int, int], tuple[int, int], tuple[int, int]], tuple[int, int, int]]:
    """Return the box around the head and the voxel at its centre, worked out on every fourth millimetre."""
    steps = [max(1, round(4.0 / s)) for s in spacing_spl_mm]
    coarse = tuple(slice(None, None, step) for step in steps)
    mri, ct = mri_spl[coarse], ct_spl[coarse]
    # Half of Otsu's threshold keeps dark skin and drops the noise of the air.
    head = mri > mri.min() + (otsu_threshold(mri) - mri.min()) / 2
    seen = head | (ct > BONE_HU)
    both = head & (ct > -BONE_HU)

    extents = [_extent(seen, axis) for axis in range(3)]
    bottom = extents[0][1] - round(TALLEST_HEAD_MM / (steps[0] * spacing_spl_mm[0]))
    extents[0] = (max(extents[0][0], bottom), extents[0][1])
    # Centred on what both images show, so that a CT of part of the head is looked at where it is.
    shared = [_extent(both, axis) for axis in range(3)] if both.any() else extents
    middle = [(first + last) / 2 * step for (first, last), step in zip(shared, steps, strict=True)]
    middle[0] = max(middle[0], (shared[0][1] - 1) * steps[0] - VERTEX_TO_CENTRE_MM / spacing_spl_mm[0])

    box: list[tuple[int, int]] = []
    for axis, (first, last) in enumerate(extents):
        margin = round(MARGIN_MM / spacing_spl_mm[axis])
        length = mri_spl.shape[axis]
        box.append((max(0, first * steps[axis] - margin), min(length, last * steps[axis] + margin)))
    centre = [min(max(round(m), low), high - 1) for m, (low, high) in zip(middle, box, strict=True)]
    return (box[0], box[1], box[2]), (centre[0], centre[1], centre[2])


def _extent(mask: npt.NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """First and last-plus-one index along `axis` where the mask is more than a few specks; everything if nowhere."""
    counts = mask.sum(axis=tuple(a for a in range(3) if a != axis))
    there = np.flatnonzero(counts > 0.02 * counts.max())
    return (int(there[0]), int(there[-1]) + 1) if there.size else (0, mask.shape[axis])


def plane_pictures(
    scene: Scene, plane: Plane, position: int | None = None, mm_per_pixel: float = MM_PER_PIXEL
) -> PlanePictures:
    """Cut one slice through the three volumes and picture it.

    Parameters
    ----------
    scene
        From `prepare_scene`.
    plane
        ``"axial"``, ``"coronal"`` or ``"sagittal"``.
    position
        Which slice, as an index along S, P or L of the scene; through the centre of the head when ``None``.
    mm_per_pixel
        Side of a (square) pixel, mm.
    """
    index = scene.centre_spl[_NORMAL[plane]] if position is None else position
    ct = np.clip(_cut(scene, scene.ct_spl, plane, index, mm_per_pixel), -1024, 4000)
    mri = _cut(scene, scene.mri_spl, plane, index, mm_per_pixel)
    fused = _cut(scene, scene.fused_spl, plane, index, mm_per_pixel)
    low, high = scene.mri_range
    mri_unit = (mri - low) / (high - low)
    fused_unit = (fused - low) / (high - low)
    ct_grey, mri_grey = _grey_with_bone(ct_to_unit(ct)), _grey(mri_unit)

    tile = max(1, round(TILE_MM / mm_per_pixel))
    rows, columns = np.indices(ct_grey.shape) // tile
    checkerboard = np.where((rows + columns) % 2 == 0, mri_grey, ct_grey)
    # The outline is found at twice the resolution and averaged, for a thin line without stairs.
    twice = _cut(scene, scene.bone_spl, plane, index, mm_per_pixel / 2, ct.shape)
    return PlanePictures(
        plane,
        ct_grey,
        mri_grey,
        _grey_with_bone(mri_unit),
        _grey_with_bone(fused_unit),
        checkerboard,
        _outline(twice > BONE_HU),
        mm_per_pixel,
    )


def _cut(
    scene: Scene,
    volume_spl: VoxelArray,
    plane: Plane,
    position: int,
    mm_per_pixel: float,
    half_shape: tuple[int, ...] | None = None,
) -> VoxelArray:
    """Return one slice inside the head's box, resampled to square pixels; of twice `half_shape` if that is given."""
    axis = _NORMAL[plane]
    in_plane = [a for a in range(3) if a != axis]
    window = tuple(position if a == axis else slice(*scene.box_spl[a]) for a in range(3))
    pixels = volume_spl[window]
    if plane != "axial":
        pixels = pixels[::-1]  # superior on top
    rows, columns = half_shape or (
        max(1, round(n * scene.spacing_spl_mm[a] / mm_per_pixel)) for n, a in zip(pixels.shape, in_plane, strict=True)
    )
    scale = 2 if half_shape else 1
    image = Image.fromarray(np.ascontiguousarray(pixels))
    resized = image.resize((columns * scale, rows * scale), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def _outline(inside: npt.NDArray[np.bool_]) -> Picture:
    """Return the line where a mask begins, two pixels wide, averaged over 2x2 pixels: half the mask's size."""
    p = np.pad(inside, 1, mode="edge")
    line = np.zeros(inside.shape, dtype=np.uint8)
    for neighbour in (p[:-2, 1:-1], p[2:, 1:-1], p[1:-1, :-2], p[1:-1, 2:]):
        line |= neighbour != inside
    covered = line[::2, ::2] + line[1::2, ::2] + line[::2, 1::2] + line[1::2, 1::2]
    # 0 to 4 quarters; strengthened, because a line that falls between two pixels would look half as bright.
    picture: Picture = np.array([0, 96, 192, 255, 255], dtype=np.uint8)[covered]
    return picture


def _grey(unit: npt.NDArray[np.floating]) -> Picture:
    picture: Picture = (np.clip(unit, 0, 1) * 255 + 0.5).astype(np.uint8)
    return picture


def _grey_with_bone(unit: npt.NDArray[np.floating]) -> Picture:
    grey = np.interp(unit, (0.0, 1.0, CT_KNOTS_UNIT[-2]), (0, _GREY_OF_BRIGHTEST_TISSUE, 255))
    picture: Picture = (grey + 0.5).astype(np.uint8)
    return picture


def axial_positions(scene: Scene) -> list[int]:
    """Return `AXIAL_SLICES` axial slices evenly spread over the skull, from inferior to superior."""
    low, high = scene.box_spl[0]
    margin = 0.12 * (high - low)  # the box's own margin, and the last slices of the vertex
    first = max(low + margin, high - VERTEX_TO_SKULL_BASE_MM / scene.spacing_spl_mm[0])
    return [round(p) for p in np.linspace(first, high - 1 - margin, AXIAL_SLICES)]


def with_edges(grey: Picture, edges: Picture) -> Picture:
    """Draw an outline over a grey picture: (rows, columns) to (rows, columns, 3)."""
    cover = edges[..., None] / 255.0
    mixed = grey[..., None] * (1 - cover) + np.asarray(EDGE_RGB) * cover
    picture: Picture = (mixed + 0.5).astype(np.uint8)
    return picture


def joint_histogram(scene: Scene, bins: int = 112) -> tuple[Picture, tuple[float, float], tuple[float, float]]:
    """Count which CT values meet which MRI values, as a picture.

    Returns
    -------
    tuple
        Picture (bins, bins, 3), CT to the right and MRI upwards, brightness logarithmic in the count; the range of HU;
        the range of MRI values. Air is left out: it is most of the volume and says nothing.
    """
    # About 300 000 voxels are plenty for 12 500 bins.
    step = max(1, round((scene.mri_spl.size / 300_000) ** (1 / 3)))
    ct = scene.ct_spl[::step, ::step, ::step].ravel()
    mri = scene.mri_spl[::step, ::step, ::step].ravel()
    low, high = scene.mri_range
    mri_range = (low, low + 1.1 * (high - low))
    counts, _, _ = np.histogram2d(mri, ct, bins=bins, range=(mri_range, HISTOGRAM_HU))
    level = np.log1p(counts[::-1])
    level = level / max(float(level.max()), 1e-9)
    stops = (0.0, 0.35, 0.7, 1.0)
    channels = [np.interp(level, stops, [c[n] for c in COUNTS_RGB]) for n in range(3)]
    return (np.stack(channels, axis=-1) + 0.5).astype(np.uint8), HISTOGRAM_HU, mri_range
