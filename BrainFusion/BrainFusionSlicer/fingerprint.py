"""What a volume node holds and where it is, so that one can tell whether it has changed.

Window, name, display, saving and loading change nothing of it.
"""

# No `from __future__ import annotations`: see `jobs`.

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import slicer.util
import vtk

from BrainFusionLib.geometry import FloatArray

# Points of a node that are compared, along each axis: a transform that is not linear shows between the corners, too.
LATTICE = 3
# A NIfTI header holds the geometry in single precision: an oblique head comes back 1e-5 mm off.
TOLERANCE_MM = 1e-3
KEPT_HASHES = 16
PARTS = 2
# Columns of numbers that are mixed side by side (a row fits into a processor's cache), and the factor that mixes them:
# odd, so that no number is lost, and with bits all over.
COLUMNS = 1 << 14
FACTOR = np.uint64(0x9E3779B97F4A7C15)
HALF = np.uint64(32)


@dataclass(frozen=True)
class Fingerprint:
    """What a volume node holds and where it is.

    voxels - A hash of the voxels, their type and their shape.
    own_mm - Points of the volume in its own frame, RAS mm, coordinates in a row: its geometry without any transform.
    seen_mm - The same points after all transforms that the node is under, seen from the frame of a pair.
    """

    voxels: str
    own_mm: tuple[float, ...]
    seen_mm: tuple[float, ...]


def has_voxels(node: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Say whether a volume node holds voxels of one value each: it may have no image, or an empty or coloured one."""
    image = node.GetImageData()
    scalars = None if image is None else image.GetPointData().GetScalars()
    return scalars is not None and scalars.GetNumberOfTuples() > 0 and scalars.GetNumberOfComponents() == 1


def fingerprint_of(
    node: slicer.vtkMRMLScalarVolumeNode, frame: slicer.vtkMRMLTransformNode | None = None
) -> Fingerprint:
    """Return the fingerprint of a volume node with voxels.

    Parameters
    ----------
    node
        The volume.
    frame
        The linear transform over the MRI of its pair: what moves that, moves all, and changes nothing.
    """
    own = own_points(node)
    return Fingerprint(
        voxels_of(node), _row(own), _row(_seen_from(frame, _to_world(node.GetParentTransformNode(), own)))
    )


def is_same_place(first_mm: tuple[float, ...], second_mm: tuple[float, ...]) -> bool:
    """Say whether two rows of coordinates are the same to a thousandth of a millimetre."""
    return len(first_mm) == len(second_mm) and np.allclose(first_mm, second_mm, rtol=0, atol=TOLERANCE_MM)


def own_points(node: slicer.vtkMRMLScalarVolumeNode) -> FloatArray:
    """Return points spread over a volume, shape (n, 3), in the node's own frame, RAS mm."""
    ras_from_ijk = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(ras_from_ijk)
    matrix = slicer.util.arrayFromVTKMatrix(ras_from_ijk)
    axes = [np.linspace(0.0, max(1, size - 1), LATTICE) for size in node.GetImageData().GetDimensions()]
    ijk = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points: FloatArray = ijk @ matrix[:3, :3].T + matrix[:3, 3]
    return points


def place_of(node: slicer.vtkMRMLScalarVolumeNode, parent: slicer.vtkMRMLTransformNode | None) -> tuple[float, ...]:
    """Return points of a volume in its own frame and in the world, RAS mm, as if it were under `parent`."""
    own = own_points(node)
    return _row(own) + _row(_to_world(parent, own))


def through(transform: slicer.vtkMRMLTransformNode, points: FloatArray) -> tuple[float, ...]:
    """Return where a transform puts points, RAS mm, coordinates in a row."""
    return _row(_to_world(transform, points))


def _to_world(parent: slicer.vtkMRMLTransformNode | None, points: FloatArray) -> FloatArray:
    if parent is None:
        return points
    to_world = vtk.vtkGeneralTransform()
    parent.GetTransformToWorld(to_world)
    return np.array([to_world.TransformPoint(point) for point in points])


def _seen_from(frame: slicer.vtkMRMLTransformNode | None, points: FloatArray) -> FloatArray:
    if frame is None:
        return points
    frame_from_world: FloatArray = np.linalg.inv(slicer.util.arrayFromTransformMatrix(frame, toWorld=True))
    return points @ frame_from_world[:3, :3].T + frame_from_world[:3, 3]


def _row(points: FloatArray) -> tuple[float, ...]:
    return tuple(float(value) for value in np.round(points, 9).ravel())


# VTK gives each change of any object a number of its own, so that it names the voxels, too.
_hashes: dict[int, str] = {}


def voxels_of(node: slicer.vtkMRMLScalarVolumeNode) -> str:
    """Return a hash of the voxels of a volume, their type and their shape."""
    changed = node.GetImageData().GetMTime()
    if changed not in _hashes:
        while len(_hashes) >= KEPT_HASHES:
            del _hashes[next(iter(_hashes))]
        _hashes[changed] = _hash_of_array(slicer.util.arrayFromVolume(node))
    return _hashes[changed]


def _hash_of_array(array: npt.NDArray[Any]) -> str:
    """Hash an array in the time of reading it: the window waits. Not against forgers, who could write any hash."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    row = 8 * COLUMNS
    whole = flat.size // row
    rows = flat[: whole * row].view(np.uint64).reshape(whole, COLUMNS)
    made = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    with ThreadPoolExecutor(PARTS) as pool:  # numpy gives Python's lock away
        for mixed in pool.map(_mixed, np.array_split(rows, PARTS)):
            made.update(mixed.data)
    made.update(flat[whole * row :].data)
    return made.hexdigest()


def _mixed(rows: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return one row made of many, shape (COLUMNS,): each bit of each row, and their order, show in it."""
    mixed, high = np.zeros((2, COLUMNS), np.uint64)
    for row in rows:
        np.multiply(mixed, FACTOR, out=mixed)
        np.right_shift(mixed, HALF, out=high)
        np.bitwise_xor(mixed, high, out=mixed)
        np.bitwise_xor(mixed, row, out=mixed)
    return mixed
