"""Looking at a result in the slice views: what lies over what, and where to look. Layouts are never changed."""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util
from slicer.i18n import tr as _

from BrainFusionLib.intensity import ct_to_unit
from BrainFusionSlicer import bridge

CHECKERBOARD_ROLE = "BrainFusion.Checkerboard"
SQUARE_MM = 20.0


def show_fused(fusedVolume, mriVolume) -> None:
    """Show the fused volume over the MRI."""
    slicer.util.setSliceViewerLayers(background=mriVolume, foreground=fusedVolume, foregroundOpacity=1.0)


def show_ct_over_mri(ctVolume, mriVolume, opacity: float) -> None:
    """Show the CT over the MRI; opacity 0 shows the MRI alone, 1 the CT alone."""
    slicer.util.setSliceViewerLayers(background=mriVolume, foreground=ctVolume, foregroundOpacity=opacity)


def set_linked(linked: bool) -> None:
    """Link the slice views, so that what is done in one of them is done in all, or unlink them."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        node.SetLinkedControl(linked)


def are_linked() -> bool:
    """Say whether all slice views are linked."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return bool(nodes) and all(node.GetLinkedControl() for node in nodes)


def jump_to(point_ras_mm) -> None:
    """Show a point of the world, RAS mm, in the middle of all slice views."""
    mode = slicer.vtkMRMLSliceNode.CenteredJumpSlice
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *(float(mm) for mm in point_ras_mm), mode)


def show_checkerboard(fusedVolume, mriVolume, result):
    """Show squares of the MRI and of the CT in turn, in a volume of its own; return its node.

    :param fusedVolume: node of the fused volume; the checkerboard is kept as its node reference
    :param mriVolume: the MRI that it was made of
    :param result: the Result, with its volumes
    """
    node = fusedVolume.GetNodeReference(CHECKERBOARD_ROLE)
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", _("CT and MRI in squares"))
        fusedVolume.SetNodeReferenceID(CHECKERBOARD_ROLE, node.GetID())
    bridge.node_from_volume(result.fused.with_array(squares(slicer.util.arrayFromVolume(mriVolume), result)), node)
    bridge.share_display(node, fusedVolume)
    bridge.share_place(node, fusedVolume)
    slicer.util.setSliceViewerLayers(foreground=node, foregroundOpacity=1.0)
    return node


def remove_checkerboard(fusedVolume) -> None:
    """Remove the volume that `show_checkerboard` made, if it did."""
    node = fusedVolume.GetNodeReference(CHECKERBOARD_ROLE)
    if node is not None:
        slicer.mrmlScene.RemoveNode(node)


def squares(mri_kji, result):
    """Return the voxels of a checkerboard, (k, j, i): the CT on the MRI's scale in every other cube of 20 mm."""
    low, high = result.intensity.mri_low, result.intensity.mri_high
    ct = ct_to_unit(result.ct_in_mri.array_kji) * np.float32(high - low) + np.float32(low)
    spacing = result.fused.grid.spacing_ijk_mm[::-1]
    cubes = [np.floor(np.arange(n) * s / SQUARE_MM).astype(int) for n, s in zip(ct.shape, spacing, strict=True)]
    odd = (cubes[0][:, None, None] + cubes[1][:, None] + cubes[2]) % 2 == 1
    return np.where(odd, ct, mri_kji).astype(np.float32)
