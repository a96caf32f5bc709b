"""The expected error of a result at points of Slicer's world: looked up on its coarse grid, in microseconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _

from BrainFusionLib.error_map import ErrorMap, LineError
from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import FloatArray, Grid, apply_affine
from BrainFusionLib.quantities import bound_length, error_length
from BrainFusionSlicer import bridge, decisions, ownership

# The role of the colour layer among the temporary volumes of `review`, which removes it when a view is chosen.
LAYER_ROLE = "ERROR"
COLOURS, LEAST_SHOWN_MM = "vtkMRMLColorTableNodeIron", 0.01
# The upper end of the layer's window, at least.
LEAST_WINDOW_MM = 2.0


@dataclass(frozen=True, eq=False)
class ErrorOfPair:
    """The map of a result, and the MRI's grid as it was when the result was made."""

    errors: ErrorMap
    grid: Grid

    def lps_from_world(self, world_ras_mm, mri) -> FloatArray:
        """Return points of the world as it is now, (n, 3) RAS mm, where the result has them, LPS mm."""
        ras_to_ijk = vtk.vtkMatrix4x4()
        mri.GetRASToIJKMatrix(ras_to_ijk)
        world = bridge.world_ras_from_parent(mri.GetParentTransformNode(), mri.GetName())
        ijk_from_world = slicer.util.arrayFromVTKMatrix(ras_to_ijk) @ np.linalg.inv(world)
        points = np.asarray(world_ras_mm, dtype=np.float64).reshape(-1, 3)
        return apply_affine(self.grid.lps_from_ijk @ ijk_from_world, points)


def of_result(fused, mri) -> ErrorOfPair | None:
    """Return the map of the result on a fused volume; None without one, or if the MRI has other voxels than it had."""
    result = None if fused is None else decisions.result_of(fused)
    if result is None or result.error_map is None or mri.GetImageData() is None:
        return None
    if tuple(mri.GetImageData().GetDimensions()) != tuple(result.grid.size_ijk):  # resampled, because it was tilted
        return None
    try:
        result.error_map.expected_mm  # noqa: B018 - unpacked here, not while the cursor moves
    except GeometryError:
        return None
    return ErrorOfPair(result.error_map, result.grid)


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
    for n in range(scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")):
        node = scene.GetNthNodeByClass(n, "vtkMRMLScalarVolumeNode")
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
    # From the coarse grid to the MRI's voxels as the result had them, and to where they are in its node.
    ijk_to_ras = vtk.vtkMatrix4x4()
    mri.GetIJKToRASMatrix(ijk_to_ras)
    ras_from_lps = slicer.util.arrayFromVTKMatrix(ijk_to_ras) @ found.grid.ijk_from_lps
    node.SetIJKToRASMatrix(bridge.vtk_matrix(ras_from_lps @ volume.grid.lps_from_ijk))
    parent = mri.GetParentTransformNode()
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
        display = node.GetDisplayNode()
        scene.RemoveNode(node)
        if display is not None:
            scene.RemoveNode(display)
