"""Cases with scanner physics: where every point of the head lies in both images, and the rigid pose of the skull."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from BrainFusionLib.geometry import FloatArray, Grid, apply_affine, rotation_matrix
from BrainFusionLib.transform import RigidTransform, Transform
from BrainFusionLib.volume import Volume
from simulation.cases import Case
from simulation.heads import Head
from simulation.physics.anatomy import Anatomy, anatomy_of
from simulation.physics.ct import ct_grid, ct_image, in_header
from simulation.physics.header import ct_header, mri_header
from simulation.physics.magnet import Magnet
from simulation.physics.movement import Movement, moved, opening_at, with_tumour
from simulation.physics.mri import magnet_for, mri_grid, mri_image
from simulation.physics.strengths import CtProtocol, CtScanner, Strengths


@dataclass(frozen=True, eq=False)
class Truth:
    """Where the points of a head (LPS mm of its own space) lie in the two images.

    Attributes
    ----------
    magnet, isocentre_mm
        Of the MRI, whose space has its origin at the isocentre.
    movement
        What happened to the head between the scans.
    pose
        Takes points of the head, as its skull lies, to the CT.
    ct_scanner, ct_protocol, ct_grid
        How the CT puts them into its header's space.
    """

    magnet: Magnet
    movement: Movement
    pose: RigidTransform
    ct_scanner: CtScanner
    ct_protocol: CtProtocol
    ct_grid: Grid

    def in_mri(self, points_lps_mm: FloatArray) -> FloatArray:
        """Return where points of the head (water) are drawn in the MRI's space, shape (n, 3)."""
        drawn: FloatArray = self.magnet.drawn(points_lps_mm) - self.magnet.isocentre_lps_mm
        return drawn

    def skull_in_ct(self, points_lps_mm: FloatArray) -> FloatArray:
        """Return where points of the skull are drawn in the CT's space, shape (n, 3)."""
        return in_header(self.pose.apply(points_lps_mm), self.ct_grid, self.ct_scanner, self.ct_protocol)


@dataclass(frozen=True, eq=False)
class PhysicsCase(Case):
    """A CT and an MRI taken with scanner physics.

    `transform` is the rigid fit of the skull as the MRI draws it to the skull as the CT draws it: what a perfect rigid
    registration finds. `errors_mm` are those of the anatomy of the brain; `pose_errors_mm` those of the pose alone.

    Attributes
    ----------
    seed
        Of the details; with the head and the strengths it decides everything.
    strengths
        What was drawn.
    truth
        Where any point of the head lies.
    brain_shift_mm
        How far the brain has moved against the skull at the points, shape (n,).
    """

    seed: int
    strengths: Strengths
    truth: Truth
    brain_shift_mm: FloatArray

    @property
    def anatomy_mm(self) -> tuple[float, float]:
        """Median and 95th percentile of the anatomy's displacement in the true pose."""
        errors = self.errors_mm(self.transform)
        return float(np.median(errors)), float(np.percentile(errors, 95))

    def pose_errors_mm(self, found: Transform) -> FloatArray:
        """Return how far a transform takes the points of the brain from where the true pose takes them, shape (n,)."""
        off = found.apply(self.points_lps_mm) - self.transform.apply(self.points_lps_mm)
        errors: FloatArray = np.linalg.norm(off, axis=1)
        return errors


