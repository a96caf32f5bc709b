"""What surgery leaves inside the skull and in its vault: air, burr holes, missing bone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.intensity.directions import around, solid_angles, unit_directions
from BrainFusionLib.intensity.inside import AIR_HU, InsideSkull, Rays, grown, rays_from
from BrainFusionLib.volume import BoolArray

# Air inside the skull lies inside the surface with this share of its volume, and with that share below `DEEP_MM`: air
# in mastoid, ear and sinuses, of which the surface may cut off a corner, does not. Pockets below `LEAST_POCKET_ML` are
# noise.
LEAST_INSIDE, DEEP_MM, LEAST_DEEP, LEAST_POCKET_ML = 0.6, 3.0, 0.12, 0.2
# At the base, around the petrous bones and sinuses, air must lie deeper.
BASE_COSINE, LEAST_DEEP_AT_BASE = -0.35, 0.75
# Between these depths below the inner table any bone counts, also thin bone under partial volume.
BEFORE_MM, BEHIND_MM = 5.0, 18.0
THIN_BONE_HU, NOISE_FACTOR = 120.0, 5.0
# The vault is covered by less than this: scalp, swelling and temporal muscle. Directions near others are not judged.
COVER_MM, AROUND_BASE_DEG = 30.0, 8.0
# Lowest directions of the vault, as the cosine to "up", and how much higher they are in front, above the orbits.
VAULT_COSINE, VAULT_COSINE_IN_FRONT = -0.1, 0.35
# From the inner table to the middle of the bone.
HALF_BONE_MM = 4.0
# Smaller holes are gaps between rays; larger ones are no burr holes.
LEAST_HOLE_CM2, BURR_HOLE_CM2 = 0.4, 3.0


def air_ml(inside: InsideSkull, up: npt.ArrayLike = (0, 0, 1)) -> float:
    """Return the volume of the air inside the skull, mL; not that of sinuses, mastoid and ear, or outside a hole.

    Parameters
    ----------
    inside
        The inside of the skull.
    up
        Direction of the top of the head, in the CT's LPS space.
    """
    import SimpleITK as sitk

    box = _box_of(inside.depth_kji > -20)
    hu, depth, mask = inside.hu_kji[box], inside.depth_kji[box], inside.mask_kji[box]
    pieces = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray((hu < AIR_HU).astype(np.uint8))))
    voxel_ml = float(np.prod(inside.grid.spacing_ijk_mm)) / 1000
    here = mask & (depth > 0)
    count = int(pieces.max()) + 1
    everything = np.bincount(pieces.ravel(), minlength=count).astype(np.float64)
    within = np.bincount(pieces[here], minlength=count)
    deep = np.bincount(pieces[here & (depth > DEEP_MM)], minlength=count)
    chosen = (
        (within * voxel_ml > LEAST_POCKET_ML) & (within > LEAST_INSIDE * everything) & (deep > LEAST_DEEP * everything)
    )
    chosen[0] = False
    upwards = inside.grid.direction.T @ np.asarray(up, dtype=np.float64)
    for piece in np.flatnonzero(chosen):
        at = np.argwhere(pieces == piece).mean(axis=0) + [b.start for b in box] - inside.centre_kji
        towards = (at * inside.grid.spacing_ijk_mm[::-1])[::-1]
        if towards @ upwards < BASE_COSINE * np.linalg.norm(towards):
            chosen[piece] = deep[piece] > LEAST_DEEP_AT_BASE * everything[piece]
    # Voxels at the rim of a pocket hold air in part.
    rim = grown(chosen[pieces]) & mask & (depth > -1)
    part = (inside.brain_hu - hu[rim]) / (1000 + inside.brain_hu)
    return float(np.clip(part, 0, 1).sum() * voxel_ml)


def holes_cm2(inside: InsideSkull, up: npt.ArrayLike = (0, 0, 1)) -> FloatArray:
    """Return the areas of the holes in the vault, cm², largest first.

    A hole is a patch of directions without any bone between the inside and the air around the head. The foramen
    magnum, the orbits and the rest of the base, and what lies at the border of the field of view, are not judged.

    Parameters
    ----------
    inside
        The inside of the skull.
    up
        Direction of the top of the head, in the CT's LPS space.
    """
    rays = rays_from(inside.hu_kji, np.asarray(inside.grid.spacing_ijk_mm[::-1]), inside.centre_kji)
    surface = inside.radii_mm[:, None]
    near = (rays.radii_mm >= surface - BEFORE_MM) & (rays.radii_mm <= surface + BEHIND_MM)
    thin = inside.brain_hu + max(THIN_BONE_HU, NOISE_FACTOR * inside.noise_hu)
    no_bone = ~((rays.values > thin) & rays.in_field & near).any(axis=1)
    gone = no_bone & _vault(inside, rays, inside.grid.direction.T @ np.asarray(up, dtype=np.float64))
    areas = solid_angles() * (inside.radii_mm + HALF_BONE_MM) ** 2 / 100
    found = [float(areas[patch].sum()) for patch in _patches(gone)]
    return np.sort(np.array([area for area in found if area > LEAST_HOLE_CM2]))[::-1]


def _vault(inside: InsideSkull, rays: Rays, up: FloatArray) -> BoolArray:
    """Return the directions of the vault: up, thinly covered, and in the field of view."""
    directions = unit_directions()
    front = np.cross(np.cross(up, inside.grid.direction.T @ np.array([0.0, -1.0, 0.0])), up)
    front /= max(1e-6, float(np.linalg.norm(front)))
    level = directions @ up - VAULT_COSINE_IN_FRONT * np.maximum(directions @ front, 0)
    surface = inside.radii_mm[:, None]
    covered = (rays.radii_mm > surface) & (rays.radii_mm < surface + COVER_MM)
    in_view = rays.in_field & _in_disc(inside, rays)
    air = rays.values < -300
    reached = (air & in_view & covered).any(axis=1)
    base = ~reached & (in_view | ~covered).all(axis=1)
    base |= base[around(AROUND_BASE_DEG)].any(axis=1)
    # Up to the air, the ray must stay in view.
    outside = (air & covered).argmax(axis=1)
    cut = (~in_view).any(axis=1) & (np.where(in_view, 1000, np.arange(len(rays.radii_mm))).min(axis=1) <= outside)
    return (level > VAULT_COSINE) & reached & ~cut & ~base


def _in_disc(inside: InsideSkull, rays: Rays) -> BoolArray:
    """Return whether samples lie in the field of view, which may be a cylinder with a constant value around it."""
    hu = inside.hu_kji
    valid = (hu > hu.min() + 0.5).any(axis=0)
    disc = _disc_of(valid)
    if disc is None:
        return np.ones(rays.values.shape, bool)
    (row, column), radius = disc
    _, y, x = (float(v) for v in inside.centre_kji)
    directions, (size_x, size_y, _) = unit_directions(), inside.grid.spacing_ijk_mm
    off_x = (x - column) * size_x + directions[:, :1] * rays.radii_mm
    off_y = (y - row) * size_y + directions[:, 1:2] * rays.radii_mm
    margin = 2 * max(size_x, size_y)
    found: BoolArray = off_x**2 + off_y**2 < (radius * size_x - margin) ** 2
    return found


def _disc_of(valid: BoolArray) -> tuple[tuple[float, float], float] | None:
    """Return the middle (row, column) and radius of a mask that is a disc; ``None`` if it is another shape."""
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    if not len(rows) or valid.all():
        return None
    middle = ((rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2)
    radius = max(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) / 2
    j, i = np.ogrid[: valid.shape[0], : valid.shape[1]]
    disc = (j - middle[0]) ** 2 + (i - middle[1]) ** 2 <= radius**2
    same = np.count_nonzero(valid & disc) / max(1, np.count_nonzero(valid | disc))
    return (middle, float(radius)) if same > 0.97 else None


def _patches(chosen: BoolArray) -> list[npt.NDArray[np.intp]]:
    """Return the connected patches of chosen directions."""
    beside = around(2.3)
    todo = set(np.flatnonzero(chosen).tolist())
    patches = []
    while todo:
        stack = [todo.pop()]
        patch = list(stack)
        while stack:
            reached = [n for n in beside[stack.pop()].tolist() if n in todo]
            for texel in reached:
                todo.discard(texel)
            fresh = list(dict.fromkeys(reached))
            stack += fresh
            patch += fresh
        patches.append(np.array(patch, dtype=np.intp))
    return patches


def _box_of(mask: BoolArray) -> tuple[slice, slice, slice]:
    """Return the smallest box around a mask."""
    k, j, i = (
        slice(int(there[0]), int(there[-1]) + 1)
        for there in (np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    )
    return k, j, i
