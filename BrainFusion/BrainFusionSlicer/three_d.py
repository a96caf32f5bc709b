"""Skull and brain in 3D: the CT's volume rendering, the brain's surface, and the bone's outline on the slices.

All nodes are made here, marked, hidden from lists and not saved; `hide` removes them all. The CT is rendered through a
node of its own that shares the CT's voxels, so that the user's nodes, views, cameras and layout stay as they are.
"""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _

from BrainFusionLib.errors import ImageContentError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.intensity import ct_head_mask
from BrainFusionLib.intensity.bone import bone_mask
from BrainFusionLib.intensity.brain import brain_mask
from BrainFusionLib.intensity.inside import inside_skull, pooled_to
from BrainFusionLib.volume import Volume
from BrainFusionSlicer import bridge, ownership, segmentations

MARK = "BrainFusion.ThreeD"
PRESET = "CT-Bones"
# The head is looked for, and the brain's surface made, in voxels of this size.
COARSE_MM = 2.0
# The bone is outlined in voxels of about this size: in all of a CT of 512×512×200 it takes the window 2.4 s.
FINE_MM = 1.0
# Around the head.
MARGIN_MM = 5.0
BRAIN_COLOUR = (0.95, 0.75, 0.65)


def show(ct, mri, shift_hu: float = 0.0) -> None:
    """Show the pair in 3D, where the two are now.

    Raises
    ------
    ImageContentError
        No head is in the CT, or Slicer's preset for bone is missing.
    """
    scene = ct.GetScene()
    hide(scene)
    in_ct, in_mri = (bridge.raw_from_node(node, as_shown=True).copied() for node in (ct, mri))
    coarse = Volume(*pooled_to(in_ct, COARSE_MM), "CT", ct.GetName())
    head = ct_head_mask(coarse)
    if not head.any():
        raise ImageContentError(f"{ct.GetName()}: there is no head in this CT.")
    try:
        _render(ct, coarse.grid, head, shift_hu)
        _outline_bone(ct, in_ct)
        _surface_of_brain(mri, in_ct, in_mri)
    except BaseException:
        hide(scene)
        raise


def hide(scene) -> None:
    """Remove everything that `show` made."""
    for node in made(scene):
        scene.RemoveNode(node)


def is_shown(scene) -> bool:
    """Say whether something is shown in 3D."""
    return bool(made(scene))


def is_of(scene, *volumes) -> bool:
    """Say whether what is shown is of these volumes."""
    shown = {node.GetAttribute(MARK) for node in made(scene)}
    return shown <= {_key(node) for node in volumes if node is not None}


def volumes(scene) -> list:
    """Return the volumes that are shown in 3D and still in the scene."""
    found = (scene.GetNodeByID(key) for key in sorted({node.GetAttribute(MARK) for node in made(scene)}))
    return [node for node in found if node is not None]


def follow(*volumes) -> None:
    """Keep what is shown under the transforms of the volumes that it shows."""
    for volume in volumes:
        for node in made(volume.GetScene()):
            if node.IsA("vtkMRMLTransformableNode") and node.GetAttribute(MARK) == _key(volume):
                _put_under_parent(node, volume)


def set_shift(scene, shift_hu: float) -> None:
    """Render what is denser, or less dense, than the preset does."""
    for node in made(scene):
        if node.IsA("vtkMRMLVolumePropertyNode"):
            _shift(node, _preset(), shift_hu)


# --- the skull -------------------------------------------------------------------------------------------------------


def _render(ct, grid: Grid, head, shift_hu: float) -> None:
    scene, logic, preset = ct.GetScene(), _rendering(), _preset()
    shown = _new("vtkMRMLScalarVolumeNode", _("{name} in 3D").format(name=ct.GetName()), ct)
    ownership.mark_for_review(shown, ownership.THREE_D_ROLE)
    shown.SetAndObserveImageData(ct.GetImageData())
    matrix = vtk.vtkMatrix4x4()
    ct.GetIJKToRASMatrix(matrix)
    shown.SetIJKToRASMatrix(matrix)
    scene.AddNode(shown)
    _put_under_parent(shown, ct)
    properties = _new("vtkMRMLVolumePropertyNode", PRESET, ct)
    scene.AddNode(properties)
    _shift(properties, preset, shift_hu)
    region = _region(ct, grid, head)
    display = logic.CreateVolumeRenderingDisplayNode()
    display.UnRegister(None)
    _mark(display, ct)
    scene.AddNode(display)
    display.SetAndObserveVolumePropertyNodeID(properties.GetID())
    display.SetAndObserveROINodeID(region.GetID())
    display.SetCroppingEnabled(True)
    display.SetVisibility(True)
    shown.AddAndObserveDisplayNodeID(display.GetID())


