"""Whole-head label maps with FreeSurfer's and charm's numbers, as SynthSeg's are, made into heads."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from BrainFusionLib.errors import ImageContentError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io import read_volume
from BrainFusionLib.phantom import Tissue
from BrainFusionLib.volume import axial_stack
from simulation.heads import Head
from simulation.itk import itk_image
from simulation.tissues import COARSE_OF_LABEL, TISSUE_OF_LABEL, CodeArray, coarse_codes

# Compact bone thicker than this on both sides has marrow inside.
TABLE_MM = 2.0
# Smoothing of the noise that divides soft tissue into fat and muscle.
BUNDLE_MM = 4.0


# A head is 9 MB, reading one takes a second.
@lru_cache(maxsize=32)
def read_head(path: Path) -> Head:
    """Read a label map in coarse tissues; its axes become those of LPS, its points stay where they are.

    Raises
    ------
    ImageContentError
        The file holds no brain.
    ImageFileError, GeometryError
        See `BrainFusionLib.io.read_volume`.
    """
    volume = read_volume(path)
    image = sitk.DICOMOrient(itk_image(volume.array_kji.astype(np.uint16), volume.grid), "LPS")
    labels = sitk.GetArrayFromImage(image)
    grid = Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin())
    return Head(_name(path), coarse_codes(labels, COARSE_OF_LABEL), grid).cropped()


def read_detailed_head(path: Path) -> Head:
    """Read a label map in the phantom's tissues, with the marrow, fat and inner air that labels do not tell.

    The middle of its grid is at 0: where the file has it does not matter to scans of one head.

    Raises
    ------
    ImageContentError
        The map has labels that are not known, or no bone.
    ImageFileError, GeometryError
        See `BrainFusionLib.io.read_volume`.
    """
    volume = read_volume(path)
    labels = np.rint(volume.array_kji).astype(np.int32)
    unknown = sorted(set(np.unique(labels).tolist()) - {*TISSUE_OF_LABEL})
    if unknown:
        raise ImageContentError(
            f"{path}: labels {unknown[:5]} are not known. Choose a label map with FreeSurfer's labels for the brain "
            "and charm's (502 to 530) for the rest of the head, as SynthSeg's training label maps are."
        )
    if not (labels == 515).any():
        raise ImageContentError(f"{path}: no bone (label 515). Choose a label map of the whole head.")
    table = np.zeros(labels.max() + 1, np.uint8)
    for label, tissue in TISSUE_OF_LABEL.items():
        if label < len(table):
            table[label] = tissue
    stack, _ = axial_stack(table[labels].astype(np.float32), volume.grid)
    spacing_kji = _spacing_of_stack(volume.grid.spacing_ijk_mm, volume.grid.shape_kji, stack.shape)
    tissue_kji = _detailed(stack.astype(np.uint8), spacing_kji)
    return Head(_name(path), tissue_kji, centred_grid(tissue_kji.shape, spacing_kji))


def centred_grid(shape_kji: tuple[int, ...], spacing_kji_mm: tuple[float, float, float]) -> Grid:
    """Return a grid along LPS with its middle at 0."""
    size, spacing = shape_kji[::-1], spacing_kji_mm[::-1]
    x, y, z = (-(n - 1) / 2 * s for n, s in zip(size, spacing, strict=True))
    return Grid((size[0], size[1], size[2]), spacing, (x, y, z))


def _name(path: Path) -> str:
    return path.name.partition(".")[0]


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


def _detailed(tissue: CodeArray, spacing_kji: tuple[float, float, float]) -> CodeArray:
    """Remove stray voxels, tell air inside from air outside, and add marrow and fat, which the labels do not have."""

    def image(array: npt.NDArray[np.generic]) -> sitk.Image:
        return itk_image(array, centred_grid(array.shape, spacing_kji))

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
    noise = np.random.default_rng(0).standard_normal(tissue.shape, dtype=np.float32)
    bundles = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(image(noise), BUNDLE_MM))
    # Under the skin there is fat; deeper, bundles of muscle with fat between.
    fat = (depth_mm(tissue > 0) < 6.0) | (bundles > 0.4 * bundles.std())
    tissue[(tissue == Tissue.MUSCLE) & fat] = Tissue.FAT
    return tissue
