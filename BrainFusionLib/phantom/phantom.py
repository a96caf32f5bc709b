"""A made-up head, rendered as CT and as MRI in any pose and on any grid, with the exact truth.

There is no file behind it: shapes are functions of space (`anatomy`), so the same head is available at any
spacing and orientation, and the transform between a CT and an MRI of it is known to the last digit.

Two frames: the **head frame** (LPS mm, origin deep in the brain) in which the head is described, and the scanner's
LPS space in which an image lies. A `pose` is a `RigidTransform` that takes points of the head frame to points of the
scanner: ``scanner = pose.apply(head)``. No pose means that the two frames are one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import SettingsError
from BrainFusionLib.geometry import FloatArray, Grid
from BrainFusionLib.phantom.anatomy import HeadShape
from BrainFusionLib.phantom.render import BLOCK_SAMPLES, render_image, render_labels, tissue_of
from BrainFusionLib.phantom.shapes import Cone, Ellipsoid, Float32Array, Points, Triple, hypotenuse
from BrainFusionLib.phantom.tissues import BRAIN_TISSUES, CT_HU, MRI_VALUES, SKULL_TISSUES, Tissue
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume

LabelArray = npt.NDArray[np.uint8]

__all__ = ["LabelMap", "Phantom", "PhantomPair", "Tissue", "head_grid", "make_pair", "make_phantom"]

MRI_FULL_SCALE = 1000.0
# Metal bends the field around it: its void in an MRI is wider than itself by this much on every side.
MRI_BLOOMING_MM = 0.8

# The box of the head frame that holds every head down to the upper neck (checked on 30), low and high corner, mm.
HEAD_LOW_MM = (-96.0, -121.0, -108.0)
HEAD_HIGH_MM = (96.0, 103.0, 92.0)


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Tissue labels on a grid: ``array_kji`` is uint8 of shape ``grid.shape_kji``, its values those of `Tissue`."""

    array_kji: LabelArray
    grid: Grid
    name: str = "labels"


