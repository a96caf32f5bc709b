"""The voxels of a volume under a transform that is not linear, resampled a piece at a time.

All of a volume takes seconds, in which the window would be frozen; a piece takes some milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import vtk
from vtk.util.numpy_support import get_vtk_to_numpy_typemap, vtk_to_numpy

from BrainFusionLib.geometry import FloatArray

# Voxels that are resampled at a time: 28 ms through a grid transform that has to be inverted.
PIECE_VOXELS = 1 << 16
# A volume is not made larger for less than so much of a voxel.
LEAST_VOXEL = 1e-3
# Points along each axis that its new size is found from, as vtkMRMLVolumeNode::GetBoundsInternal does.
SAMPLES = 8


class WarpedVoxels:
    """Stands for an array of shape (k, j, i) whose voxels are made when they are asked for.

    The same voxels in the same place as `vtkMRMLTransformableNode.HardenTransform` gives a copy of the node: axes and
    spacing are the volume's own, and the box is as large as what the transform makes of it.

    Parameters
    ----------
    node
        A scalar volume with voxels.
    parent
        The transform that it is under, with all that are above.
    """

    def __init__(self, node: slicer.vtkMRMLScalarVolumeNode, parent: slicer.vtkMRMLTransformNode) -> None:
        ras_from_ijk, ijk_from_ras = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(ras_from_ijk)
        node.GetRASToIJKMatrix(ijk_from_ras)
        current, to_own = vtk.vtkGeneralTransform(), vtk.vtkGeneralTransform()
        parent.GetTransformToWorld(current)
        to_own.DeepCopy(current)
        to_own.Inverse()
        pull, push = (_in_a_row(ras_from_ijk, warp, ijk_from_ras) for warp in (to_own, current))
        image = node.GetImageData()
        low, high = _bounds(push, image.GetDimensions())
        self._first_ijk = low + 0.5  # the bounds are those of the voxels' corners
        sizes = [int(size) for size in np.ceil(high - low - LEAST_VOXEL)]
        self.shape = (sizes[2], sizes[1], sizes[0])
        self.dtype = np.dtype(get_vtk_to_numpy_typemap()[image.GetScalarType()])
        self.ras_from_ijk: FloatArray = slicer.util.arrayFromVTKMatrix(ras_from_ijk)
        self.ras_from_ijk[:3, 3] += self.ras_from_ijk[:3, :3] @ self._first_ijk
        self._reslice = vtk.vtkImageReslice()
        self._reslice.SetInputData(image)
        self._reslice.SetResliceTransform(pull)
        if node.IsA("vtkMRMLLabelMapVolumeNode"):  # as its GetResamplingInterpolationMode, which is not public
            self._reslice.SetInterpolationModeToNearestNeighbor()
        else:
            self._reslice.SetInterpolationModeToLinear()
        self._reslice.SetBackgroundLevel(node.GetImageBackgroundScalarComponentAsDouble(0))
        self._reslice.TransformInputSamplingOff()
        self._reslice.SetOutputSpacing(1.0, 1.0, 1.0)
        self._reslice.SetOutputOrigin(*self._first_ijk)
        self._reslice.SetOutputDimensionality(3)

    @property
    def size(self) -> int:
        """The number of voxels."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """The number of bytes of the whole array."""
        return self.size * int(self.dtype.itemsize)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, slices: slice) -> npt.NDArray[Any]:
        """Return some slices, made now."""
        first, end, _step = slices.indices(len(self))
        return self._made(first, max(first, end), 0, self.shape[1])

    def pieces(self) -> Iterator[npt.NDArray[Any]]:
        """Yield all voxels in their order, a piece at a time."""
        rows = max(1, PIECE_VOXELS // max(1, self.shape[2]))
        for k in range(self.shape[0]):
            for j in range(0, self.shape[1], rows):
                yield self._made(k, k + 1, j, min(j + rows, self.shape[1]))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return all voxels, made now."""
        return np.asarray(self[:], dtype)

    def _made(self, k: int, end_k: int, j: int, end_j: int) -> npt.NDArray[Any]:
        shape = (end_k - k, end_j - j, self.shape[2])
        if 0 in shape:
            return np.empty(shape, self.dtype)
        self._reslice.SetOutputExtent(0, shape[2] - 1, j, end_j - 1, k, end_k - 1)
        self._reslice.Update()
        made: npt.NDArray[Any] = vtk_to_numpy(self._reslice.GetOutput().GetPointData().GetScalars()).reshape(shape)
        return made.copy()


def _in_a_row(*steps: Any) -> vtk.vtkGeneralTransform:
    """Return one transform after the other."""
    made = vtk.vtkGeneralTransform()
    made.PostMultiply()
    for step in steps:
        made.Concatenate(step)
    return made


def _bounds(push: vtk.vtkGeneralTransform, size_ijk: Sequence[int]) -> tuple[FloatArray, FloatArray]:
    """Return the lowest and the highest corner of a warped volume, in its own voxels; inside it may bulge out, too."""
    axes = [np.linspace(-0.5, size - 0.5, SAMPLES) for size in size_ijk]
    corners = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    moved = np.array([push.TransformPoint(point) for point in corners])
    return moved.min(axis=0), moved.max(axis=0)
