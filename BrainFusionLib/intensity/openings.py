"""What surgery leaves inside the skull and in its vault: air, burr holes, missing bone."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.intensity.directions import around, solid_angles, unit_directions
from BrainFusionLib.intensity.inside import AIR_HU, InsideSkull, grown
from BrainFusionLib.intensity.pieces import pieces
from BrainFusionLib.intensity.rays import STEP_MM
from BrainFusionLib.volume import BoolArray, VoxelArray

# Pockets below `LEAST_POCKET_ML` are noise. A pocket of which `LEAST_INSIDE` lies inside the surface must lie deeper
# than `DEEP_MM` with a share of at least `LEAST_DEEP`. Air that goes on outside does so through a hole in the bone, and
# must lie deeper: of mastoid, ear and sinuses the surface may cut off a corner.
LEAST_POCKET_ML, DEEP_MM = 0.2, 3.0
LEAST_INSIDE, LEAST_DEEP, LEAST_DEEP_AT_HOLE = 0.6, 0.12, 0.35
# Reach of the rim of a pocket, and how far below the brain's HU its voxels are.
RIM_VOXELS, CERTAINLY_AIR_HU = 4, 150.0
# So near to compact bone, a voxel that holds air in part holds bone and not brain in the rest, and is denser: below the
# last it is air. By the brain's share, 135 cases read .81 of their air.
BESIDE_BONE_VOXELS, COMPACT_HU, AIR_BESIDE_BONE_HU = 2, 400.0, -250.0
# Air that meets the air outside over more than this lies outside the skin, over a sunken flap, unless there is more of
# it than a sunken flap of that area leaves: a real skull with a defect beside the frontal sinus lost 28 mL by .2 cm².
WIDEST_HOLE_CM2, DEEPEST_FLAP_CM = 6.0, 3.0
# At the base, around the petrous bones and sinuses, air must lie deeper, and mostly in soft tissue: around cells of the
# mastoid there is bone.
BASE_COSINE, LEAST_DEEP_AT_BASE = -0.35, 0.75
BONE_HU, MOST_BONE_AROUND = 250.0, 0.5
# From most of the cells of the mastoid (56 to 60 % of a large one), the way to the middle of the skull leads through
# bone within this; from air inside the skull (up to 42 % of it) it leads through the brain.
TOWARDS_MM, TOWARDS_STEP_MM, MOST_BEHIND_BONE = 25.0, 1.5, 0.5
# Cells of a mastoid with thin walls have less of both: bone around .36 to .61, and .09 to .41 of them behind bone; they
# go on outside the inner table. Of air inside the skull at the base, 80 pockets put into simulated heads, none had more
# bone than .42, or any behind bone; in front, where air lies in a thin layer under bone, it was .58.
LEAST_BEHIND, MOST_BONE_IN_ALL = 0.12, 0.6
LEAST_INSIDE_ALONE, MOST_BONE_GOING_ON = 0.9, 0.5
# Face and neck, up to this thick, lie in front of and below the brain; sums of less show no direction, mm steradian.
THIN_COVER_MM, MOST_COVER_MM, LEAST_SUM = 20.0, 60.0, 10.0
# What they say of "up" is 31 degrees too far back (15 to 58 in 72 CTs); across the longest axis of the inside of the
# skull, which falls backwards by about this, it is 13 degrees off (27 in nine of ten). Where they show hardly which end
# of the axis lies behind, it is not turned. Where they lie along it, it is a face without a neck: "up" is unknown.
FALLING_DEG, FALLING_COSINE, MOST_BEHIND = 15.0, 0.3, 0.85
# The header is believed so near to that; further away it is turned until it is as near; beyond the second it is wrong.
BELIEVED_DEG, WRONG_DEG = 25.0, 60.0
# One header is wrong for certain, and another one may be right, where they are this far from what face and neck say.
WRONG_COSINE, RIGHT_COSINE = 0.5, 0.7
# No head is turned by more than this against the axes of two scanners: one of the headers is wrong.
ALIKE_COSINE = 0.77
# Between these depths below the inner table any bone counts, also thin bone under partial volume.
BEFORE_MM, BEHIND_MM = 5.0, 18.0
THIN_BONE_HU, NOISE_FACTOR = 120.0, 5.0
# As much as bone of `BONE_MM_HU` above that and this thick is no bone in a hole, but what partial volume leaves at its
# edge and of the inner table, if most of the hole is bare: at least this share of it.
SCRAPS_MM, BONE_MM_HU, LEAST_BARE = 0.3, 1000.0, 0.4
# The vault is covered by less than this: scalp, swelling and temporal muscle. Directions near others are not judged.
COVER_MM, AROUND_BASE_DEG = 30.0, 8.0
# Lowest directions of the vault, as the cosine to "up", and how much higher they are in front, above the orbits.
VAULT_COSINE, VAULT_COSINE_IN_FRONT = -0.1, 0.35
# From the inner table to the middle of the bone.
HALF_BONE_MM = 4.0
# Below the vault are orbits, foramina and fissures: there, a hole is followed only from its part in the vault, as far
# as this times the root of that part's area, and where so many of the eight neighbours are without bone, too.
REACH, WIDE_NEIGHBOURS, LOWEST_COSINE = 1.6, 6, -0.5
# Directions so far apart are neighbours.
BESIDE_DEG = 2.3
# Smaller holes are gaps between rays; larger ones are no burr holes.
LEAST_HOLE_CM2, BURR_HOLE_CM2 = 0.4, 3.0


def upright(inside: InsideSkull, up: npt.ArrayLike, instead: npt.ArrayLike | None = None) -> tuple[FloatArray, ...]:
    """Return the direction to the top of the head: the one given, unless face and neck lie elsewhere.

    Midway between the two given if they agree: an oblique MRI, or a tilted head in the CT, is off by half as much then.
    Two, if they contradict each other and neither face nor neck tells which is right.

    Parameters
    ----------
    inside
        The inside of the skull.
    up
        Direction of the top of the head by the header, in the CT's LPS space. It is wrong where a file has no
        orientation, or another one.
    instead
        The same by the header of the other volume.
    """
    given, other = (np.asarray(up if one is None else one, dtype=np.float64) for one in (up, instead))
    given, other = given / np.linalg.norm(given), other / np.linalg.norm(other)
    alike = bool(given @ other > ALIKE_COSINE)
    if alike:
        given = other = (given + other) / np.linalg.norm(given + other)
    shown = _anatomical_up(inside)
    if shown is None:
        return (given,) if alike else (given, other)
    if shown @ given <= WRONG_COSINE and shown @ other > RIGHT_COSINE:
        return (other,)
    return (_turned_towards(given, shown),)


def _anatomical_up(inside: InsideSkull) -> FloatArray | None:
    """Return the top of the head, LPS, by face, neck and the shape of the inside; ``None`` if too little is in view."""
    rays, directions, angles = inside.rays, unit_directions(), solid_angles()
    # Table and head holder are no part of what covers the brain.
    tissue = (rays.values > -300) & inside.head_kji.ravel().take(rays.voxels) & inside.in_view
    last = np.where(tissue, rays.radii_mm, np.float32(0)).max(axis=1)
    cover = np.clip(last - inside.radii_mm - THIN_COVER_MM, 0, MOST_COVER_MM)
    away: FloatArray = -(directions * (angles * cover)[:, None]).sum(axis=0)
    size = float(np.linalg.norm(away))
    if size < LEAST_SUM:
        return None
    shown = away / size
    longest: FloatArray = np.linalg.eigh(directions.T @ (directions * (angles * inside.radii_mm**5)[:, None]))[1][:, 2]
    behind = float(shown @ longest)
    if abs(behind) > MOST_BEHIND:
        return None
    across = shown - behind * longest
    across /= max(1e-6, float(np.linalg.norm(across)))
    turn = np.deg2rad(FALLING_DEG) * np.clip(behind / FALLING_COSINE, -1, 1)
    up: FloatArray = inside.grid.direction @ (np.cos(turn) * across - np.sin(turn) * longest)
    return up


def _turned_towards(given: FloatArray, shown: FloatArray) -> FloatArray:
    """Return the header's direction, turned until it is near what the anatomy shows, or that if it is far from it."""
    off = float(np.arccos(np.clip(given @ shown, -1, 1)))
    if off <= np.deg2rad(BELIEVED_DEG):
        return given
    if off > np.deg2rad(WRONG_DEG):
        return shown
    aside = given - (given @ shown) * shown
    aside /= np.linalg.norm(aside)
    return np.asarray(np.cos(np.deg2rad(BELIEVED_DEG)) * shown + np.sin(np.deg2rad(BELIEVED_DEG)) * aside)


