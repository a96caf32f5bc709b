"""The expected error of a result at points of Slicer's world: looked up on its coarse grid, in microseconds."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import slicer
import slicer.util
from slicer.i18n import tr as _

from BrainFusionLib.error_map import ErrorMap, LineError
from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import FloatArray, apply_affine
from BrainFusionLib.quantities import bound_length, error_length
from BrainFusionSlicer import bridge, decisions, ownership
from BrainFusionSlicer.companions import linear_from, linear_parent
from BrainFusionSlicer.fingerprint import has_voxels
from BrainFusionSlicer.review import View

# The role of the colour layer among the temporary volumes of `review`, which removes it when a view is chosen.
LAYER_ROLE = View.ERROR.name
COLOURS, LEAST_SHOWN_MM = "vtkMRMLColorTableNodeIron", 0.01
# The upper end of the layer's window, at least.
LEAST_WINDOW_MM = 2.0


# On a fused volume: the 4x4 matrix of the linear transforms over the MRI when it was fused, to the world, RAS mm.
FRAME_ATTRIBUTE = "BrainFusion.MRIFrame"


@dataclass(frozen=True, eq=False)
class ErrorOfPair:
    """The map of a result, and where the frame of the transform over the MRI was when the result was made.

    The MRI's own voxels do not count: a tilted one was resampled when it was read.
    """

    errors: ErrorMap
    lps_from_frame: FloatArray

    def lps_from_world(self, world_ras_mm, mri) -> FloatArray:
        """Return points of the world as it is now, (n, 3) RAS mm, where the result has them, LPS mm."""
        world_from_frame = bridge.world_ras_from_parent(linear_parent(mri), mri.GetName())
        points = np.asarray(world_ras_mm, dtype=np.float64).reshape(-1, 3)
        return apply_affine(self.lps_from_frame @ np.linalg.inv(world_from_frame), points)


def note_frame(fused, mri_parent) -> None:
    """Note on a fused volume where the frame of the transform over its MRI was, as the MRI was read under it."""
    world = bridge.world_ras_from_parent(linear_from(mri_parent), fused.GetName())
    fused.SetAttribute(FRAME_ATTRIBUTE, json.dumps(world.ravel().tolist()))


def of_result(fused, mri) -> ErrorOfPair | None:
    """Return the map of the result on a fused volume; None without one."""
    result = None if fused is None else decisions.result_of(fused)
    if result is None or result.error_map is None or not has_voxels(mri):
        return None
    try:
        frame = np.array(json.loads(fused.GetAttribute(FRAME_ATTRIBUTE) or "[]"), dtype=np.float64).reshape(4, 4)
        result.error_map.expected_mm  # noqa: B018 - unpacked here, not while the cursor moves
        np.linalg.inv(frame)
    except (TypeError, ValueError, GeometryError):  # a matrix without an inverse is a ValueError, too
        return None
    if not np.isfinite(frame).all():
        return None
    return ErrorOfPair(result.error_map, bridge.LPS_FROM_RAS @ frame)


def words_at(found: ErrorOfPair, world_ras_mm, mri) -> str:
    """Say the expected error at one point of the world."""
    expected = float(found.errors.at(found.lps_from_world(world_ras_mm, mri))[0])
    return words_of(expected if np.isfinite(expected) else None, found.errors.bound_ratio)


def words_of(expected_mm: float | None, bound_ratio: float) -> str:
    """Say an expected error, and what it is at most."""
    if expected_mm is None:
        return _("not known")
    return _("{expected} (at most {bound} at 9 of 10 such points)").format(
        expected=error_length(expected_mm), bound=bound_length(expected_mm * bound_ratio)
    )


def rows_of(found: ErrorOfPair, markups, mri) -> list[str]:
    """Say the expected error at each point of a list or line that was placed; of a line also the worst between."""
    points = []
    for n in range(markups.GetNumberOfControlPoints()):
        if markups.GetNthControlPointPositionStatus(n) == slicer.vtkMRMLMarkupsNode.PositionDefined:
            position = [0.0, 0.0, 0.0]
            markups.GetNthControlPointPositionWorld(n, position)
            points.append((markups.GetNthControlPointLabel(n), position))
    rows = [f"{label}: {words_at(found, position, mri)}" for label, position in points]
    if len(points) == 2 and markups.IsA("vtkMRMLMarkupsLineNode"):
        ends = found.lps_from_world([position for _label, position in points], mri)
        rows.append(_of_line(found.errors.along(*ends), found.errors.bound_ratio))
    return rows


def _of_line(line: LineError, bound_ratio: float) -> str:
    words = _("Worst between them: {error}").format(error=words_of(line.worst_mm, bound_ratio))
    if line.unknown > 0 and line.worst_mm is not None:
        words += " " + _("Not known on {share} % of the line.").format(share=max(1, round(100 * line.unknown)))
    return words


def layer_of(scene):
    """Return the colour layer, or None."""
    for node in ownership.nodes_of(scene, "vtkMRMLScalarVolumeNode"):
        if ownership.review_role_of(node) == LAYER_ROLE:
            return node
    return None


def make_layer(found: ErrorOfPair, mri):
    """Return the colour layer of a result, made anew: temporary, hidden from all lists, under the MRI's transform."""
    scene = mri.GetScene()
    remove_layer(scene)
    node = scene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
    node.UnRegister(None)
    node.SetName(_("Expected error (mm)"))
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    ownership.mark_for_review(node, LAYER_ROLE)
    scene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetSaveWithScene(False)
    display.SetAutoWindowLevel(False)
    volume = found.errors.volume()
    slicer.util.updateVolumeFromArray(node, volume.array_kji)
    node.SetIJKToRASMatrix(bridge.vtk_matrix(np.linalg.inv(found.lps_from_frame) @ volume.grid.lps_from_ijk))
    parent = linear_parent(mri)
    node.SetAndObserveTransformNodeID(None if parent is None else parent.GetID())
    with slicer.util.NodeModify(display):
        display.SetWindowLevelMinMax(0.0, max(LEAST_WINDOW_MM, float(np.percentile(volume.array_kji, 99.5))))
        display.SetAndObserveColorNodeID(COLOURS)
        display.SetThreshold(LEAST_SHOWN_MM, 1e6)
        display.SetApplyThreshold(True)
    return node


def remove_layer(scene) -> None:
    """Remove the colour layer and its display, if there is one."""
    node = layer_of(scene)
    if node is not None:
        ownership.remove(node, node.GetDisplayNode())
