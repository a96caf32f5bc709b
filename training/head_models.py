"""Heads as tissue maps: what simulated scans are made from. Phantoms of the library, and label maps in files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from BrainFusionLib.errors import ImageContentError
from BrainFusionLib.io import read_volume
from BrainFusionLib.phantom import Tissue, head_grid, make_phantom
from BrainFusionLib.volume import axial_stack

# Labels of FreeSurfer (brain) and of SimNIBS' charm atlas (the rest of the head), as SynthSeg's label maps have them.
TISSUE_OF_LABEL: dict[int, Tissue] = {
    **dict.fromkeys((2, 7, 16, 28, 41, 46, 60, 85, 512, 530), Tissue.WHITE_MATTER),
    **dict.fromkeys((3, 8, 17, 18, 42, 47, 53, 54, 136, 137, 163, 164), Tissue.GREY_MATTER),
    **dict.fromkeys((10, 11, 12, 13, 26, 49, 50, 51, 52, 58), Tissue.DEEP_GREY),
    **dict.fromkeys((4, 5, 14, 15, 43, 44, 72), Tissue.VENTRICLE),
    **dict.fromkeys((24, 25, 30, 57, 62), Tissue.CSF),
    502: Tissue.DURA,  # arteries: like the veins of label 514, bright in no contrast without an agent
    506: Tissue.EYE,
    507: Tissue.MUSCLE,  # all soft tissue outside the skull; fat is set apart below
    508: Tissue.MUSCLE,
    509: Tissue.MUSCLE,
    511: Tissue.SKIN,
    514: Tissue.DURA,
    515: Tissue.BONE,
    516: Tissue.DIPLOE,
}
# Compact bone thicker than this on both sides has marrow inside.
TABLE_MM = 2.0
# Smoothing of the noise that divides soft tissue into fat and muscle.
BUNDLE_MM = 4.0


@dataclass(frozen=True, eq=False)
class HeadModel:
    """A head as tissue codes (`Tissue`), uint8, slices from feet to head, rows to the back, columns to the left.

    `spacing_kji_mm` is the size of a voxel along the three axes.
    """

    name: str
    tissue_kji: npt.NDArray[np.uint8]
    spacing_kji_mm: tuple[float, float, float]


def phantom_model(seed: int, spacing_mm: float = 1.0) -> HeadModel:
    """Make the tissue map of a phantom, without electrode and lesions: each simulated scan draws its own."""
    grid = head_grid(spacing_mm)
    labels = make_phantom(seed, lesions=False, electrode=False).labels(grid)
    return HeadModel(f"phantom-{seed}", labels.array_kji, (spacing_mm,) * 3)


def model_from_labels(path: Path) -> HeadModel:
    """Read a whole-head label map (FreeSurfer's and charm's numbers) and make a tissue map of it.

    Raises
    ------
    ImageContentError
        The map has labels that are not known, or no bone.
    ImageFileError, GeometryError
        See `BrainFusionLib.io.read_volume`.
    """
    volume = read_volume(path)
    labels = np.rint(volume.array_kji).astype(np.int32)
    unknown = sorted(set(np.unique(labels).tolist()) - {0, *TISSUE_OF_LABEL})
    if unknown:
        raise ImageContentError(
            f"{path}: labels {unknown[:5]} are not known. A head with FreeSurfer's labels for the brain and charm's "
            "(502 to 530) for the rest is wanted, as SynthSeg's training label maps are."
        )
    if not (labels == 515).any():
        raise ImageContentError(f"{path}: has no bone (label 515). A map of the whole head is wanted.")
    table = np.zeros(labels.max() + 1, np.uint8)
    for label, tissue in TISSUE_OF_LABEL.items():
        if label < len(table):
            table[label] = tissue
    tissue_kji, _ = axial_stack(table[labels].astype(np.float32), volume.grid)
    spacing = _spacing_of_stack(volume.grid.spacing_ijk_mm, volume.grid.shape_kji, tissue_kji.shape)
    return HeadModel(path.name.partition(".")[0], _finished(tissue_kji.astype(np.uint8), spacing), spacing)


def _spacing_of_stack(
    spacing_ijk: tuple[float, float, float], shape_kji: tuple[int, ...], stack_shape: tuple[int, ...]
) -> tuple[float, float, float]:
    if max(spacing_ijk) - min(spacing_ijk) < 1e-3:
        return (spacing_ijk[0],) * 3
    if len(set(shape_kji)) != 3:
        raise ImageContentError(
            f"a label map needs voxels that are cubes; got {spacing_ijk} mm. Resample it with nearest neighbours."
        )
    by_size = dict(zip(shape_kji, reversed(spacing_ijk), strict=True))
    k, j, i = (by_size[size] for size in stack_shape)
    return (k, j, i)


def _finished(tissue: npt.NDArray[np.uint8], spacing_kji: tuple[float, float, float]) -> npt.NDArray[np.uint8]:
    """Remove stray voxels, tell inner air from the room, and add marrow and fat, which the labels do not have."""

    def image(mask: npt.NDArray[np.bool_]) -> sitk.Image:
        result = sitk.GetImageFromArray(mask.astype(np.uint8))
        result.SetSpacing(tuple(reversed(spacing_kji)))
        return result

    def depth_mm(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        distance = sitk.SignedMaurerDistanceMap(image(mask), insideIsPositive=True, squaredDistance=False)
        depth: npt.NDArray[np.float32] = sitk.GetArrayFromImage(sitk.Cast(distance, sitk.sitkFloat32))
        return depth

    pieces = sitk.RelabelComponent(sitk.ConnectedComponent(image(tissue > 0)), sortByObjectSize=True)
    head = sitk.GetArrayFromImage(pieces) == 1
    tissue = np.where(head, tissue, np.uint8(0))
    box = tuple(slice(max(0, int(where.min()) - 8), int(where.max()) + 9) for where in np.nonzero(head))
    tissue, head = np.ascontiguousarray(tissue[box]), head[box]
    closed = sitk.BinaryMorphologicalClosing(image(head), [4, 4, 4])
    inside = sitk.GetArrayFromImage(sitk.BinaryFillhole(closed)).astype(bool)
    tissue[inside & (tissue == 0)] = Tissue.AIR
    bone = np.isin(tissue, (Tissue.BONE, Tissue.DIPLOE))
    tissue[(tissue == Tissue.BONE) & (depth_mm(bone) > TABLE_MM)] = Tissue.DIPLOE
    noise = sitk.GetImageFromArray(np.random.default_rng(0).standard_normal(tissue.shape, dtype=np.float32))
    noise.SetSpacing(tuple(reversed(spacing_kji)))
    bundles = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(noise, BUNDLE_MM))
    # Under the skin there is fat; deeper, bundles of muscle with fat between.
    fat = (depth_mm(tissue > 0) < 6.0) | (bundles > 0.4 * bundles.std())
    tissue[(tissue == Tissue.MUSCLE) & fat] = Tissue.FAT
    return tissue
