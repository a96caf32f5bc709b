"""Looking at a result in the slice views: what lies over what, and where to look.

Only the layers of the views are changed, never layouts, orientations, links or the window of a user's volume. What has
to look otherwise (the CT in colour, outlines, squares) is a temporary volume: hidden from all lists, not saved, and
removed when another view is chosen or the panel is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

import numpy as np
import slicer
import slicer.util
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from BrainFusionLib.intensity import BONE_HU, ct_to_unit
from BrainFusionLib.tilt import tilt_of
from BrainFusionLib.volume import AIR_HU
from BrainFusionSlicer import bridge, ownership

SQUARE_MM = 20.0
# Slices that one thread draws at a time.
SLAB = 16
# Voxels of squares that are drawn at a time: about 30 ms.
STEP_VOXELS = 1 << 22
# The window of the CT over the MRI, HU, and what of it is shown at all.
BONE_WINDOW_HU = (-200.0, 1800.0)
BONE_SHOWN_HU = 150.0
BONE_COLOURS, OUTLINE_COLOURS = "vtkMRMLColorTableNodeIron", "vtkMRMLColorTableNodeYellow"


class View(Enum):
    """What the slice views show; one at a time."""

    FUSED = "the fused volume over the MRI"
    CT = "the registered CT over the MRI"
    OUTLINE = "the outline of the registered CT's bone on the MRI"
    SQUARES = "CT and MRI in squares"
    UNREGISTERED = "the CT where it was before, over the MRI"
    ERROR = "the expected error in colours, over the MRI"


def showing(view: View, fused, ct, mri, *, opacity: float, scale: tuple[float, float] | None = None) -> Iterator[None]:
    """Show one view in all slice views, step by step: most views in one step, squares of large volumes in many.

    Until the last step the views show what they did, and the nodes must be in the scene and as they were.

    :param fused: the fused volume; None if there is none
    :param ct: what shows the CT: registered, or not for View.UNREGISTERED
    :param mri: the MRI
    :param opacity: of the CT over the MRI: 0 shows the MRI alone
    :param scale: the MRI's values of 0 and 1, for squares
    """
    if view is View.FUSED:
        shown, opacity = fused, 1.0
    elif view is View.OUTLINE:
        shown, opacity = _outline(fused, ct), 1.0
    elif view is View.SQUARES:
        assert scale is not None
        voxels = yield from _drawn_squares(fused, ct, mri, scale)
        shown, opacity = _squares(voxels, fused, ct, mri), 1.0
    else:
        shown = _bone(ct)
    slicer.util.setSliceViewerLayers(background=mri, foreground=shown, foregroundOpacity=opacity)
    _remove_all_but(shown, mri.GetScene())


def put_away(fused, ct, scene) -> None:
    """Remove the temporary volumes; the views that show one show the CT, or the fused volume, in its place."""
    for node in _temporary(scene):
        instead = ct if ownership.review_role_of(node) == View.CT.name else fused
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            if composite.GetForegroundVolumeID() == node.GetID():
                composite.SetForegroundVolumeID(None if instead is None else instead.GetID())
    _remove_all_but(None, scene)


def fill_gaps(fused) -> None:
    """Show the fused volume where a scene was saved while a view showed a temporary volume, which is not saved."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        shown = composite.GetForegroundVolumeID()
        if fused is not None and shown and composite.GetScene().GetNodeByID(shown) is None:
            composite.SetForegroundVolumeID(fused.GetID())


def follow(ct) -> None:
    """Have the CT in colour follow the CT itself: its voxels, its geometry and its transform."""
    for node in _temporary(ct.GetScene()):
        if ownership.review_role_of(node) == View.CT.name:
            _imitate(node, ct)


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


def squares(mri_kji, ct_kji, spacing_ijk_mm, scale, first=0):
    """Return the voxels of a checkerboard, (k, j, i): the CT on the MRI's scale in every other cube of 20 mm.

    :param first: the number of the first slice in the volume that these are slices of
    """
    low, high = scale
    made = np.array(mri_kji, dtype=np.float32)
    sides = [
        np.floor((start + np.arange(n)) * mm / SQUARE_MM).astype(int)
        for start, n, mm in zip((first, 0, 0), made.shape, spacing_ijk_mm[::-1], strict=True)
    ]
    # Cube by cube, because half of the voxels need no work.
    edges = [[0, *(np.flatnonzero(np.diff(side)) + 1), len(side)] for side in sides]
    for k, j in np.ndindex(len(edges[0]) - 1, len(edges[1]) - 1):
        for i in range((sides[0][edges[0][k]] + j + 1) % 2, len(edges[2]) - 1, 2):
            cube = tuple(slice(e[n], e[n + 1]) for e, n in zip(edges, (k, j, i), strict=True))
            made[cube] = ct_to_unit(ct_kji[cube]) * np.float32(high - low) + np.float32(low)
    return made


def outline(hu_kji):
    """Return where bone touches something else, within a slice of any of the three planes: uint8, as `hu_kji`."""
    drawn = np.empty(hu_kji.shape, np.uint8)

    def draw(first: int) -> None:
        margin = min(first, 1)
        bone = hu_kji[first - margin : first + SLAB + 1] >= BONE_HU
        inside = bone.copy()
        for axis in range(3):
            ahead = [slice(None)] * 3
            behind = [slice(None)] * 3
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            inside[tuple(ahead)] &= bone[tuple(behind)]
            inside[tuple(behind)] &= bone[tuple(ahead)]
        part = drawn[first : first + SLAB]
        np.greater(bone[margin:][: len(part)], inside[margin:][: len(part)], out=part.view(bool))

    with ThreadPoolExecutor() as pool:  # the window waits for it
        list(pool.map(draw, range(0, len(hu_kji), SLAB)))
    return drawn