def air_ml(inside: InsideSkull, up: npt.ArrayLike = (0, 0, 1)) -> float:
    """Return the volume of the air inside the skull, mL; not that of sinuses, mastoid and ear, or outside a hole.

    Parameters
    ----------
    inside
        The inside of the skull.
    up
        Direction of the top of the head, in the CT's LPS space.
    """
    box = _box_of(inside.depth_kji > -20)
    hu, depth, mask = inside.hu_kji[box], inside.depth_kji[box], inside.mask_kji[box]
    air = hu < AIR_HU
    if inside.filled_kji is not None:
        air &= ~inside.filled_kji[box]
    parts, _ = pieces(air & mask & (depth > 0))
    voxel_ml = float(np.prod(inside.grid.spacing_ijk_mm)) / 1000
    pockets = np.flatnonzero(np.bincount(parts.ravel()) * voxel_ml > LEAST_POCKET_ML)[1:]
    if not len(pockets):
        return 0.0
    upwards = inside.grid.direction.T @ np.asarray(up, dtype=np.float64)
    chosen = np.zeros(int(parts.max()) + 1, bool)
    whole = cache(lambda: pieces(air)[0])
    for piece in pockets:
        at = np.argwhere(parts == piece)
        middle = at.mean(axis=0) + [b.start for b in box] - inside.centre_kji
        towards = (middle * inside.grid.spacing_ijk_mm[::-1])[::-1]
        at_base = towards @ upwards < BASE_COSINE * np.linalg.norm(towards)
        share = len(at) / np.count_nonzero(whole() == whole()[tuple(at[0])])
        if _is_in_bone(_bone_around(at, air, hu), _behind_bone(at, box, inside), share, at_base=at_base):
            continue
        if at_base:
            wanted = LEAST_DEEP_AT_BASE
        elif share > LEAST_INSIDE:
            wanted = LEAST_DEEP
        elif _contact_cm2(parts == piece, air, inside.grid.spacing_ijk_mm) < max(
            WIDEST_HOLE_CM2, len(at) * voxel_ml / DEEPEST_FLAP_CM
        ):
            wanted = LEAST_DEEP_AT_HOLE
        else:
            continue
        chosen[piece] = float((depth[tuple(at.T)] > DEEP_MM).mean()) > wanted
    if not chosen.any():
        return 0.0
    # Around a pocket, voxels hold air in part: its rim, and bubbles in the sulci.
    rim = chosen[parts]
    for _ in range(RIM_VOXELS):
        rim = grown(rim)
    rim &= mask & (depth > -1) & (hu < inside.brain_hu - CERTAINLY_AIR_HU)
    part = np.clip((inside.brain_hu - hu[rim]) / (1000 + inside.brain_hu), 0, 1)
    bone = hu > COMPACT_HU
    for _ in range(BESIDE_BONE_VOXELS):
        bone = grown(bone)
    part[bone[rim] & (hu[rim] < AIR_BESIDE_BONE_HU)] = 1
    return float(part.sum() * voxel_ml)


