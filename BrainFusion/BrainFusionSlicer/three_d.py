"""Skull and brain in 3D: the CT's volume rendering, the brain's surface, and the bone's outline on the slices.

What is to be found in the volumes is found by the worker process (`shapes`). All nodes are made here, marked, hidden
from lists and not saved; `hide` removes them all. The CT is rendered through a node of its own that shares the CT's
voxels, so that the user's nodes, views, cameras and layout stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _

from BrainFusionLib.errors import ImageContentError
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.volume import Volume
from BrainFusionSlicer import bridge, ownership, placing, segmentations
from BrainFusionSlicer.exporting import ExportInputs
from BrainFusionSlicer.fingerprint import has_voxels
from BrainFusionSlicer.jobs import Shapes

MARK = "BrainFusion.ThreeD"
PRESET = "CT-Bones"
# Around the head.
MARGIN_MM = 5.0
BRAIN_COLOUR = (0.95, 0.75, 0.65)


@dataclass(frozen=True, eq=False)
class Asked:
    """A pair whose skull and brain are being found.

    ct, mri - The volumes.
    worlds - The 4x4 matrices of the transforms over them, RAS mm, when they were sent.
    voxels - What names their voxels, and their geometry, then.
    """

    ct: slicer.vtkMRMLScalarVolumeNode
    mri: slicer.vtkMRMLScalarVolumeNode
    worlds: tuple[FloatArray, FloatArray]
    voxels: tuple

    @classmethod
    def of(cls, ct, mri) -> Asked:
        """Return a pair as it is now.

        Raises
        ------
        ImageContentError
            Slicer's preset for bone is missing.
        GeometryError
            A volume is under a transform that is not linear.
        """
        _preset()
        ct_world, mri_world = (
            bridge.world_ras_from_parent(node.GetParentTransformNode(), node.GetName()) for node in (ct, mri)
        )
        return cls(ct, mri, (ct_world, mri_world), _content_of(ct, mri))

    @property
    def inputs(self) -> ExportInputs:
        """What is sent."""
        ct, mri = (bridge.raw_from_node(node, as_shown=True) for node in (self.ct, self.mri))
        return ExportInputs(ct=ct, mri=mri)

    def why_not(self) -> str | None:
        """Say why what was found cannot be shown any more, or return None."""
        gone = [node.GetScene() is None or not has_voxels(node) for node in (self.ct, self.mri)]
        if any(gone):
            return _("A volume was removed from the scene meanwhile; nothing is shown.")
        if _content_of(self.ct, self.mri) != self.voxels:
            return _("A volume was changed meanwhile: click Skull and brain in 3D again.")
        return None


def _content_of(*volumes) -> tuple:
    found: list = []
    for node in volumes:
        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        found += [node.GetImageData().GetMTime(), *slicer.util.arrayFromVTKMatrix(matrix).ravel()]
    return tuple(found)


def show(asked: Asked, shapes: Shapes, shift_hu: float = 0.0) -> None:
    """Show what was found of a pair in 3D, where the two are now.

    Raises
    ------
    ImageContentError
        Slicer's preset for bone is missing.
    """
    scene = asked.ct.GetScene()
    hide(scene)
    try:
        _render(asked, shapes, shift_hu)
        if shapes.bone is not None:
            name = _("Bone of {name}").format(name=asked.ct.GetName())
            bone = _segmentation(asked.ct, asked.worlds[0], name, shapes.bone, segmentations.BONE_COLOUR)
            segmentations.show_outline(bone)
        if shapes.brain is not None:
            name = _("Brain of {name}").format(name=asked.mri.GetName())
            brain = _segmentation(asked.mri, asked.worlds[1], name, shapes.brain, BRAIN_COLOUR)
            brain.CreateClosedSurfaceRepresentation()
            brain.GetDisplayNode().SetVisibility2DFill(False)
            brain.GetDisplayNode().SetVisibility2DOutline(False)
    except BaseException:
        hide(scene)
        raise


def hide(scene) -> None:
    """Remove everything that `show` made."""
    ownership.remove(*made(scene))


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


def _render(asked: Asked, shapes: Shapes, shift_hu: float) -> None:
    ct = asked.ct
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
    region = _region(asked, shapes)
    display = logic.CreateVolumeRenderingDisplayNode()
    display.UnRegister(None)
    _mark(display, ct)
    scene.AddNode(display)
    display.SetAndObserveVolumePropertyNodeID(properties.GetID())
    display.SetAndObserveROINodeID(region.GetID())
    display.SetCroppingEnabled(True)
    display.SetVisibility(True)
    shown.AddAndObserveDisplayNodeID(display.GetID())


def _region(asked: Asked, shapes: Shapes):
    """Return a box around the head, in the frame of the CT's node; it is not seen."""
    ct, lps = asked.ct, shapes.head_lps_mm
    points = np.column_stack([lps * (-1, -1, 1), np.ones(len(lps))]) @ np.linalg.inv(asked.worlds[0]).T
    first, last = points[:, :3].min(axis=0) - MARGIN_MM, points[:, :3].max(axis=0) + MARGIN_MM
    region = _new("vtkMRMLMarkupsROINode", _("Head in 3D"), ct)
    with placing.active_list_kept(ct.GetScene()):
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


def _segmentation(volume, world: FloatArray, name: str, mask: Volume, colour):
    """Return a segmentation of a mask that was found in a volume under the matrix `world`, under its transform now."""
    node = _new("vtkMRMLSegmentationNode", name, volume)
    volume.GetScene().AddNode(node)
    own_lps = bridge.LPS_FROM_RAS @ np.linalg.inv(world) @ bridge.RAS_FROM_LPS
    segmentations.fill(node, mask.array_kji > 0, own_lps @ mask.grid.lps_from_ijk, None, colour)
    _put_under_parent(node, volume)
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
    return [node for node in ownership.nodes_of(scene) if node.GetAttribute(MARK)]


def _put_under_parent(node, volume) -> None:
    parent = volume.GetParentTransformNode()
    wanted = None if parent is None else parent.GetID()
    if node.GetTransformNodeID() != wanted:
        node.SetAndObserveTransformNodeID(wanted)