def _bone(ct):
    """Return a stand-in for the CT with a window for bone and a colour of its own; it shares the CT's voxels."""
    node = _made(View.CT, ct.GetName(), ct.GetScene())
    _imitate(node, ct)
    _colour(node, BONE_COLOURS, BONE_WINDOW_HU, BONE_SHOWN_HU)
    return node


def _imitate(node, ct) -> None:
    matrix = vtk.vtkMatrix4x4()
    ct.GetIJKToRASMatrix(matrix)
    with slicer.util.NodeModify(node):
        node.SetIJKToRASMatrix(matrix)
        if node.GetImageData() != ct.GetImageData():
            node.SetAndObserveImageData(ct.GetImageData())
        node.SetAndObserveTransformNodeID(ct.GetTransformNodeID())


def _outline(fused, ct):
    node = _made(View.OUTLINE, ct.GetName(), ct.GetScene())
    image = vtk.vtkImageData()
    image.SetDimensions(fused.GetImageData().GetDimensions())
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    drawn = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    drawn[:] = outline(_pulled(ct, fused))
    _place(node, image, fused)
    _colour(node, OUTLINE_COLOURS, (0.0, 1.0), 1.0)  # whole numbers: a half would be rounded down
    return node


def _drawn_squares(fused, ct, mri, scale):
    """Draw the squares some slices at a time, and return the image."""
    voxels = None
    if not fused.GetAttribute(ownership.GRID_ATTRIBUTE):
        # What was registered: the MRI straightened, if it stands under a transform that is not linear.
        raw = bridge.raw_from_node(mri)
        voxels = raw.array_kji if tilt_of(raw.lps_from_ijk) is None else raw.copied().array_kji
    image = vtk.vtkImageData()
    image.SetDimensions(fused.GetImageData().GetDimensions())
    image.AllocateScalars(vtk.VTK_FLOAT, 1)
    drawn = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    # What has to be made first is made a slice at a time.
    most = STEP_VOXELS if voxels is None or isinstance(voxels, np.ndarray) else 1
    slices = max(1, most // max(1, drawn[:1].size))
    for first in range(0, len(drawn), slices):
        if first:
            yield
        part, of = drawn[first : first + slices], (first, min(first + slices, len(drawn)))
        of_mri = _pulled(mri, fused, of, scale[0]) if voxels is None else voxels[slice(*of)]
        part[:] = squares(of_mri, _pulled(ct, fused, of), fused.GetSpacing(), scale, first)
    return image


def _squares(image, fused, ct, mri):
    node = _made(View.SQUARES, f"{mri.GetName()} | {ct.GetName()}", ct.GetScene())
    _place(node, image, fused)
    bridge.share_display(node, fused)
    return node


def _place(node, image, like) -> None:
    """Give a node an image, in the place of a volume with as many voxels."""
    matrix = vtk.vtkMatrix4x4()
    like.GetIJKToRASMatrix(matrix)
    with slicer.util.NodeModify(node):
        node.SetAndObserveImageData(image)
        node.SetIJKToRASMatrix(matrix)
        node.SetAndObserveTransformNodeID(like.GetTransformNodeID())


def _pulled(volume, fused, slices=None, outside=AIR_HU):
    """Return CT or MRI on the voxels of the fused volume, (k, j, i), as they are now; both under linear transforms.

    :param slices: the first slice and the one after the last; all of them if None
    :param outside: the value outside of the volume
    """
    matrices = []
    for node in (volume, fused):
        own = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(own)
        world = bridge.world_ras_from_parent(node.GetParentTransformNode(), node.GetName())
        matrices.append(world @ slicer.util.arrayFromVTKMatrix(own))
    transform = vtk.vtkMatrixToLinearTransform()
    transform.SetInput(bridge.vtk_matrix(np.linalg.inv(matrices[0]) @ matrices[1]))
    pull = vtk.vtkImageReslice()
    pull.SetInputData(volume.GetImageData())
    pull.SetResliceTransform(transform)
    pull.SetOutputOrigin(0, 0, 0)
    pull.SetOutputSpacing(1, 1, 1)
    i, j, k = fused.GetImageData().GetDimensions()
    first, end = slices or (0, k)
    pull.SetOutputExtent(0, i - 1, 0, j - 1, first, end - 1)
    pull.SetInterpolationModeToLinear()
    pull.SetBackgroundLevel(outside)
    pull.Update()
    image = pull.GetOutput()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def _made(view: View, name: str, scene):
    """Return the temporary volume of a view, made if it is not there."""
    for node in _temporary(scene):
        if ownership.review_role_of(node) == view.name:
            node.SetName(name)
            return node
    node = scene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
    node.UnRegister(None)
    node.SetName(name)
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    ownership.mark_for_review(node, view.name)
    scene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetSaveWithScene(False)
    # Or the histogram of all voxels would be made, only to be replaced.
    display.SetAutoWindowLevel(False)
    display.SetAutoThreshold(False)
    return node


def _colour(node, colours: str, window: tuple[float, float], lowest: float) -> None:
    display = node.GetDisplayNode()
    with slicer.util.NodeModify(display):
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(*window)
        display.SetAndObserveColorNodeID(colours)
        display.SetThreshold(lowest, 1e6)
        display.SetApplyThreshold(True)


def _temporary(scene) -> list:
    nodes = ownership.nodes_of(scene, "vtkMRMLScalarVolumeNode")
    return [node for node in nodes if ownership.review_role_of(node) not in (None, ownership.THREE_D_ROLE)]


def _remove_all_but(kept, scene) -> None:
    for node in _temporary(scene):
        if node != kept:
            ownership.remove(node, node.GetDisplayNode())