@dataclass(frozen=True)
class Phantom:
    """A head that can be imaged. Made by `make_phantom`.

    Parameters
    ----------
    seed
        What the head was drawn from.
    shape
        The head's parameters.
    """

    seed: int
    shape: HeadShape

    def tissue_at(self, head_points_lps_mm: npt.ArrayLike) -> LabelArray:
        """Return the tissue at points of the head frame, shape (..., 3) to (...), uint8."""
        points = np.asarray(head_points_lps_mm, dtype=np.float64)
        flat = points.reshape(-1, 3)
        found = np.zeros(len(flat), dtype=np.uint8)
        for first in range(0, len(flat), BLOCK_SAMPLES):
            x, y, z = np.ascontiguousarray(flat[first : first + BLOCK_SAMPLES].T, dtype=np.float32)
            found[first : first + BLOCK_SAMPLES] = tissue_of(self.shape, Points(x, y, z))
        return found.reshape(points.shape[:-1])

    def labels(self, grid: Grid | None = None, pose: RigidTransform | None = None) -> LabelMap:
        """Return the tissue at every voxel's centre.

        Parameters
        ----------
        grid
            Where the voxels are, in the scanner's space; `head_grid` at 1 mm around the posed head when ``None``.
        pose
            Takes points of the head frame to points of the scanner; identity when ``None``.
        """
        grid = grid if grid is not None else head_grid(pose=pose)
        return LabelMap(render_labels(self.shape, grid, pose), grid, f"phantom {self.seed} labels")

    def ct(
        self,
        grid: Grid | None = None,
        pose: RigidTransform | None = None,
        *,
        noise_hu: float = 8.0,
        table: bool = False,
        seed: int = 0,
    ) -> Volume:
        """Image the head as a CT in Hounsfield units.

        Parameters
        ----------
        grid, pose
            As in `labels`.
        noise_hu
            Standard deviation of the Gaussian noise, HU; 0 for none.
        table
            Add a head holder. It is carried along with the head, as if patient and table were turned together.
        seed
            Seed of the noise.

        Raises
        ------
        SettingsError
            `noise_hu` is negative or not finite.
        """
        _check_at_least_zero("noise_hu", noise_hu)
        grid = grid if grid is not None else head_grid(pose=pose)
        array = render_image(self.shape, grid, pose, CT_HU, holder=table)
        if noise_hu > 0:
            noise = np.random.default_rng((seed, self.seed, 1)).standard_normal(array.shape, dtype=np.float32)
            array += noise * np.float32(noise_hu)
        return Volume(array, grid, "CT", f"phantom {self.seed} CT")

    def mri(
        self,
        contrast: str = "T1",
        grid: Grid | None = None,
        pose: RigidTransform | None = None,
        *,
        noise: float = 0.02,
        bias: float = 0.15,
        seed: int = 0,
    ) -> Volume:
        """Image the head as an MRI, on a scale of about 0 to 1000.

        Parameters
        ----------
        contrast
            ``"T1"`` (with contrast agent), ``"T2"``, ``"FLAIR"`` or ``"PD"``.
        grid, pose
            As in `labels`.
        noise
            Standard deviation of the Rician noise's two channels, as a fraction of 1000; 0 for none.
        bias
            Swing of the smooth brightness error: values are multiplied by 1 - bias to 1 + bias; 0 for none.
        seed
            Seed of the noise and of the brightness error.

        Raises
        ------
        SettingsError
            An unknown contrast, a negative noise, or a bias outside 0 to below 1.
        """
        if contrast not in MRI_VALUES:
            raise SettingsError(f"the contrast of an MRI must be one of {', '.join(MRI_VALUES)}; got {contrast!r}")
        _check_at_least_zero("noise", noise)
        if not 0 <= bias < 1:
            raise SettingsError(f"bias must be from 0 to below 1 (a fraction of the signal); got {bias!r}")
        grid = grid if grid is not None else head_grid(pose=pose)
        rng = np.random.default_rng((seed, self.seed, 2))
        gain = _smooth_gain(rng, bias) if bias > 0 else None
        array = render_image(self.shape, grid, pose, MRI_VALUES[contrast], blooming_mm=MRI_BLOOMING_MM, gain=gain)
        if noise > 0:
            sigma = np.float32(noise * MRI_FULL_SCALE)
            real = array + sigma * rng.standard_normal(array.shape, dtype=np.float32)
            array = hypotenuse(real, sigma * rng.standard_normal(array.shape, dtype=np.float32))
        return Volume(array, grid, "MR", f"phantom {self.seed} {contrast}")

    def target_points(self, count: int = 200, seed: int = 0) -> FloatArray:
        """Draw points evenly from the brain, head frame, LPS mm, shape (count, 3).

        Raises
        ------
        SettingsError
            `count` is below 1.
        """
        if count < 1:
            raise SettingsError(f"the number of target points must be at least 1; got {count!r}")
        rng = np.random.default_rng((seed, self.seed))
        found = np.empty((0, 3))
        while len(found) < count:
            tries = rng.uniform((-75, -90, -70), (75, 90, 80), size=(4 * count, 3))
            found = np.concatenate([found, tries[np.isin(self.tissue_at(tries), BRAIN_TISSUES)]])
        return found[:count]


@dataclass(frozen=True, eq=False)
class PhantomPair:
    """A CT and an MRI of one head, and the truth between them.

    Parameters
    ----------
    ct, mri
        The images. The MRI's space is the head frame.
    transform
        Takes points of the MRI to points of the CT: what a registration should find.
    labels
        Tissue on the MRI's grid.
    phantom
        The head.
    """

    ct: Volume
    mri: Volume
    transform: RigidTransform
    labels: LabelMap
    phantom: Phantom

    def target_points(self, count: int = 200, seed: int = 0) -> FloatArray:
        """Draw points of the brain in MRI space, LPS mm, shape (count, 3), to measure a registration's error at."""
        return self.phantom.target_points(count, seed)