def _is_in_bone(around: float, behind: float, share: float, *, at_base: bool) -> bool:
    """Return whether a pocket of air is a cell of bone: by the bone around it, behind it, and its share inside."""
    if at_base and (around > MOST_BONE_AROUND or behind > MOST_BEHIND_BONE):
        return True
    if at_base and share < LEAST_INSIDE_ALONE and around + behind > MOST_BONE_GOING_ON:
        return True
    return behind > LEAST_BEHIND and around + behind > MOST_BONE_IN_ALL


def _bone_around(at: npt.NDArray[np.intp], air: BoolArray, hu: VoxelArray) -> float:
    """Return the share of bone in the second layer of voxels around a piece of air; the first is partly air."""
    low = np.maximum(at.min(axis=0) - 2, 0)
    box = tuple(slice(a, b) for a, b in zip(low, at.max(axis=0) + 3, strict=True))
    piece = np.zeros(hu[box].shape, bool)
    piece[tuple((at - low).T)] = True
    near = grown(piece)
    around = grown(near) & ~near & ~air[box]
    return float((hu[box][around] > BONE_HU).mean()) if around.any() else 0.0


def _behind_bone(at: npt.NDArray[np.intp], box: tuple[slice, slice, slice], inside: InsideSkull) -> float:
    """Return the share of a piece of air from which the way to the middle of the skull leads through bone."""
    first = at[:: max(1, len(at) // 500)] + [b.start for b in box]
    spacing = np.asarray(inside.grid.spacing_ijk_mm[::-1], dtype=np.float64)
    way = (inside.centre_kji - first) * spacing
    step = way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), TOWARDS_MM) / spacing
    far = np.arange(TOWARDS_STEP_MM, TOWARDS_MM, TOWARDS_STEP_MM)
    seen = np.rint(first[:, None] + far[:, None] * step[:, None]).astype(np.intp)
    met: BoolArray = (inside.hu_kji[tuple(np.moveaxis(seen, -1, 0))] > BONE_HU).any(axis=1)
    return float(met.mean())