def _region(ct, grid: Grid, head):
    """Return a box around the head, in the frame of the CT's node; it is not seen."""
    at = np.argwhere(head)
    low, high = at.min(axis=0)[::-1], at.max(axis=0)[::-1]
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    lps = corners @ grid.lps_from_ijk[:3, :3].T + grid.lps_from_ijk[:3, 3]
    world = bridge.world_ras_from_parent(ct.GetParentTransformNode(), ct.GetName())
    points = np.column_stack([lps * (-1, -1, 1), np.ones(len(lps))]) @ np.linalg.inv(world).T
    first, last = points[:, :3].min(axis=0) - MARGIN_MM, points[:, :3].max(axis=0) + MARGIN_MM
    region = _new("vtkMRMLMarkupsROINode", _("Head in 3D"), ct)
    ct.GetScene().AddNode(region)
    region.CreateDefaultDisplayNodes()
    _mark(region.GetDisplayNode(), ct)
    region.SetDisplayVisibility(False)
    region.SetXYZ(*((first + last) / 2).tolist())
    region.SetRadiusXYZ(*((last - first) / 2).tolist())
    _put_under_parent(region, ct)
    return region


def _shift(properties, preset, shift_hu: float) -> None:
    """Copy the preset, with its opacity and colours moved along the Hounsfield scale."""
    with slicer.util.NodeModify(properties):
        mark = properties.GetAttribute(MARK)
        properties.CopyContent(preset)  # which also takes away the mark
        properties.SetAttribute(MARK, mark)
        properties.SetHideFromEditors(True)
        properties.SetSaveWithScene(False)
        for function, width in ((properties.GetScalarOpacity(), 4), (properties.GetColor(), 6)):
            points = []
            for n in range(function.GetSize()):
                values = [0.0] * width
                function.GetNodeValue(n, values)
                points.append(values)
            function.RemoveAllPoints()
            for hu, *values in points:
                if width == 4:
                    function.AddPoint(hu + shift_hu, *values)
                else:
                    function.AddRGBPoint(hu + shift_hu, *values)


def _rendering():
    return slicer.modules.volumerendering.logic()


def _preset():
    preset = _rendering().GetPresetByName(PRESET)
    if preset is None:
        raise ImageContentError(f"Slicer's volume rendering preset {PRESET} is missing. Install Slicer again.")
    return preset


# --- bone and brain ---------------------------------------------------------------------------------------------------


def _outline_bone(ct, in_ct: Volume) -> None:
    """Show the outline of the bone on the slices, along the CT's own axes."""
    fine = Volume(*pooled_to(in_ct, FINE_MM), "CT", ct.GetName())
    bone = bone_mask(fine, ct_head_mask(fine))
    if bone.any():
        node = _segmentation(
            ct, _("Bone of {name}").format(name=ct.GetName()), bone, fine.grid, segmentations.BONE_COLOUR
        )
        segmentations.show_outline(node)


def _surface_of_brain(mri, in_ct: Volume, in_mri: Volume) -> None:
    """Show the brain's surface, if the inside of the skull and the brain in it are found."""
    inside = inside_skull(in_ct)
    if inside is None:
        return
    coarse = Volume(*pooled_to(in_mri, COARSE_MM), "MR", mri.GetName())
    # Both are in the world, where they are shown: no transform lies between them.
    found = brain_mask(coarse, inside.depth_on(coarse.grid), inside.hu_on(coarse.grid))
    if found is None or not found.mask_kji.any():
        return
    node = _segmentation(
        mri, _("Brain of {name}").format(name=mri.GetName()), found.mask_kji, coarse.grid, BRAIN_COLOUR
    )
    node.CreateClosedSurfaceRepresentation()
    display = node.GetDisplayNode()
    display.SetVisibility2DFill(False)
    display.SetVisibility2DOutline(False)


def _segmentation(volume, name: str, mask_kji, grid: Grid, colour):
    """Return a segmentation of a mask on a grid in the world, under the transform of its volume."""
    node = _new("vtkMRMLSegmentationNode", name, volume)
    volume.GetScene().AddNode(node)
    segmentations.fill(node, mask_kji, grid.lps_from_ijk, volume.GetParentTransformNode(), colour)
    _mark(node.GetDisplayNode(), volume)
    return node


# --- nodes ------------------------------------------------------------------------------------------------------------


def _new(kind: str, name: str, volume):
    """Return a marked node that is not yet in the scene."""
    node = volume.GetScene().CreateNodeByClass(kind)
    node.UnRegister(None)
    node.SetName(name)
    _mark(node, volume)
    return node


def _mark(node, volume) -> None:
    node.SetAttribute(MARK, _key(volume))
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)


def _key(volume) -> str:
    return str(volume.GetID())


def made(scene) -> list:
    """Return the nodes that are shown in 3D by this module."""
    nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
    return [node for node in nodes if node.GetAttribute(MARK)]


def _put_under_parent(node, volume) -> None:
    parent = volume.GetParentTransformNode()
    wanted = None if parent is None else parent.GetID()
    if node.GetTransformNodeID() != wanted:
        node.SetAndObserveTransformNodeID(wanted)
