"""CT-MRI cases with exact truth, simulated from one head each.

Both images of a case share the edges of one label map, so errors below about 0.3 mm rank methods and are no clinical
accuracy. Nothing is bent: neither brain shift nor the distortion of MRI is simulated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from BrainFusionLib.geometry import FloatArray, Grid, rotation_matrix
from BrainFusionLib.transform import RigidTransform, Transform
from BrainFusionLib.volume import Volume, VoxelArray
from simulation import objects
from simulation.heads import Head, body_part
from simulation.render import add_ct_noise, add_mri_faults, hounsfield, pull, signal, smooth_noise
from simulation.tissues import CODES, CONTRASTS, INSIDE_SKULL, CodeArray


@dataclass(frozen=True)
class Kind:
    """A class of cases.

    Parameters
    ----------
    words
        What it is.
    angle_deg
        Least and greatest rotation; ``None`` for any rotation, all equally likely.
    shift_mm
        Least and greatest length of the shift of the brain's middle.
    ct_spacing_mm
        Of the CT at full resolution, i j k.
    slab_mm
        Least and greatest height of the CT; ``None`` for a whole head.
    negative
        There is nothing to find, so a method should say so.
    """

    words: str
    angle_deg: tuple[float, float] | None
    shift_mm: tuple[float, float]
    ct_spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.25)
    slab_mm: tuple[float, float] | None = None
    negative: bool = False


KINDS: dict[str, Kind] = {
    "E": Kind("easy: to 10°", (0, 10), (0, 10)),
    "M": Kind("moderate: 15–30°, 3 mm slices, table", (15, 30), (0, 30), (1.0, 1.0, 3.0)),
    "F": Kind("half heads, slabs of 60 mm, stereotactic frames", (5, 20), (0, 15)),
    "D": Kind("degraded: 0.5×0.5×5 mm, streaks, electrodes, bias, 25–45°", (25, 45), (0, 40), (0.5, 0.5, 5.0)),
    "R": Kind("re-oriented by 90 or 180°, plus 3–15°", (3, 15), (0, 15)),
    "X": Kind("extreme: any rotation, 20–150 mm", None, (20, 150)),
    "T": Kind("extreme, T2", None, (20, 150)),
    "K": Kind("extreme, skull-stripped MRI", None, (20, 150)),
    "P": Kind("extreme, CT after craniectomy: blood, air, electrodes", None, (20, 150)),
    "S4": Kind("slabs of 40–60 mm, to 20°", (0, 20), (0, 15), slab_mm=(40, 60)),
    "S3": Kind("slabs of 30 mm, to 20°", (0, 20), (0, 15), slab_mm=(30, 30)),
    "S2": Kind("slabs of 20 mm, to 20°", (0, 20), (0, 15), slab_mm=(20, 20)),
    "N1": Kind("nothing to find: another patient", (0, 20), (0, 20), negative=True),
    "N2": Kind("nothing to find: MRI mirrored left-right", (0, 20), (0, 20), negative=True),
    "N3": Kind("nothing to find: a CT of a thigh or a trunk", (0, 20), (0, 20), negative=True),
    "N4": Kind("nothing to find: MRI of the top, CT of the bottom", (0, 20), (0, 20), slab_mm=(80, 80), negative=True),
}
POSITIVE = [kind for kind in KINDS if not KINDS[kind].negative]

# Boxes in which a head is imaged, x y z.
CT_EXTENT_MM = (220.0, 250.0, 190.0)
MRI_EXTENT_MM = (180.0, 240.0, 210.0)
EXTREME = ("X", "T", "K", "P")


@dataclass(frozen=True, eq=False)
class Case:
    """A CT and an MRI, and the truth.

    Attributes
    ----------
    name
        Under which it stands in results.
    kind
        One of `KINDS`. In a negative case (``KINDS[kind].negative``) there is no truth: the transform is the one that
        it was simulated with.
    ct, mri
        The images.
    transform
        The true rigid pose of the skull: takes MRI points to CT points, LPS mm.
    points_lps_mm
        Points of the brain in MRI space, to measure errors at, shape (n, 3).
    points_in_ct_lps_mm
        Where the same anatomy lies in the CT, shape (n, 3): where the transform takes them, unless something is bent.
    """

    name: str
    kind: str
    ct: Volume
    mri: Volume
    transform: RigidTransform
    points_lps_mm: FloatArray
    points_in_ct_lps_mm: FloatArray

    def errors_mm(self, found: Transform) -> FloatArray:
        """Return how far off a transform takes the points of the brain, shape (n,)."""
        errors: FloatArray = np.linalg.norm(found.apply(self.points_lps_mm) - self.points_in_ct_lps_mm, axis=1)
        return errors


def check_kind(kind: str) -> None:
    """Reject a kind that is not one of `KINDS`.

    Raises
    ------
    ValueError
        There is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no kind of case {kind!r}; choose from {', '.join(KINDS)}")


