"""Segmentation nodes of masks: one segment, on a grid of the world, under a linear transform."""

from __future__ import annotations

import hashlib

import numpy as np
import slicer
import slicer.util
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.volume import BoolArray
from BrainFusionSlicer import bridge

BONE_COLOUR = (1.0, 0.9, 0.3)
BINARY = "Binary labelmap"


def fill(
    node: slicer.vtkMRMLSegmentationNode,
    mask_kji: BoolArray,
    lps_from_ijk: FloatArray,
    parent: slicer.vtkMRMLTransformNode | None,
    colour: tuple[float, float, float],
) -> None:
    """Give a segmentation node one segment, with the node's name; others are removed.

    Parameters
    ----------
    node
        A segmentation in a scene.
    mask_kji, lps_from_ijk
        Where the segment is, and the 4x4 matrix of its voxels to the world, LPS mm.
    parent
        The linear transform to put the node under; it stays where the grid is in the world.
    colour
        Red, green and blue, 0 to 1.
    """
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*mask_kji.shape[::-1])
    voxels = np.ascontiguousarray(mask_kji, dtype=np.uint8).ravel()
    image.GetPointData().SetScalars(numpy_to_vtk(voxels, deep=True, array_type=vtk.VTK_UNSIGNED_CHAR))
    world = bridge.world_ras_from_parent(parent, node.GetName())
    image.SetImageToWorldMatrix(bridge.vtk_matrix(np.linalg.inv(world) @ bridge.RAS_FROM_LPS @ lps_from_ijk))
    node.GetSegmentation().RemoveAllSegments()
    node.AddSegmentFromBinaryLabelmapRepresentation(image, node.GetName(), list(colour))
    node.SetAndObserveTransformNodeID(None if parent is None else parent.GetID())


def show_outline(node: slicer.vtkMRMLSegmentationNode) -> None:
    """Show the outline alone, on the slices alone."""
    display = node.GetDisplayNode()
    display.SetVisibility2DFill(False)
    display.SetVisibility2DOutline(True)
    display.SetVisibility3D(False)


def labels_of(node: slicer.vtkMRMLSegmentationNode) -> tuple[BoolArray, FloatArray] | None:
    """Return the first segment's voxels, (k, j, i), and their 4x4 matrix to the node's frame, RAS mm; None without any.

    Saving cuts empty margins off: the first voxel is not always number 0.
    """
    content = node.GetSegmentation()
    image = content.GetNthSegment(0).GetRepresentation(BINARY) if content.GetNumberOfSegments() else None
    if image is None or image.GetPointData().GetScalars() is None:
        return None
    matrix, first = vtk.vtkMatrix4x4(), np.eye(4)
    image.GetImageToWorldMatrix(matrix)
    first[:3, 3] = image.GetExtent()[::2]
    voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    return voxels > 0, slicer.util.arrayFromVTKMatrix(matrix) @ first


def content_of(node: slicer.vtkMRMLSegmentationNode) -> str:
    """Return a hash of all segments: their names and voxels, without empty margins, which saving cuts off."""
    made, segmentation = hashlib.sha256(), node.GetSegmentation()
    for n in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(n)
        image = segment.GetRepresentation(BINARY)
        made.update(f"{segment.GetName()} ".encode())
        if image is not None and image.GetPointData().GetScalars() is not None:
            voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
            filled = [np.flatnonzero(voxels.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
            if filled[0].size:
                low, high = [at[0] for at in filled], [at[-1] + 1 for at in filled]
                first = [start + at for start, at in zip(image.GetExtent()[4::-2], low, strict=True)]
                voxels = voxels[tuple(slice(*ends) for ends in zip(low, high, strict=True))]
                made.update(f"{[int(at) for at in first]} {voxels.shape} ".encode())
                made.update(np.ascontiguousarray(voxels).data)
    return made.hexdigest()
