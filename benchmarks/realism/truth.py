"""What is true of a simulated case: errors, distortion, scale, brain shift, air and holes."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from BrainFusionLib.geometry import FloatArray, apply_affine
from BrainFusionLib.io.tables import Cell
from BrainFusionLib.transform import Transform
from simulation.heads import Head
from simulation.physics.anatomy import anatomy_of
from simulation.physics.case import PhysicsCase
from simulation.tissues import BONE, Coarse

# Directions from the brain's middle, evenly spread: each stands for three faces of a voxel at 80 mm.
AT_MM, FACES = 80.0, 3.0
# Of a skull.
THICKEST_MM = 12.0
# More is wrong: the anatomy's 95th percentile, mm.
WRONG_MM = 2.0
# What is true of the case, whatever the pose.
OF_CASE = ("contrast", "mri_mm", "ct_mm", "cone_beam", "correction", "true_median_mm", "true_p95_mm", "bent_p95_mm",
           "bent_rest_p95_mm", "shift_median_mm", "shift_p95_mm", "scale_pc", "air_ml", "defect_cm2")  # fmt: skip
# What is true of a pose in it; empty where there is no right one.
OF_POSE = ("pose_median_mm", "pose_p95_mm", "anatomy_median_mm", "anatomy_p95_mm")


def truth_of_case(case: PhysicsCase, head: Head) -> dict[str, Cell]:
    """Return the columns `OF_CASE`.

    ``bent_p95_mm`` is the anatomy's 95th percentile in the true pose without brain shift; ``bent_rest_p95_mm`` what an
    affine fit leaves of it; ``scale_pc`` the largest stretch of that fit, above 0 if the MRI shows lengths too long.
    """
    mri, ct = _unshifted(case, head)
    bent = np.linalg.norm(case.transform.apply(mri) - ct, axis=1)
    rest, scale = _affine(mri, ct)
    protocol = case.strengths.mri_protocol
    median, p95 = case.anatomy_mm
    return {
        "contrast": protocol.contrast,
        "mri_mm": max(case.mri.grid.spacing_ijk_mm),
        "ct_mm": max(case.ct.grid.spacing_ijk_mm),
        "cone_beam": int(case.strengths.ct_scanner.cone_beam),
        "correction": case.strengths.mri_scanner.correction,
        "true_median_mm": median,
        "true_p95_mm": p95,
        "bent_p95_mm": float(np.percentile(bent, 95)),
        "bent_rest_p95_mm": float(np.percentile(rest, 95)),
        "shift_median_mm": float(np.median(case.brain_shift_mm)),
        "shift_p95_mm": float(np.percentile(case.brain_shift_mm, 95)),
        "scale_pc": 100 * scale,
        "air_ml": air_ml(case, head),
        "defect_cm2": defect_cm2(case, head),
    }


def truth_of_pose(case: PhysicsCase, pose: Transform) -> dict[str, Cell]:
    """Return the columns `OF_POSE`."""
    found: dict[str, Cell] = {}
    for name, errors in (("pose", case.pose_errors_mm(pose)), ("anatomy", case.errors_mm(pose))):
        found |= {f"{name}_median_mm": float(np.median(errors)), f"{name}_p95_mm": float(np.percentile(errors, 95))}
    return found


def air_ml(case: PhysicsCase, head: Head) -> float:
    """Return the air inside the skull that the CT shows and that was not there before."""
    anatomy, now = anatomy_of(head), case.truth.movement.tissue_kji
    new = anatomy.inside & (now == Coarse.AIR) & (anatomy.head.tissue_kji != Coarse.AIR)
    kji = np.argwhere(new)
    if not len(kji):
        return 0.0
    points = case.truth.skull_in_ct(apply_affine(anatomy.grid.lps_from_ijk, kji[:, ::-1]))
    ijk = apply_affine(case.ct.grid.ijk_from_lps, points)
    shown = np.all((ijk > -0.5) & (ijk < np.asarray(case.ct.grid.size_ijk) - 0.5), axis=1)
    return float(shown.sum() * np.prod(anatomy.grid.spacing_ijk_mm) / 1000)


def defect_cm2(case: PhysicsCase, head: Head) -> float:
    """Return the area of the holes through the bone, as seen from the brain's middle."""
    anatomy, now = anatomy_of(head), case.truth.movement.tissue_kji
    patient = case.strengths.patient
    if patient.opening == "none":
        return 0.0
    kji = np.argwhere(np.isin(anatomy.head.tissue_kji, BONE) & ~np.isin(now, BONE))
    # A jaw that moved leaves no hole.
    from_opening = apply_affine(anatomy.grid.lps_from_ijk, kji[:, ::-1]) - case.truth.movement.opening_lps_mm
    kji = kji[np.linalg.norm(from_opening, axis=1) < patient.opening_mm + THICKEST_MM]
    if not len(kji):
        return 0.0
    box = tuple(slice(max(0, int(a) - 12), int(b) + 13) for a, b in zip(kji.min(axis=0), kji.max(axis=0), strict=True))
    left = np.argwhere(np.isin(now[box], BONE)) + [cut.start for cut in box]
    count = round(4 * np.pi * AT_MM**2 / (FACES * float(np.prod(anatomy.grid.spacing_ijk_mm)) ** (2 / 3)))
    rays = cKDTree(_directions(count))

    def hit(voxels: np.ndarray) -> tuple[np.ndarray, FloatArray]:
        away = apply_affine(anatomy.grid.lps_from_ijk, voxels[:, ::-1]) - head.centre_lps_mm
        far = np.linalg.norm(away, axis=1)
        return rays.query(away / far[:, None])[1], far

    through, far = hit(kji)
    blocked = np.zeros(count, bool)
    if len(left):
        rays_left, far_left = hit(left)
        # The skull base on the ray's way is not the vault's bone.
        blocked[rays_left[far_left > far.min() - 3]] = True
    counts = np.bincount(through, minlength=count)
    radius = np.bincount(through, weights=far, minlength=count) / np.maximum(counts, 1)
    open_rays = (counts >= 2) & ~blocked
    # A cut that is narrower than a ray is still a cut.
    return max(0.01, float((radius[open_rays] ** 2).sum() * 4 * np.pi / count / 100))