def case_name(kind: str, seed: int, head: Head) -> str:
    """Return the name under which a case stands in the results."""
    return f"{kind}-{seed:03d}-{head.name}"


def make_case(kind: str, seed: int, head: Head, *, spacing_mm: float = 1.0, other: Head | None = None) -> Case:
    """Make a case of one of `KINDS`.

    Parameters
    ----------
    kind, seed
        Everything random comes from the two.
    head
        What is in the MRI, and in the CT except where there is nothing to find.
    spacing_mm
        1 for full resolution; 2 makes every voxel thinner than 2 mm twice as large, on the same head in the same pose.
    other
        The head in the CT of kind N1.

    Raises
    ------
    ValueError
        There is no such kind, or N1 has no other head.
    """
    check_kind(kind)
    # A stream for each purpose, so that the resolution changes neither the head nor its pose.
    pose, look, noise = (np.random.default_rng((seed, part, *kind.encode())) for part in range(3))
    in_ct = head
    if kind == "N1":
        if other is None or other is head:
            raise ValueError("a case of kind N1 (another patient) needs two different heads")
        in_ct = other
    elif kind == "N3":
        in_ct = body_part(seed, head.grid.spacing_ijk_mm[0])
    transform = _draw_transform(kind, pose, in_ct)
    ct_grid = _ct_grid(kind, seed, pose, in_ct, transform, spacing_mm)
    mri_grid = _mri_grid(kind, pose, head, spacing_mm)
    texture = smooth_noise(in_ct.tissue_kji.shape, 8 / in_ct.grid.spacing_ijk_mm[0], look)
    ct = _image_ct(kind, seed, in_ct, texture, ct_grid, transform, look, noise)
    if in_ct is not head:
        texture = smooth_noise(head.tissue_kji.shape, 8 / head.grid.spacing_ijk_mm[0], look)
    contrast = "T2" if kind == "T" else CONTRASTS[look.integers(len(CONTRASTS))]
    tissue: CodeArray = head.tissue_kji
    if kind == "K":
        kept = np.zeros(CODES, np.uint8)
        kept[list(INSIDE_SKULL)] = INSIDE_SKULL
        tissue = kept[tissue]
    bright = signal(tissue, texture, contrast, look)
    mri = pull(bright, head.grid, mri_grid, RigidTransform.identity(), 0.0)
    stripped = mri < 0.05 if kind == "K" else None  # every tissue of the brain is brighter than that
    mri = add_mri_faults(mri, 0.3 if kind == "D" else 0.12, spacing_mm, noise)
    if stripped is not None:
        mri[stripped] = 0
    if kind == "N2":
        mri = np.flip(mri, 2 - int(np.argmax(np.abs(mri_grid.direction[0]))))
    return Case(
        case_name(kind, seed, head),
        kind,
        Volume(ct, ct_grid, "CT", "CT"),
        Volume(mri, mri_grid, "MR", f"MRI {contrast}"),
        transform,
        head.points_lps_mm,
        transform.apply(head.points_lps_mm),
    )


def _image_ct(
    kind: str,
    seed: int,
    head: Head,
    texture: VoxelArray,
    grid: Grid,
    transform: RigidTransform,
    look: np.random.Generator,
    noise: np.random.Generator,
) -> VoxelArray:
    hu, hu_grid = hounsfield(head.tissue_kji, texture), head.grid
    if kind == "D":
        objects.add_electrodes(hu, head, look)
    if kind == "P":
        objects.add_surgery(hu, head, look)
    if _part(kind, seed) == "frame":
        hu, hu_grid = objects.with_frame(hu, head, look)
    ct = pull(hu, hu_grid, grid, transform.inverse(), -1000.0)
    if kind == "D":
        objects.add_streaks(ct, grid, noise)
    if kind == "M":
        objects.add_table(ct, grid, look)
    return add_ct_noise(ct, noise)