def _contact_cm2(piece: BoolArray, air: BoolArray, spacing_ijk_mm: tuple[float, float, float]) -> float:
    """Return the area over which a piece of the air meets the rest of it."""
    border = np.count_nonzero(grown(piece) & air & ~piece)
    return float(border * np.prod(spacing_ijk_mm) ** (2 / 3) / 100)


def holes_cm2(inside: InsideSkull, *up: npt.ArrayLike) -> FloatArray:
    """Return the areas of the holes in the vault, cm², largest first.

    A hole is a patch of directions without bone between the inside and the air around the head; scraps that partial
    volume leaves in it and at its edge are part of it. The foramen magnum, the orbits and the rest of the base, and
    what lies at the border of the field of view, are not judged; a hole in the vault that reaches below it counts
    there, too.

    Parameters
    ----------
    inside
        The inside of the skull.
    up
        Direction of the top of the head, in the CT's LPS space, (0, 0, 1) unless given; of several that contradict
        each other, only what is vault by all of them is judged.
    """
    bone_mm, near = _bone_on_rays(inside)
    bare, no_bone = bone_mm == 0, bone_mm < SCRAPS_MM
    ways = [inside.grid.direction.T @ np.asarray(way, dtype=np.float64) for way in up or ((0, 0, 1),)]
    vault = np.all([_vault(inside, way) for way in ways], axis=0)
    areas = solid_angles() * (inside.radii_mm + HALF_BONE_MM) ** 2 / 100
    below = bare & (inside.in_view | ~near).all(axis=1)
    below &= np.all([unit_directions() @ way > LOWEST_COSINE for way in ways], axis=0)
    whole: BoolArray = bare & vault
    holes = [patch for patch in _patches(whole) if areas[patch].sum() > LEAST_HOLE_CM2]
    is_hole = np.isin(np.arange(len(areas)), np.concatenate(holes)) if holes else np.zeros(len(areas), bool)
    for patch in _patches(no_bone & vault) if holes else ():
        if areas[patch[is_hole[patch]]].sum() > LEAST_BARE * areas[patch].sum():
            whole[patch] = True
    for patch in _patches(whole):
        if (area := float(areas[patch].sum())) > LEAST_HOLE_CM2:
            whole |= _followed(patch, below, REACH * 10 * np.sqrt(area), inside.radii_mm)
    found = [float(areas[patch].sum()) for patch in _patches(whole)]
    return np.sort(np.array([area for area in found if area > LEAST_HOLE_CM2]))[::-1]


