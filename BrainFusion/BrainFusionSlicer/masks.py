"""The registration mask as the library wants it, read from the user's node without a trace.

Slicer's own export of segments takes all of them where none is visible, leaves a colour table and a display node in the
scene, and gives an imported surface a representation that it did not have. So nothing of it is used here.
"""

from __future__ import annotations

import slicer
import vtk

from BrainFusionLib.errors import ImageContentError
from BrainFusionSlicer import bridge
from BrainFusionSlicer.jobs import RawVolume

BINARY = "Binary labelmap"


def mask_from_node(
    node: slicer.vtkMRMLNode,
    mri_node: slicer.vtkMRMLScalarVolumeNode,
    mri_parent: slicer.vtkMRMLTransformNode | None,
) -> RawVolume:
    """Return a registration mask: a label map, a scalar volume, or the visible segments of a segmentation.

    Segments are put onto the MRI's voxels, where they are shown on it.

    Parameters
    ----------
    node, mri_node
        The mask and the MRI.
    mri_parent
        What the MRI is read under: so is a mask that stands under the same transform as the MRI.

    Raises
    ------
    ImageContentError
        It is none of these, or no segment is visible, or the segments have no voxels and can be given none.
    """
    if node.GetClassName() == "vtkMRMLSegmentationNode":
        return bridge.raw_under(_labels_of(node, mri_node), mri_parent, labels=True)
    above = node.GetParentTransformNode()
    return bridge.raw_under(node, mri_parent if above == mri_node.GetParentTransformNode() else above, labels=True)


def _labels_of(
    segmentation: slicer.vtkMRMLSegmentationNode, mri_node: slicer.vtkMRMLScalarVolumeNode
) -> slicer.vtkMRMLLabelMapVolumeNode:
    """Return a label map with the MRI's voxels in the MRI's own frame; it is in no scene."""
    image = mri_node.GetImageData()
    matrix, grid = vtk.vtkMatrix4x4(), slicer.vtkOrientedImageData()
    mri_node.GetIJKToRASMatrix(matrix)
    grid.SetExtent(image.GetExtent())
    grid.SetGeometryFromImageToWorldMatrix(matrix)
    onto_mri, pulled = vtk.vtkGeneralTransform(), slicer.vtkOrientedImageData()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        segmentation.GetParentTransformNode(), mri_node.GetParentTransformNode(), onto_mri
    )
    found = _visible_segments(segmentation)
    if found.IsEmpty():
        pulled.SetExtent(image.GetExtent())
        pulled.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        pulled.GetPointData().GetScalars().Fill(0)
    else:
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
            found, grid, pulled, False, False, onto_mri
        )
    voxels = vtk.vtkImageData()  # without the geometry, which is the node's in MRML
    voxels.ShallowCopy(pulled)
    voxels.SetOrigin(0, 0, 0)
    voxels.SetSpacing(1, 1, 1)
    voxels.SetDirectionMatrix(1, 0, 0, 0, 1, 0, 0, 0, 1)
    labels = slicer.vtkMRMLLabelMapVolumeNode()
    labels.SetName(segmentation.GetName())
    labels.SetAndObserveImageData(voxels)
    labels.SetIJKToRASMatrix(matrix)
    return labels


def _visible_segments(segmentation: slicer.vtkMRMLSegmentationNode) -> slicer.vtkOrientedImageData:
    """Return the visible segments in the segmentation's own frame, above 0; empty where nothing was drawn."""
    name, display = segmentation.GetName(), segmentation.GetDisplayNode()
    visible = vtk.vtkStringArray()
    if display is not None:
        display.GetVisibleSegmentIDs(visible)
    if segmentation.GetSegmentation().GetNumberOfSegments() == 0:
        raise ImageContentError(f"{name}: it has no segment. Draw the registration mask, or choose another one.")
    if display is not None and visible.GetNumberOfValues() == 0:
        raise ImageContentError(f"{name}: no segment of it is visible. Show the segment that is the registration mask.")
    merged = slicer.vtkOrientedImageData()
    _with_voxels(segmentation).GenerateMergedLabelmapForAllSegments(
        merged, slicer.vtkSegmentation.EXTENT_UNION_OF_EFFECTIVE_SEGMENTS, None, visible
    )
    return merged


def _with_voxels(segmentation: slicer.vtkMRMLSegmentationNode) -> slicer.vtkMRMLSegmentationNode:
    """Return a segmentation whose segments have voxels: itself, or, of imported surfaces, a copy in no scene."""
    if segmentation.GetSegmentation().ContainsRepresentation(BINARY):
        return segmentation
    content = slicer.vtkSegmentation()
    content.DeepCopy(segmentation.GetSegmentation())
    if not content.CreateRepresentation(BINARY):
        raise ImageContentError(
            f"{segmentation.GetName()}: its segments cannot be made into voxels. Open the Segmentations module, create "
            f"the representation {BINARY} there, and choose it again."
        )
    copy = slicer.vtkMRMLSegmentationNode()
    copy.SetAndObserveSegmentation(content)
    return copy