def why_wrong(row: dict[str, Cell]) -> str:
    """Return what is wrong with a case: its largest part beyond 2 mm; empty for a right one."""
    if row["made"]:
        return str(row["made"])
    if float(row["anatomy_p95_mm"] or 0) <= WRONG_MM:
        return ""
    parts = {"pose": float(row["pose_p95_mm"] or 0), "brain shift": float(row["shift_p95_mm"] or 0),
             "distortion": float(row["bent_p95_mm"] or 0)}  # fmt: skip
    worst = max(parts, key=lambda name: parts[name])
    return "scale" if worst == "distortion" and abs(float(row["scale_pc"] or 0)) >= 2 else worst


def _unshifted(case: PhysicsCase, head: Head) -> tuple[FloatArray, FloatArray]:
    """Return the points of the brain that the MRI shows, in both images as if the brain had not moved."""
    points = head.points_lps_mm
    in_mri = case.truth.in_mri(points)
    ijk = apply_affine(case.mri.grid.ijk_from_lps, in_mri)
    shown = np.all((ijk >= 0) & (ijk <= np.asarray(case.mri.grid.size_ijk) - 1), axis=1)
    return in_mri[shown], case.truth.skull_in_ct(points[shown])


def _affine(mri: FloatArray, ct: FloatArray) -> tuple[FloatArray, float]:
    """Return what the best affine fit leaves, mm, and the largest stretch of the MRI against the CT, as a share."""
    a, b = mri - mri.mean(axis=0), ct - ct.mean(axis=0)
    matrix = np.linalg.lstsq(a, b, rcond=None)[0]
    stretches = 1 / np.linalg.svd(matrix, compute_uv=False) - 1
    return np.linalg.norm(a @ matrix - b, axis=1), float(stretches[np.argmax(np.abs(stretches))])


def _directions(count: int) -> FloatArray:
    """Return unit vectors evenly spread by the golden angle, (n, 3)."""
    n = np.arange(count) + 0.5
    z, turn = 1 - 2 * n / count, np.pi * (3 - np.sqrt(5)) * n
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(turn), r * np.sin(turn), z], axis=1)