def make_phantom(seed: int = 0, *, lesions: bool = True, electrode: bool = True) -> Phantom:
    """Make a head: the same seed gives the same head, another seed another one.

    Parameters
    ----------
    seed
        A whole number, at least 0.
    lesions
        Whether it has a tumour with oedema and a haemorrhage.
    electrode
        Whether a metal rod (1.3 to 2 mm thick) goes from the skull into the deep brain.

    Raises
    ------
    SettingsError
        The seed is negative or no whole number.
    """
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise SettingsError(f"the seed of a phantom must be a whole number of at least 0; got {seed!r}")
    shape = _draw_head(int(seed))
    if electrode:
        shape = replace(shape, electrode=_electrode(Phantom(int(seed), shape)))
    if not lesions:
        shape = replace(shape, tumour=None, haemorrhage=None)
    return Phantom(int(seed), shape)


def make_pair(
    seed: int = 0,
    *,
    spacing_mm: float = 1.0,
    ct_grid: Grid | None = None,
    mri_grid: Grid | None = None,
    rotation_deg: float = 15.0,
    translation_mm: float = 20.0,
    transform: RigidTransform | None = None,
    contrast: str = "T1",
    table: bool = False,
) -> PhantomPair:
    """Make a CT and an MRI of one head in different poses.

    Parameters
    ----------
    seed
        Seed of the head, of the pose and of the noise.
    spacing_mm
        Spacing of the grids that are not given.
    ct_grid, mri_grid
        Where the voxels are; `head_grid` around the head when ``None``.
    rotation_deg, translation_mm
        How far the head is turned, about its centre, and shifted between the two, about and along seeded random axes.
    transform
        The pose itself, instead: takes points of the MRI to points of the CT.
    contrast, table
        As in `Phantom.mri` and `Phantom.ct`.

    Raises
    ------
    SettingsError
        See `make_phantom`, `head_grid` and `Phantom.mri`; or a rotation or translation that is not finite.
    """
    phantom = make_phantom(seed)
    if transform is None:
        if not np.isfinite([rotation_deg, translation_mm]).all():
            raise SettingsError(
                f"rotation_deg and translation_mm must be finite numbers; got {rotation_deg!r} and {translation_mm!r}"
            )
        axis, along = np.random.default_rng((seed, 1)).standard_normal((2, 3))
        transform = RigidTransform.from_axis_angle(axis, rotation_deg, translation_mm * along / np.linalg.norm(along))
    mri_grid = mri_grid if mri_grid is not None else head_grid(spacing_mm)
    ct_grid = ct_grid if ct_grid is not None else head_grid(spacing_mm, transform)
    return PhantomPair(
        ct=phantom.ct(ct_grid, transform, table=table, seed=seed),
        mri=phantom.mri(contrast, mri_grid, seed=seed),
        transform=transform,
        labels=phantom.labels(mri_grid),
        phantom=phantom,
    )


def make_sample(spacing_mm: float = 1.5) -> PhantomPair:
    """Make the pair that the panel and the command offer to try everything on: a CT and a T1, far from each other."""
    return make_pair(seed=7, spacing_mm=spacing_mm, rotation_deg=25.0, translation_mm=35.0)


def head_grid(spacing_mm: float = 1.0, pose: RigidTransform | None = None) -> Grid:
    """Return an axial grid (axes along LPS) that covers the head in a pose: 192 x 224 x 200 voxels at 1 mm unposed.

    A turned head is covered as an ellipsoid would be, as far as a scan usually reaches: the corners below the jaw may
    stick out.

    Raises
    ------
    SettingsError
        The spacing is not a positive finite number.
    """
    if not (np.isfinite(spacing_mm) and spacing_mm > 0):
        raise SettingsError(f"the spacing of a grid must be positive and finite, in mm; got {spacing_mm!r}")
    pose = pose if pose is not None else RigidTransform.identity()
    low, high = np.asarray(HEAD_LOW_MM), np.asarray(HEAD_HIGH_MM)
    half = np.sqrt((pose.rotation**2) @ ((high - low) / 2) ** 2)
    size = np.ceil(2 * half / spacing_mm - 1e-6).astype(int)
    origin = pose.apply((low + high) / 2) - (size - 1) / 2 * spacing_mm
    return Grid((int(size[0]), int(size[1]), int(size[2])), (spacing_mm,) * 3, tuple(origin))


