"""What a slice view shows of a result: Slicer's own slice logic, blended pixels, compared with a stored picture.

``BRAINFUSION_PICTURES=Testing/golden python3 dev.py test Testing/mrml/test_slice_view.py`` writes it anew.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("slicer", reason="slicer-core is not installed: pip install slicer-core==5.12.4.0")
pytest.importorskip("torch", reason="torch is not installed")

import slicer
import slicer.util
from vtk.util.numpy_support import vtk_to_numpy

from BrainFusionLib import fuse
from BrainFusionLib.phantom import make_pair
from BrainFusionLib.settings import FusionSettings, Settings

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "BrainFusion"))
from BrainFusionSlicer import bridge  # noqa: E402

GOLDEN = ROOT / "Testing" / "golden" / "slice_view.png"
SIZE, FIELD_MM = 128, 256.0

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")


@pytest.fixture
def view():
    """A scene with a phantom's MRI and what was fused of it, and a function that takes a picture of an axial view."""
    scene = slicer.vtkMRMLScene()
    grey = slicer.vtkMRMLColorTableNode()
    grey.SetTypeToGrey()
    grey = scene.AddNode(grey)
    pair = make_pair(spacing_mm=4.0, rotation_deg=10.0, translation_mm=8.0)
    settings = Settings(fusion=FusionSettings(rule="bone_over_mri"), device="cpu")
    result = fuse(pair.ct, pair.mri, settings, transform=pair.transform)
    mri, fused = (scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name) for name in ("MRI", "fused"))
    bridge.node_from_volume(pair.mri, mri)
    mri.GetDisplayNode().SetWindowLevelMinMax(*result.intensity.window)
    mri.GetDisplayNode().SetAndObserveColorNodeID(grey.GetID())
    bridge.node_from_volume(result.fused, fused)
    bridge.share_display(fused, mri)
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLScene(scene)
    logic.AddSliceNode("Red")
    composite, plane = logic.GetSliceCompositeNode(), logic.GetSliceNode()
    composite.SetBackgroundVolumeID(mri.GetID())
    composite.SetForegroundVolumeID(fused.GetID())
    plane.SetOrientationToAxial()
    plane.SetDimensions(SIZE, SIZE, 1)
    plane.SetFieldOfView(FIELD_MM, FIELD_MM, 1)
    right, anterior, superior = (float(v) for v in pair.mri.grid.centre_lps_mm * (-1, -1, 1))
    plane.JumpSliceByCentering(right, anterior, superior + 10)

    def take(opacity):
        composite.SetForegroundOpacity(opacity)
        port = logic.GetImageDataConnection()
        port.GetProducer().Update()
        image = port.GetProducer().GetOutputDataObject(0)
        pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(SIZE, SIZE, -1)
        return pixels[::-1, :, :3].copy()  # VTK's first row is the lowest

    return take


def test_the_slice_view_shows_the_stored_overlay(view):
    blended = view(0.5)
    if "BRAINFUSION_PICTURES" in os.environ:
        Image.fromarray(blended).save(Path(os.environ["BRAINFUSION_PICTURES"]) / GOLDEN.name)
    with Image.open(GOLDEN) as stored:
        difference = np.abs(blended.astype(int) - np.asarray(stored.convert("RGB")))
    assert difference.mean() < 0.5
    assert (difference > 8).mean() < 0.005


def test_opacity_goes_from_the_mri_to_the_fused_volume(view):
    mri, half, fused = (view(opacity).astype(float) for opacity in (0.0, 0.5, 1.0))
    assert np.abs(half - (mri + fused) / 2).max() <= 1.5
    # Bone is bright in the fused volume and dark in the MRI; the window is the MRI's for both.
    changed = np.abs(fused - mri).max(axis=2) > 60
    assert 0.01 < changed.mean() < 0.3
    assert (fused[changed] > mri[changed]).mean() > 0.95


@pytest.fixture
def review_view(monkeypatch):
    """Show a view of the review in the axial slice of a registered phantom, and return the pixels, as of the MRI."""
    import types

    fake = types.ModuleType("slicer.i18n")
    fake.tr = lambda text: text
    monkeypatch.setitem(sys.modules, "slicer.i18n", fake)
    from BrainFusionSlicer import review

    scene = slicer.vtkMRMLScene()
    monkeypatch.setattr(slicer, "mrmlScene", scene, raising=False)
    for colours in ("Grey", "Iron", "Yellow"):
        table = slicer.vtkMRMLColorTableNode()
        getattr(table, f"SetTypeTo{colours}")()
        table.SetSingletonTag(colours)
        scene.AddNode(table)
    pair = make_pair(spacing_mm=4.0, rotation_deg=10.0, translation_mm=8.0)
    nodes = [scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name) for name in ("fused", "CT", "MRI")]
    for node, volume in zip(nodes, (pair.mri, pair.ct, pair.mri), strict=True):
        bridge.node_from_volume(volume, node)
        node.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
        node.GetDisplayNode().SetWindowLevelMinMax(0.0, 600.0)
    bridge.move_ct_onto_mri(nodes[1], nodes[2], pair.transform)
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLScene(scene)
    logic.AddSliceNode("Red")
    logic.GetSliceNode().SetDimensions(SIZE, SIZE, 1)
    logic.GetSliceNode().SetFieldOfView(FIELD_MM, FIELD_MM, 1)
    right, anterior, superior = (float(v) for v in pair.mri.grid.centre_lps_mm * (-1, -1, 1))
    logic.GetSliceNode().JumpSliceByCentering(right, anterior, superior + 10)

    def take(view, opacity=1.0):
        composite = logic.GetSliceCompositeNode()
        shown = {}
        monkeypatch.setattr(slicer.util, "setSliceViewerLayers", lambda **layers: shown.update(layers), raising=False)
        list(review.showing(review.View[view], *nodes, opacity=opacity, scale=(0.0, 600.0)))
        composite.SetBackgroundVolumeID(shown["background"].GetID())
        composite.SetForegroundVolumeID(shown["foreground"].GetID())
        composite.SetForegroundOpacity(shown["foregroundOpacity"])
        port = logic.GetImageDataConnection()
        port.GetProducer().Update()
        pixels = vtk_to_numpy(port.GetProducer().GetOutputDataObject(0).GetPointData().GetScalars())
        return pixels.reshape(SIZE, SIZE, -1)[:, :, :3].astype(int)

    return take


@pytest.mark.parametrize("view", ["CT", "OUTLINE"])
def test_bone_is_coloured_and_all_else_is_the_mri(review_view, view):
    mri, shown = review_view("FUSED"), review_view(view)
    coloured = shown[:, :, 0] - shown[:, :, 2] > 40  # on the grey of the MRI
    assert 0.005 < coloured.mean() < 0.3
    assert (mri[~coloured] == shown[~coloured]).mean() > 0.95
    assert mri[~coloured].mean() > 20


def test_fading_to_the_mri_shows_the_mri(review_view):
    np.testing.assert_array_equal(review_view("CT", 0.0), review_view("FUSED"))