def _bone_on_rays(inside: InsideSkull) -> tuple[FloatArray, BoolArray]:
    """Return how much bone each ray meets, mm of bone of `BONE_MM_HU`, and which samples lie near the inner table."""
    rays, surface = inside.rays, inside.radii_mm[:, None]
    near: BoolArray = (rays.radii_mm >= surface - BEFORE_MM) & (rays.radii_mm <= surface + BEHIND_MM)
    thin = inside.brain_hu + max(THIN_BONE_HU, NOISE_FACTOR * inside.noise_hu)
    above = np.clip(rays.values - np.float32(thin), 0, None)
    bone_mm: FloatArray = np.where(near & rays.in_field, above, np.float32(0)).sum(axis=1) * (STEP_MM / BONE_MM_HU)
    return bone_mm, near


def _followed(patch: npt.NDArray[np.intp], below: BoolArray, reach_mm: float, radii_mm: FloatArray) -> BoolArray:
    """Return the directions of a patch and of what belongs to it below the vault; through narrow gaps nothing does."""
    chosen = np.zeros(len(below), bool)
    chosen[patch] = True
    open_ = below | chosen
    wide = open_ & (open_[around(BESIDE_DEG)].sum(axis=1) >= WIDE_NEIGHBOURS)
    step_mm = float(np.deg2rad(BESIDE_DEG) * np.median(radii_mm[patch]))
    for _ in range(int(reach_mm / step_mm)):
        chosen |= wide & chosen[around(BESIDE_DEG)].any(axis=1)
    chosen |= open_ & (chosen & wide)[around(BESIDE_DEG)].any(axis=1)
    return chosen


def _vault(inside: InsideSkull, up: FloatArray) -> BoolArray:
    """Return the directions of the vault: up, thinly covered, and in the field of view."""
    rays, in_view, directions = inside.rays, inside.in_view, unit_directions()
    front = np.cross(np.cross(up, inside.grid.direction.T @ np.array([0.0, -1.0, 0.0])), up)
    front /= max(1e-6, float(np.linalg.norm(front)))
    level = directions @ up - VAULT_COSINE_IN_FRONT * np.maximum(directions @ front, 0)
    surface = inside.radii_mm[:, None]
    covered = (rays.radii_mm > surface) & (rays.radii_mm < surface + COVER_MM)
    air = rays.values < -300
    reached = (air & in_view & covered).any(axis=1)
    base: BoolArray = np.asarray(~reached & (in_view | ~covered).all(axis=1))
    base = base | base[around(AROUND_BASE_DEG)].any(axis=1)
    # Up to the air, the ray must stay in view.
    outside = (air & covered).argmax(axis=1)
    cut = (~in_view).any(axis=1) & (np.where(in_view, 1000, np.arange(len(rays.radii_mm))).min(axis=1) <= outside)
    vault: BoolArray = (level > VAULT_COSINE) & reached & ~cut & ~base
    return vault


def _patches(chosen: BoolArray) -> list[npt.NDArray[np.intp]]:
    """Return the connected patches of chosen directions."""
    beside = around(BESIDE_DEG)
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
