"""A CT of a head: Hounsfield units with a brain of its own, slices, kernel, noise, beam hardening, metal."""

from __future__ import annotations

import numpy as np

from BrainFusionLib.geometry import FloatArray, Grid, apply_affine
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import AIR_HU, BoolArray, Volume, VoxelArray
from simulation import objects
from simulation.heads import Head
from simulation.physics.anatomy import Anatomy
from simulation.physics.ct_effects_torch import hardened, kernel_noise, metal_streaks
from simulation.physics.magnet import teeth
from simulation.physics.movement import Movement
from simulation.physics.sampling_torch import blurred_in_plane, pulled
from simulation.physics.slices import slice_stack
from simulation.physics.strengths import CtProtocol, CtScanner, Patient
from simulation.render import hounsfield, smooth_noise
from simulation.tissues import Coarse

EXTENT_MM = (220.0, 250.0)
FRAME_EXTENT_MM = (290.0, 300.0)
# What a cone beam sees: radius of its cylinder, and by how much its middle is darker.
CONE_RADIUS_MM, CUPPING_HU = 100.0, 60.0
# Between grey and white matter.
BRAIN_MIDDLE_HU = 33.5
FWHM = 2.355
# By how much marrow that is all fat is less dense than red one.
FATTY_MARROW_HU = 350.0


def ct_grid(head_centre_mm: FloatArray, protocol: CtProtocol, scanner: CtScanner, random: np.random.Generator) -> Grid:
    """Lay the slices around the head's new place."""
    x, y = FRAME_EXTENT_MM if protocol.frame else EXTENT_MM
    height = min(protocol.height_mm, 160.0) if scanner.cone_beam else protocol.height_mm
    if protocol.table:
        y += 30
    spacing = (protocol.pixel_mm, protocol.pixel_mm, protocol.increment_mm)
    i, j, k = (max(4, round(e / s)) for e, s in zip((x, y, height), spacing, strict=True))
    at = head_centre_mm + np.array([0, 10.0 * protocol.table, protocol.up_mm]) + random.uniform(-6, 6, 3)
    around_origin = Grid((i, j, k), spacing)
    a, b, c = (float(v) for v in at - around_origin.centre_lps_mm)
    return Grid((i, j, k), spacing, (a, b, c))


def in_header(points_ct_mm: FloatArray, grid: Grid, scanner: CtScanner, protocol: CtProtocol) -> FloatArray:
    """Return where the header puts points of the CT's space: table travel and tilt that it does not know of."""
    up = points_ct_mm[..., 2] - grid.centre_lps_mm[2]
    found = np.array(points_ct_mm, dtype=np.float64)
    found[..., 2] += scanner.table_scale * up
    found[..., 1] += np.tan(np.deg2rad(protocol.tilt_error_deg)) * up
    return found


def from_header(points_lps_mm: FloatArray, grid: Grid, scanner: CtScanner, protocol: CtProtocol) -> FloatArray:
    """Return the way back of `in_header`."""
    up = (points_lps_mm[..., 2] - grid.centre_lps_mm[2]) / (1 + scanner.table_scale)
    found = np.array(points_lps_mm, dtype=np.float64)
    found[..., 2] = grid.centre_lps_mm[2] + up
    found[..., 1] -= np.tan(np.deg2rad(protocol.tilt_error_deg)) * up
    return found


def ct_image(
    anatomy: Anatomy,
    movement: Movement,
    patient: Patient,
    scanner: CtScanner,
    protocol: CtProtocol,
    pose: RigidTransform,
    grid: Grid,
    look: np.random.Generator,
    noise: np.random.Generator,
) -> Volume:
    """Return the CT of a head that has moved, in whole Hounsfield units; `pose` takes points of the head to the CT."""
    head = Head(anatomy.head.name, movement.tissue_kji, anatomy.grid)
    hu = _head_hu(anatomy, movement, protocol, look)
    if patient.marrow:
        hu[movement.tissue_kji == Coarse.CANCELLOUS] -= np.float32(FATTY_MARROW_HU * patient.marrow)
    _draw_metal(hu, head, anatomy, movement, patient, look)
    hu_grid = anatomy.grid
    if protocol.frame:
        hu, hu_grid = objects.with_frame(hu, head, look)
    back = pose.inverse()
    stack = slice_stack(grid, protocol.thickness_mm)
    fine = pulled(hu[None], hu_grid, stack.fine, lambda y: back.apply(from_header(y, grid, scanner, protocol)), AIR_HU)[
        0
    ]
    ct = stack.averaged(fine)
    if protocol.table:
        ct = np.ascontiguousarray(ct)
        objects.add_table(ct, grid, look)
    # Half a voxel of blur comes from the interpolation.
    ct = _kernel(ct, protocol)
    brain_noise = protocol.noise_hu * kernel_noise(ct.shape, protocol.pixel_mm, protocol.kernel_mm, noise)
    ct = hardened(ct, brain_noise, protocol.pixel_mm, scanner.hardening, noise)
    if patient.dental_mm or patient.electrodes or patient.opening == "craniotomy" or protocol.frame:
        metal_streaks(ct, protocol.pixel_mm, noise)
    if scanner.cone_beam:
        ct = _cone_beam(ct, grid)
    scaled = (ct + 1000) * np.float32(scanner.hu_scale) - 1000
    scaled += np.float32(scanner.hu_offset) * (ct > -500)
    low, high = protocol.clip_hu
    return Volume(np.clip(np.rint(scaled), low, high), grid, "CT", "CT")