def _part(kind: str, seed: int) -> str:
    """Return what the CT of kind F has of the head, in turn; ``"head"`` for every other kind."""
    return ("half", "slab", "frame")[seed % 3] if kind == "F" else "head"


def _draw_transform(kind: str, random: np.random.Generator, head: Head) -> RigidTransform:
    """Draw the transform from MRI (head) to CT points."""
    angle, direction = KINDS[kind].angle_deg, random.standard_normal(3)
    if angle is None:
        # The columns of a Gaussian matrix made orthonormal are a rotation without a preferred axis or angle.
        q, r = np.linalg.qr(random.standard_normal((3, 3)))
        q *= np.sign(np.diag(r))
        rotation = q * np.sign(np.linalg.det(q))
    else:
        rotation = rotation_matrix(random.standard_normal(3), random.uniform(*angle))
    if kind == "R":
        quarter = rotation_matrix(np.eye(3)[random.integers(3)], 90.0 * float(random.integers(1, 4)))
        rotation = quarter @ rotation
    shift = direction / np.linalg.norm(direction) * random.uniform(*KINDS[kind].shift_mm)
    return RigidTransform.about_centre(rotation, shift, head.centre_lps_mm)


def _ct_grid(
    kind: str, seed: int, random: np.random.Generator, head: Head, transform: RigidTransform, spacing_mm: float
) -> Grid:
    """Lay the CT's grid around the head's new place, not quite centred."""
    slab, part = KINDS[kind].slab_mm, _part(kind, seed)
    extent, target = np.array(CT_EXTENT_MM), head.centre_lps_mm - np.array([0, 0, 15])
    wander = random.uniform(-8, 8, 3)
    if kind in EXTREME or kind in ("R", "N3"):  # whole heads, whichever way they lie
        target = head.grid.centre_lps_mm
        half = np.asarray(head.grid.extent_ijk_mm) / 2
        extent = np.minimum(2 * np.sqrt(transform.rotation**2 @ half**2) + 16, 280)
    elif kind == "M":  # with the table
        extent, target = extent + np.array([20, 40, 0]), target + np.array([0, 20, 0])
    elif part == "frame":
        extent = np.array([290.0, 300.0, 190.0])
    elif part != "head" or slab:
        extent[2] = {"half": 100.0, "slab": 60.0}.get(part) or random.uniform(*(slab or (0, 0)))
        up = random.choice([-45.0, 40.0]) if part == "half" else random.uniform(-20, 40)
        target = head.centre_lps_mm + np.array([0, 0, -75 if kind == "N4" else up])
        wander[2] = 0
    i, j, k = KINDS[kind].ct_spacing_mm
    spacing = (i * spacing_mm, j * spacing_mm, max(k, spacing_mm))
    return _centred(extent, spacing, np.eye(3), transform.apply(target) + wander)


def _mri_grid(kind: str, random: np.random.Generator, head: Head, spacing_mm: float) -> Grid:
    """Lay the MRI's grid around the head: slightly oblique, in one of four cases stored in sagittal slices."""
    extent, up = np.array(MRI_EXTENT_MM), -15.0
    if kind == "N4":
        extent[2], up = 70.0, 60.0
    tilt = rotation_matrix(random.standard_normal(3), random.uniform(0, 8))
    centre = head.centre_lps_mm + random.uniform(-8, 8, 3) * (kind != "N4") + np.array([0, 0, up])
    axes = [1, 2, 0] if random.random() < 0.25 else [0, 1, 2]
    return _centred(extent[axes], (spacing_mm,) * 3, tilt[:, axes], centre)


def _centred(extent_mm: FloatArray, spacing: tuple[float, float, float], direction: FloatArray, at: FloatArray) -> Grid:
    i, j, k = (max(1, round(float(e) / s)) for e, s in zip(extent_mm, spacing, strict=True))
    grid = Grid((i, j, k), spacing, (0.0, 0.0, 0.0), direction)
    return Grid((i, j, k), spacing, tuple(at - grid.centre_lps_mm), direction)