def _draw_head(seed: int) -> HeadShape:
    """Draw a head at random: the same seed always gives the same head. It has no electrode yet."""
    rng = np.random.default_rng(seed)

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def direction(length: float) -> Triple:
        vector = rng.standard_normal(3)
        x, y, z = (vector * (length / np.linalg.norm(vector))).tolist()
        return x, y, z

    waves = [
        (*direction(2 * np.pi / between(90, 170)), between(0, 6.28), *direction(between(1.2, 2.2))) for _ in range(4)
    ]
    wide, narrow = between(1.1, 1.4), between(0.7, 0.9)
    side = 1.0 if rng.random() < 0.5 else -1.0
    radius, bleed = between(11, 15), between(6, 9)
    return HeadShape(
        size=(between(0.95, 1.02), between(0.95, 1.02), between(0.95, 1.02)),
        waves=tuple(waves),
        skull_mm=between(5.8, 7.4),
        scalp_mm=between(5.0, 6.5),
        sulcus_mm=between(25, 30),
        phases=(between(0, 6.28), between(0, 6.28), between(0, 6.28)),
        ventricles=(wide, narrow) if rng.random() < 0.5 else (narrow, wide),
        tumour=Ellipsoid((side * between(30, 36), between(-25, 30), between(26, 36)), (radius, 1.1 * radius, radius)),
        haemorrhage=Ellipsoid((-side * between(34, 42), between(20, 35), between(5, 25)), (bleed, 1.3 * bleed, bleed)),
        electrode=None,
    )


def _electrode(phantom: Phantom) -> Cone:
    """Return a rod from the outer table of the skull to the depth of the basal ganglia, opposite the tumour."""
    rng = np.random.default_rng((phantom.seed, 2))
    side = -np.sign(phantom.shape.tumour.centre[0]) if phantom.shape.tumour else 1.0
    tip = np.array([side * rng.uniform(10, 13), rng.uniform(-4, 2), rng.uniform(-6, -2)])
    towards = np.array([side * rng.uniform(0.38, 0.5), rng.uniform(-0.5, -0.35), 1.0])
    way = tip + np.arange(30, 140, 0.25)[:, None] * towards / np.linalg.norm(towards)
    tissue = phantom.tissue_at(way)
    end = way[np.flatnonzero(np.isin(tissue, SKULL_TISSUES))[-1]]
    radius = float(rng.uniform(1.3, 2.0)) / 2
    (ax, ay, az), (bx, by, bz) = tip.tolist(), end.tolist()
    return Cone((ax, ay, az, radius), (bx, by, bz, radius))


def _smooth_gain(rng: np.random.Generator, bias: float) -> Callable[[Points], Float32Array]:
    """Return a function of place that is smooth over about a head and goes from 1 - bias to 1 + bias."""
    wave = rng.standard_normal(3)
    x, y, z = (wave * (2 * np.pi / 260) / np.linalg.norm(wave)).tolist()
    phase = float(rng.uniform(0, 2 * np.pi))

    def gain(p: Points) -> Float32Array:
        values: Float32Array = 1 + bias * np.sin(p.x * x + p.y * y + (p.z * z + phase))
        return values

    return gain


def _check_at_least_zero(name: str, value: float) -> None:
    if not (np.isfinite(value) and value >= 0):
        raise SettingsError(f"{name} must be a finite number of at least 0; got {value!r}")
