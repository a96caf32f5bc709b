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