def make_physics_case(head: Head, strengths: Strengths, seed: int) -> PhysicsCase:
    """Scan a head twice.

    Parameters
    ----------
    head
        In coarse tissues, as `heads.phantom_head` and `label_maps.read_head` give it.
    strengths
        How strong each effect is.
    seed
        Draws the pose, places, textures and noise.
    """
    place, look, noise, look_ct = (np.random.default_rng((seed, 19, part)) for part in range(4))
    anatomy, patient = anatomy_of(head), strengths.patient
    if patient.table_mm:
        anatomy = anatomy.with_tables(patient.table_mm)
    opening_draw = np.random.default_rng((seed, 19, 9))
    opening, _ = opening_at(anatomy, patient, opening_draw)
    with_lesion = with_tumour(anatomy, patient, opening)
    movement = moved(anatomy, with_lesion, patient, np.random.default_rng((seed, 19, 9)))
    protocol = strengths.mri_protocol
    grid = mri_grid(anatomy, protocol, place)
    magnet = magnet_for(anatomy, strengths.mri_scanner, protocol, patient, grid)
    mri = mri_image(anatomy, with_lesion, magnet, grid, patient, look, noise)
    # The MRI's space begins at the isocentre, as it does on most scanners.
    in_scanner = _shifted(grid, -magnet.isocentre_lps_mm)
    mri = replace(mri, grid=in_scanner, acquisition=mri_header(strengths, in_scanner, seed))
    pose = _draw_pose(strengths, place, head)
    ct_slices = ct_grid(pose.apply(head.centre_lps_mm), strengths.ct_protocol, strengths.ct_scanner, place)
    ct = ct_image(
        anatomy, movement, patient, strengths.ct_scanner, strengths.ct_protocol, pose, ct_slices, look_ct, noise
    )
    ct = replace(ct, acquisition=ct_header(strengths.ct_scanner, strengths.ct_protocol, ct.grid, seed))
    truth = Truth(magnet, movement, pose, strengths.ct_scanner, strengths.ct_protocol, ct_slices)
    return _with_truth(head, anatomy, strengths, seed, ct, mri, truth)


def _with_truth(
    head: Head, anatomy: Anatomy, strengths: Strengths, seed: int, ct: Volume, mri: Volume, truth: Truth
) -> PhysicsCase:
    points = head.points_lps_mm
    movement = truth.movement
    if movement.cavity_mm:
        points = points[np.linalg.norm(points - movement.cavity_lps_mm, axis=1) > movement.cavity_mm + 1]
    in_mri = truth.in_mri(points)
    ijk = apply_affine(mri.grid.ijk_from_lps, in_mri)
    seen = np.all((ijk >= 0) & (ijk <= np.asarray(mri.grid.size_ijk) - 1), axis=1)
    points, in_mri = points[seen], in_mri[seen]
    skull = anatomy.skull_points_lps_mm
    transform = fitted_rigid(truth.in_mri(skull), truth.skull_in_ct(skull))
    now = movement.now(points)
    return PhysicsCase(
        name=f"{strengths.kind}-{seed:05d}-{head.name}",
        kind=strengths.kind,
        ct=ct,
        mri=mri,
        transform=transform,
        points_lps_mm=in_mri,
        points_in_ct_lps_mm=truth.skull_in_ct(now),
        seed=seed,
        strengths=strengths,
        truth=truth,
        brain_shift_mm=np.linalg.norm(now - points, axis=1),
    )


def fitted_rigid(from_points: FloatArray, to_points: FloatArray) -> RigidTransform:
    """Return the rigid transform that takes points to others with the least squares of errors.

    Source: W. Kabsch, Acta Cryst. A32 (1976) 922.
    """
    a, b = from_points.mean(axis=0), to_points.mean(axis=0)
    u, _, vt = np.linalg.svd((to_points - b).T @ (from_points - a))
    turn = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    return RigidTransform.about_centre(turn, b - a, a)


def _draw_pose(strengths: Strengths, random: np.random.Generator, head: Head) -> RigidTransform:
    direction = random.standard_normal(3)
    shift = direction / np.linalg.norm(direction) * random.uniform(0, strengths.shift_mm)
    turn = rotation_matrix(random.standard_normal(3), random.uniform(0, strengths.angle_deg))
    return RigidTransform.about_centre(turn, shift, head.centre_lps_mm)


def _shifted(grid: Grid, by_mm: FloatArray) -> Grid:
    x, y, z = (float(v) for v in np.asarray(grid.origin_lps_mm) + by_mm)
    return Grid(grid.size_ijk, grid.spacing_ijk_mm, (x, y, z), grid.direction)
