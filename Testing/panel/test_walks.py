"""Users who click at random: nothing of theirs changes, no verdict is false, nothing is left behind.

``BRAINFUSION_WALKS=20x300 python3 dev.py test Testing/panel/test_walks.py`` takes 20 walks of 300 steps.
"""

import os
import sys
from types import SimpleNamespace

import pytest
import slicer
from walking import OPACITY, KnowingRunner, Walk

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")
WALKS, STEPS = (int(n) for n in os.environ.get("BRAINFUSION_WALKS", "1x60").split("x"))
FIRST = int(os.environ.get("BRAINFUSION_FIRST_WALK", "1"))


@pytest.fixture
def volume_rendering(monkeypatch):
    rendering, segmentations = slicer.vtkSlicerVolumeRenderingLogic(), slicer.vtkSlicerSegmentationsModuleLogic()
    preset = slicer.vtkMRMLVolumePropertyNode()
    for hu, opacity in OPACITY:
        preset.GetScalarOpacity().AddPoint(hu, opacity)
    logic = SimpleNamespace(
        CreateVolumeRenderingDisplayNode=rendering.CreateVolumeRenderingDisplayNode,
        GetPresetByName=lambda name: preset,
    )
    modules = SimpleNamespace(volumerendering=SimpleNamespace(logic=lambda: logic))
    monkeypatch.setattr(slicer, "modules", modules, raising=False)
    for made in (rendering, segmentations):
        made.SetMRMLScene(slicer.mrmlScene)
    yield
    for made in (rendering, segmentations):
        made.SetMRMLScene(None)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + WALKS))
def test_a_user_who_clicks_at_random_loses_nothing_and_is_told_nothing_false(
    panel, phantom, layers, tmp_path, monkeypatch, volume_rendering, seed
):
    runner = panel.logic._runner = KnowingRunner(phantom)
    walk = Walk(panel, runner, layers, phantom, tmp_path, seed)
    monkeypatch.setattr(sys, "excepthook", walk.raised)
    dialogs = sys.modules["qt"].QFileDialog
    monkeypatch.setattr(dialogs, "getSaveFileName", lambda *words: str(tmp_path / "made"))
    monkeypatch.setattr(dialogs, "getExistingDirectory", lambda *words: str(tmp_path), raising=False)
    (tmp_path / "slice.dcm").write_bytes(b"")
    database = SimpleNamespace(isOpen=True, fileForInstance=lambda uid: str(tmp_path / "slice.dcm"))
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    monkeypatch.setattr("BrainFusionSlicer.section_output.put_into_database", lambda folder, files: None)
    faults = walk.go(STEPS)
    assert not faults, "\n".join(faults)
    panel.exit()
    walk.nothing_temporary("at the end")
    walk.everything_is_undone()
    assert not walk.faults, walk.faults