def _head_hu(anatomy: Anatomy, movement: Movement, protocol: CtProtocol, look: np.random.Generator) -> VoxelArray:
    """Return Hounsfield units whose brain is not a function of its tissues alone.

    Grey and white matter differ by up to 9 HU, fluid by 12 to 30, both of which change over centimetres; the edges
    between them are softer than the labels', and on all lies a texture that no label has. How much of the MRI is
    left in it is measured by `benchmarks.realism.dependence`.
    """
    tissue, shape, spacing = movement.tissue_kji, movement.tissue_kji.shape, anatomy.grid.spacing_ijk_mm[0]
    hu = hounsfield(tissue, movement.texture)
    brain, fluid = (tissue == Coarse.GREY) | (tissue == Coarse.WHITE), tissue == Coarse.FLUID
    uneven = smooth_noise(shape, 25 / spacing, look)
    strength, level = look.uniform(0.15, 0.6), look.uniform(3, 12)
    own = 2.0 * smooth_noise(shape, 30 / spacing, look)
    own += 2.2 * smooth_noise(shape, 8 / spacing, look)
    both = brain | fluid
    box = _box_of(both, margin=2)
    change = np.zeros(both[box].shape, np.float32)
    np.copyto(change, np.clip(strength * (1 + 0.8 * uneven[box]), 0, 1) * (hu[box] - BRAIN_MIDDLE_HU), where=brain[box])
    np.copyto(change, (level - BRAIN_MIDDLE_HU) * np.clip(0.75 + 0.3 * uneven[box], 0.4, 1), where=fluid[box])
    weight = both[box].astype(np.float32)
    for _ in range(2):
        change, weight = _softened(change), _softened(weight)
    level_hu = BRAIN_MIDDLE_HU + change / np.maximum(weight, np.float32(1e-3)) + own[box]
    np.copyto(hu[box], level_hu, where=both[box])
    np.copyto(hu, np.float32(protocol.iodine_hu), where=tissue == Coarse.VESSEL)
    return hu


def _box_of(mask: BoolArray, margin: int) -> tuple[slice, slice, slice]:
    """Return the smallest box around a mask, some voxels wider."""
    k, j, i = (
        slice(max(0, int(there[0]) - margin), int(there[-1]) + margin + 1)
        for there in (np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    )
    return k, j, i


def _softened(image: VoxelArray) -> VoxelArray:
    """Return an image averaged with its neighbours along each axis (1, 2, 1)."""
    for axis in range(3):
        view = np.moveaxis(image, axis, 0)
        made = 0.5 * view
        made[1:] += 0.25 * view[:-1]
        made[:-1] += 0.25 * view[1:]
        image = np.moveaxis(made, 0, axis)
    return image


def _draw_metal(
    hu: VoxelArray, head: Head, anatomy: Anatomy, movement: Movement, patient: Patient, look: np.random.Generator
) -> None:
    if patient.electrodes:
        objects.add_electrodes(hu, head, look)
    if patient.opening == "craniotomy":
        outwards = movement.opening_lps_mm - head.centre_lps_mm
        outwards /= np.linalg.norm(outwards)
        aside = np.linalg.svd(outwards[None])[2][1:]
        for turn in look.uniform(0, 0.5) + np.arange(3) * 2 * np.pi / 3:
            ring = np.cos(turn) * aside[0] + np.sin(turn) * aside[1]
            place = movement.opening_lps_mm + (patient.opening_mm - 1) * ring
            bone = objects.last_bone(head, head.centre_lps_mm, place - head.centre_lps_mm)
            objects.draw_rod(hu, head.grid, bone - 6 * ring, bone + 6 * ring, 1.0)
    if patient.dental_mm:
        place = teeth(anatomy)
        for side in (0.0, -44.0):
            objects.draw_rod(
                hu,
                head.grid,
                place + np.array([side, -4, 0]),
                place + np.array([side, 4, 0]),
                max(2.0, patient.dental_mm),
            )


def _kernel(ct: VoxelArray, protocol: CtProtocol) -> VoxelArray:
    """Blur in the plane as a soft kernel does; a sharp one overshoots at bone."""
    if protocol.kernel_mm >= 0.9:
        sigma = np.sqrt(max((protocol.kernel_mm / FWHM) ** 2 - (0.4 * protocol.pixel_mm) ** 2, 0.02))
        return blurred_in_plane(ct, float(sigma) / protocol.pixel_mm)
    soft = blurred_in_plane(ct, 1.0 / protocol.pixel_mm)
    return ct + np.float32(0.25) * (ct - soft)


def _cone_beam(ct: VoxelArray, grid: Grid) -> VoxelArray:
    """Darken the middle, and see nothing beyond a cylinder but a glow at its border."""
    middle = apply_affine(grid.lps_from_ijk, (np.asarray(grid.size_ijk) - 1) / 2)
    x, y = (
        grid.origin_lps_mm[axis] + np.arange(grid.size_ijk[axis]) * grid.spacing_ijk_mm[axis] - middle[axis]
        for axis in (0, 1)
    )
    r = (np.hypot(x, y[:, None]) / CONE_RADIUS_MM).astype(np.float32)
    shaped = ct + np.where(ct > -500, CUPPING_HU * (r * r - 0.7) + 80 * np.clip((r - 0.9) * 10, 0, 1), 0)
    return np.where(r <= 1, shaped, np.float32(-1000)).astype(np.float32)
