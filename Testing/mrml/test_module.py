"""The module's logic and its own self-test on Slicer's real MRML classes, without Slicer's window.

Needs `pip install slicer-core==5.12.4.0`. What that wheel lacks is faked here, after Base/Python/slicer of
Slicer 5.12: `ScriptedLoadableModule.py`, `i18n.py` and `parameterNodeWrapper/`. The panel is not tested here.
"""

import importlib.util
import sys
import types
import unittest
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed: pip install slicer-core==5.12.4.0")

import slicer
import slicer.util
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from BrainFusionLib import case
from BrainFusionLib.case import IntensityMap, Pose, Provenance, Result, Volumes
from BrainFusionLib.errors import Cancelled, GeometryError, MissingDependencyError, Remedy, SettingsError
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.geometry import Grid
from BrainFusionLib.output_grid import output_grid
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.settings import OutputSettings, Settings
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.verdict.judge import Verdict
from BrainFusionLib.volume import Volume
from Testing import remembered

MODULE = Path(__file__).parents[2] / "BrainFusion"
TRANSFORM = RigidTransform.from_axis_angle((1, 2, 3), 20, (5, 6, 7))

# VTK 9.6 does so itself; Slicer 5.12 has NumPy 2.4, where that is no matter yet.
pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")


class FakeModuleTest(unittest.TestCase):
    """Follows ScriptedLoadableModuleTest: a unittest.TestCase that can say where it is."""

    def delayDisplay(self, message):  # noqa: N802
        self.said = [*getattr(self, "said", []), message]


@pytest.fixture
def module(monkeypatch, tmp_path):
    """The real BrainFusion.py, executed as Slicer executes it, with a real and empty scene."""

    def fake(name, **contents):
        made = types.ModuleType(name)
        vars(made).update(contents)
        monkeypatch.setitem(sys.modules, name, made)

    empty = type("Base", (), {"__init__": lambda self, *arguments: None})
    fake("qt", QKeySequence=object)
    fake("slicer.i18n", tr=lambda text: text, translate=lambda context, text: text)
    fake("slicer.parameterNodeWrapper", parameterNodeWrapper=lambda wrapped: wrapped)
    fake(
        "slicer.ScriptedLoadableModule",
        ScriptedLoadableModule=empty,
        ScriptedLoadableModuleLogic=empty,
        ScriptedLoadableModuleTest=FakeModuleTest,
        ScriptedLoadableModuleWidget=empty,
    )
    scene = slicer.vtkMRMLScene()
    # Slicer's application gives the scene these; without them no scene can be loaded.
    cache, io = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
    cache.SetRemoteCacheDirectory(str(tmp_path))
    io.SetCacheManager(cache)
    scene.SetDataIOManager(io)
    monkeypatch.setattr(slicer, "mrmlScene", scene, raising=False)
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None, raising=False)
    monkeypatch.setattr(slicer, "app", SimpleNamespace(processEvents=lambda: None), raising=False)
    monkeypatch.syspath_prepend(str(MODULE))
    spec = importlib.util.spec_from_file_location("BrainFusion", MODULE / "BrainFusion.py")
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "BrainFusion", loaded)
    spec.loader.exec_module(loaded)
    return loaded


def made_of(request, inputs, transform, fused=None):
    """A result as `case.run` would give it."""
    mri = inputs.mri
    return Result(
        request=request,
        pose=Pose(transform, transform, "registered", transform.describe(mri.grid.centre_lps_mm)),
        verdict=Verdict("amber"),
        evidence=Evidence(),
        grid=mri.grid,
        provenance=Provenance("today", {}, "cpu"),
        intensity=IntensityMap("a mixture", (-1000.0, 3000.0), (0.0, 2.0), 0.0, 1.0, (0.0, 1.0)),
        volumes=Volumes(
            fused or mri.with_array(mri.array_kji + 100),
            mri.with_array(mri.array_kji * 0 - 1000, name="CT in MRI"),
            mri.with_array(mri.array_kji * 0),
        ),
    )


@pytest.fixture
def calls(monkeypatch, module):
    """Put a fake in the place of `case.run` that answers at once; return what it was called with."""
    seen = []

    def run(request, inputs, progress, cancel):
        seen.append(SimpleNamespace(request=request, inputs=inputs))
        for fraction in (0.0, 0.5):
            progress("registration", fraction)
            if cancel():
                raise Cancelled("stopped")
        return made_of(request, inputs, request.given or TRANSFORM)

    monkeypatch.setattr(case, "run", run)
    monkeypatch.setattr(module.torch_setup, "torch_is_installed", lambda: True)
    return seen


@pytest.fixture
def pair(module):
    """A CT and an MRI node, the MRI with a window of its own and in a study."""
    nodes = []
    for name, size in (("CT 1", (4, 5, 6)), ("T1", (6, 5, 3))):
        grid = Grid(size, (1.0, 2.0, 3.0), (-3.0, 4.0, 5.0))
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        voxels = np.arange(np.prod(size), dtype=np.float32).reshape(grid.shape_kji)
        module.bridge.node_from_volume(Volume(voxels, grid), node)
        nodes.append(node)
    nodes[1].GetDisplayNode().SetAutoWindowLevel(False)
    nodes[1].GetDisplayNode().SetWindowLevel(77, 33)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    hierarchy.CreateItem(hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study"), nodes[1])
    return nodes


def test_results_go_into_the_scene(module, calls, pair):
    ct, mri = pair
    outcome = module.BrainFusionLogic().process(ct, mri)
    fused = outcome.fusedVolume
    assert fused.GetName() == "T1 fused with CT 1"
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(fused), slicer.util.arrayFromVolume(mri) + 100)
    assert module.bridge.volume_from_node(fused).grid.same_as(module.bridge.volume_from_node(mri).grid)
    # The window of the result: the MRI's own would show all bone white.
    assert (fused.GetDisplayNode().GetWindowLevelMin(), fused.GetDisplayNode().GetWindowLevelMax()) == (0, 1)
    fused.GetDisplayNode().SetWindowLevel(77, 33)
    module.BrainFusionLogic().process(ct, mri, fused)
    assert (fused.GetDisplayNode().GetWindow(), fused.GetDisplayNode().GetLevel()) == (77, 33)  # the user's
    assert (fused.GetNodeReference("BrainFusion.CT"), fused.GetNodeReference("BrainFusion.MRI")) == (ct, mri)
    assert ct.GetParentTransformNode() is outcome.transformNode
    assert outcome.transformNode.GetName() == "CT to MRI"
    np.testing.assert_allclose(
        slicer.util.arrayFromTransformMatrix(outcome.transformNode), module.bridge.mri_from_ct_ras(TRANSFORM)
    )
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(mri))
    for node in (fused, outcome.transformNode):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study


def test_a_second_run_reads_the_untransformed_ct(module, calls, pair):
    first = module.BrainFusionLogic().process(*pair)
    count = slicer.mrmlScene.GetNumberOfNodes()
    second = module.BrainFusionLogic().process(*pair, first.fusedVolume)
    assert (second.fusedVolume, second.transformNode) == (first.fusedVolume, first.transformNode)
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    assert calls[1].inputs.ct.grid.same_as(calls[0].inputs.ct.grid)


def test_progress_is_reported_and_cancel_writes_nothing(module, calls, pair):
    heard = []
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(Cancelled):
        module.BrainFusionLogic().process(
            *pair, progressCallback=lambda *said: heard.append(said), cancelled=lambda: bool(heard)
        )
    assert heard == [("registration", 0.0)]
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes
    module.BrainFusionLogic().process(*pair, progressCallback=lambda *said: heard.append(said))
    assert heard[-1] == ("registration", 0.5)


def test_options_reach_the_request_and_outputs_are_made(module, calls, pair):
    ct, mri = pair
    settings = Settings(device="cpu")
    start = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "start")
    slicer.util.updateTransformMatrixFromArray(start, module.bridge.mri_from_ct_ras(TRANSFORM))
    mask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "mask")
    slicer.util.updateVolumeFromArray(mask, np.ones_like(slicer.util.arrayFromVolume(mri), dtype=np.uint8))
    mask.CopyOrientation(mri)
    outcome = module.BrainFusionLogic().process(
        ct, mri, alphaVolume=True, resampledCTVolume=True, settings=settings, startTransform=start, mask=mask
    )
    [call] = calls
    assert call.request.settings is settings
    assert (call.request.ct.name, call.request.mri.name, call.request.mri_mask.name) == ("CT 1", "T1", "mask")
    assert call.request.given is None
    np.testing.assert_allclose(call.request.start.moving_from_fixed_lps, TRANSFORM.moving_from_fixed_lps, atol=1e-9)
    assert call.inputs.mri_mask.array_kji.any()
    assert outcome.alphaVolume.GetName() == "weight of CT 1 in T1"
    assert outcome.resampledCTVolume.GetName() == "CT 1 on T1"
    assert outcome.alphaVolume.GetNodeReference("BrainFusion.MRI") == mri
    assert slicer.util.arrayFromVolume(outcome.resampledCTVolume).max() == -1000
    assert outcome.seconds >= 0


def test_a_start_that_stretches_is_refused(module, calls, pair):
    start = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "stretched")
    slicer.util.updateTransformMatrixFromArray(start, np.diag([2.0, 1, 1, 1]))
    with pytest.raises(GeometryError, match="stretched, given as starting pose"):
        module.BrainFusionLogic().process(*pair, startTransform=start)


@pytest.mark.parametrize("check", [True, False])
def test_without_registration_the_ct_is_not_moved(module, calls, pair, check):
    ct, mri = pair
    module.bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    outcome = module.BrainFusionLogic().process(ct, mri, keepAlignment=True, check=check)
    assert outcome.transformNode is None
    assert calls[0].request.check is check
    np.testing.assert_array_equal(calls[0].request.given.moving_from_fixed_lps, np.eye(4))
    moved = np.linalg.inv(TRANSFORM.moving_from_fixed_lps) @ module.bridge.volume_from_node(ct).grid.lps_from_ijk
    np.testing.assert_allclose(calls[0].inputs.ct.grid.lps_from_ijk, moved, atol=1e-9)


def test_undo_and_redo_keep_the_users_transform(module, calls, pair):
    ct, _ = pair
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "own")
    ct.SetAndObserveTransformNodeID(own.GetID())
    logic = module.BrainFusionLogic()
    first = logic.process(*pair)
    second = logic.process(*pair)
    assert second.transformNode == first.transformNode
    assert first.transformNode.GetParentTransformNode() is None
    assert logic.undo(ct)
    assert ct.GetParentTransformNode() == own
    assert not logic.undo(ct)
    assert logic.redo(ct, pair[1])
    assert ct.GetParentTransformNode() == first.transformNode
    logic.undo(ct)
    assert logic.process(*pair).transformNode == first.transformNode  # used again, not a second one


def test_a_hardened_ct_is_not_moved(module, calls, pair):
    ct, mri = pair
    logic = module.BrainFusionLogic()
    transform = logic.process(*pair).transformNode
    ct.HardenTransform()
    assert not logic.undo(ct)
    assert not logic.redo(ct, mri)
    assert ct.GetParentTransformNode() is None
    ct.SetAndObserveTransformNodeID(transform.GetID())  # by hand
    assert not logic.undo(ct)
    assert ct.GetParentTransformNode() == transform


def test_another_pairs_result_is_not_undone(module, calls, pair):
    ct, mri = pair
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T2")
    module.bridge.node_from_volume(module.bridge.volume_from_node(mri), other)
    logic = module.BrainFusionLogic()
    logic.process(ct, mri)
    second = logic.process(ct, other).transformNode
    assert not logic.redo(ct, mri)
    assert ct.GetParentTransformNode() == second
    assert logic.undo(ct)
    assert ct.GetParentTransformNode() is None


def test_the_output_transform_must_not_be_a_parent_of_the_ct(module, calls, pair):
    ct, _ = pair
    chosen = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "chosen")
    logic = module.BrainFusionLogic()
    assert logic.process(*pair, transform=chosen, overwrite=[chosen]).transformNode == chosen
    module.BrainFusionLogic().undo(ct)
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "own")
    ct.SetAndObserveTransformNodeID(own.GetID())
    with pytest.raises(GeometryError, match="own: the CT is under this transform already"):
        logic.process(*pair, transform=own, overwrite=[own])


@pytest.mark.parametrize("role", ["fusedVolume", "alphaVolume", "resampledCTVolume", "transform"])
def test_a_node_of_the_users_is_written_only_when_the_caller_says_so(module, calls, pair, role):
    kind = "vtkMRMLLinearTransformNode" if role == "transform" else "vtkMRMLScalarVolumeNode"
    node = slicer.mrmlScene.AddNewNodeByClass(kind, "user's")
    logic = module.BrainFusionLogic()
    with pytest.raises(SettingsError, match="user's is not an output of this CT and this MRI") as refused:
        logic.process(*pair, **{role: node})
    assert refused.value.remedy is Remedy.ALLOW_OVERWRITE
    assert calls == []
    logic.process(*pair, overwrite=[node], **{role: node})
    logic.process(*pair, **{role: node})  # an output of this pair now


def test_a_copy_of_an_output_is_the_users(module, calls, pair):
    logic = module.BrainFusionLogic()
    outcome = logic.process(*pair)
    for original in (outcome.fusedVolume, outcome.transformNode):
        copy = slicer.mrmlScene.AddNewNodeByClass(original.GetClassName(), "copy")
        copy.Copy(original)
        copy.SetName("copy")
        role = "transform" if original is outcome.transformNode else "fusedVolume"
        with pytest.raises(SettingsError, match="copy is not an output"):
            logic.process(*pair, **{role: copy})
    assert logic.process(*pair).transformNode == outcome.transformNode


def test_outputs_of_another_pair_are_not_written(module, calls, pair):
    ct, mri = pair
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT B")
    module.bridge.node_from_volume(module.bridge.volume_from_node(ct), other)
    logic = module.BrainFusionLogic()
    first = logic.process(*pair)
    with pytest.raises(SettingsError, match="T1 fused with CT 1 is not an output"):
        logic.process(other, mri, first.fusedVolume)
    with pytest.raises(SettingsError, match="CT to MRI moves CT 1"):
        logic.process(other, mri, transform=first.transformNode, overwrite=[first.transformNode])
    with pytest.raises(GeometryError, match="CT 1 is moved by this transform"):
        module.bridge.move_ct_onto_mri(other, mri, TRANSFORM, into=first.transformNode)
    second = logic.process(other, mri)
    assert second.transformNode != first.transformNode
    assert ct.GetParentTransformNode() == first.transformNode
    assert other.GetParentTransformNode() == second.transformNode


def test_a_loaded_scene_has_the_verdict_and_the_pairs_outputs(module, calls, pair, tmp_path):
    ct, mri = pair
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "own")
    slicer.util.updateTransformMatrixFromArray(own, module.bridge.mri_from_ct_ras(TRANSFORM))
    ct.SetAndObserveTransformNodeID(own.GetID())
    outcome = module.BrainFusionLogic().process(*pair, alphaVolume=True)
    stored = module.panel_state.currency.stored_on(outcome.fusedVolume)
    assert module.panel_state.currency.changes_since(stored, *pair) == []
    path = str(tmp_path / "scene.mrb")
    assert slicer.mrmlScene.WriteToMRB(path)
    slicer.mrmlScene.Clear()
    assert slicer.mrmlScene.ReadFromMRB(path, True)
    ct, mri = (slicer.mrmlScene.GetFirstNodeByName(name) for name in ("CT 1", "T1"))
    fused = module.ownership.find_output("fused", ct, mri)
    assert fused.GetName() == "T1 fused with CT 1"
    assert module.ownership.find_output("transform", ct, mri) == ct.GetParentTransformNode()
    assert module.ownership.find_output("alpha", ct, mri) is not None
    assert module.panel_state.currency.stored_on(fused) == stored
    assert module.panel_state.currency.changes_since(stored, ct, mri) == []
    slicer.util.arrayFromVolume(mri)[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(mri)
    assert module.panel_state.currency.changes_since(stored, ct, mri) == ["The voxels of T1 were changed."]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_a_scene_whose_volumes_are_nifti_files_keeps_verdict_and_undo(module, calls, pair, tmp_path, suffix):
    """Headers of NIfTI have the geometry in single precision; the heads are oblique, and far from the origin."""
    turned = vtk.vtkTransform()
    turned.Translate(-312.3, 251.7, -804.1)
    turned.RotateWXYZ(23.0, 1, 2, 3)
    turned.Scale(0.47, 0.47, 0.9)
    for node in pair:
        node.SetIJKToRASMatrix(turned.GetMatrix())
    module.BrainFusionLogic().process(*pair, resampledCTVolume=True)
    for n, node in enumerate(module.ownership.nodes_of(slicer.mrmlScene, "vtkMRMLScalarVolumeNode")):
        storage = node.CreateDefaultStorageNode()
        storage.UnRegister(None)
        slicer.mrmlScene.AddNode(storage)
        node.SetAndObserveStorageNodeID(storage.GetID())
        storage.SetFileName(str(tmp_path / f"volume{n}{suffix}"))
        assert storage.WriteData(node)
    path = str(tmp_path / "scene.mrml")
    assert slicer.mrmlScene.Commit(path)
    slicer.mrmlScene.Clear()
    slicer.mrmlScene.SetURL(path)
    assert slicer.mrmlScene.Connect()
    ct, mri = (slicer.mrmlScene.GetFirstNodeByName(name) for name in ("CT 1", "T1"))
    fused = module.ownership.find_output("fused", ct, mri)
    assert ".nii" in fused.GetStorageNode().GetFileName()
    assert module.panel_state.currency.stored_on(fused) is not None
    assert module.panel_state.currency.changes_of_result(fused, ct, mri) == []
    assert not module.panel_state.currency.is_edited(module.ownership.find_output("ct", ct, mri))
    assert module.registered_ct.standing_of(ct, mri) is module.registered_ct.Standing.REGISTERED
    assert module.registered_ct.take_back(ct)
    assert ct.GetParentTransformNode() is None


def test_a_warp_between_the_corners_is_noticed(module, pair):
    ct, mri = pair
    before = module.panel_state.currency.prints_of(ct, mri)
    points = vtk.vtkPoints()
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "warp")
    spline = vtk.vtkThinPlateSplineTransform()
    centre = np.mean(np.reshape(before[0].own_mm, (-1, 3)), axis=0)
    for point in [*np.reshape(before[0].own_mm, (-1, 3))[[0, 2, 6, 8, 18, 20, 24, 26]], centre]:
        points.InsertNextPoint(point)
    target = vtk.vtkPoints()
    target.DeepCopy(points)
    target.SetPoint(8, centre + 0.5)
    spline.SetSourceLandmarks(points)
    spline.SetTargetLandmarks(target)
    spline.SetBasisToR()
    warp.SetAndObserveTransformToParent(spline)
    ct.SetAndObserveTransformNodeID(warp.GetID())
    now = module.panel_state.currency.prints_of(ct, mri)
    changes = module.panel_state.currency.changes_between(("CT", "MRI"), before, now)
    assert changes == ["CT and MRI were moved against each other."]


def test_a_verdict_that_cannot_be_read_is_none(module, pair):
    for text in ("no JSON", "{}", '{"schema": 1}', "[]"):
        pair[0].SetAttribute(module.panel_state.currency.VERDICT_ATTRIBUTE, text)
        assert module.panel_state.currency.stored_on(pair[0]) is None


def test_a_transform_over_another_volume_is_not_written(module, calls, pair):
    ct, mri = pair
    users = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "planning")
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "PET")
    other.SetAndObserveTransformNodeID(users.GetID())
    with pytest.raises(SettingsError, match="planning moves PET"):
        module.BrainFusionLogic().process(ct, mri, transform=users, overwrite=[users])


def test_a_ct_under_a_nonlinear_transform_is_resampled(module, calls, pair):
    ct, _ = pair
    tilt = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Acquisition transform")
    ct.SetAndObserveTransformNodeID(tilt.GetID())
    outcome = module.BrainFusionLogic().process(*pair)
    assert ct.GetParentTransformNode() == tilt
    assert outcome.resampledCTVolume is not None
    assert module.ownership.registered_ct_of(outcome.fusedVolume) == outcome.resampledCTVolume
    again = module.BrainFusionLogic().process(*pair)
    assert again.resampledCTVolume == outcome.resampledCTVolume
    np.testing.assert_allclose(
        slicer.util.arrayFromTransformMatrix(outcome.transformNode), module.bridge.mri_from_ct_ras(TRANSFORM)
    )


def test_closing_the_scene_ends_the_fusion(module, calls, pair):
    ended = []
    module.BrainFusionLogic().startFusion(
        *pair,
        progressCallback=lambda *said: slicer.mrmlScene.Clear(),
        finishedCallback=lambda *result: ended.append(result),
    )
    [(outcome, error)] = ended
    assert outcome is None
    assert isinstance(error, Cancelled)
    assert "removed from the scene" in str(error)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0


@pytest.mark.parametrize("choice", ["no CT", "no MRI", "the same twice", "fused is the CT", "fused is the MRI"])
def test_an_impossible_choice_is_rejected_first(module, calls, pair, choice):
    ct, mri = pair
    arguments = {
        "no CT": (None, mri),
        "no MRI": (ct, None),
        "the same twice": (ct, ct),
        "fused is the CT": (ct, mri, ct),
        "fused is the MRI": (ct, mri, mri),
    }[choice]
    with pytest.raises(SettingsError, match=r"[Cc]hoose"):
        module.BrainFusionLogic().process(*arguments)
    assert calls == []


def test_without_torch_the_message_names_the_pytorch_extension(module, calls, pair, monkeypatch):
    monkeypatch.setattr(module.torch_setup, "torch_is_installed", lambda: False)
    with pytest.raises(MissingDependencyError, match=r"graphics card.*install the PyTorch extension"):
        module.BrainFusionLogic().process(*pair, settings=Settings(device="cuda"))
    assert calls == []


def test_an_old_torch_is_rejected_with_a_remedy(module, calls, pair, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.1.2+cu118")
    with pytest.raises(MissingDependencyError, match=r"PyTorch 2\.1\.2\+cu118 is installed, and 2\.4 or newer"):
        module.BrainFusionLogic().process(*pair, settings=Settings(device="cuda"))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.10.0")
    assert module.torch_setup.is_too_old() is None
    assert calls == []


@pytest.mark.parametrize("index", [0, 1])
def test_removing_an_input_ends_the_fusion(module, calls, pair, index):
    with pytest.raises(Cancelled, match="removed from the scene"):
        module.BrainFusionLogic().process(
            *pair, progressCallback=lambda *said: slicer.mrmlScene.RemoveNode(pair[index])
        )
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLLinearTransformNode") == 0
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1


def test_the_pytorch_extension_installs_a_missing_torch(module, monkeypatch):
    asked = []

    class Logic:
        def installTorch(self, **arguments):  # noqa: N802
            asked.append(arguments)

    extension = types.ModuleType("PyTorchUtils")
    extension.__spec__ = importlib.util.spec_from_loader("PyTorchUtils", loader=None)
    extension.PyTorchUtilsLogic = Logic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    monkeypatch.setattr(module.torch_setup, "torch_is_installed", lambda: True)
    module.torch_setup.ensure_torch("cuda")
    monkeypatch.setattr(module.torch_setup, "torch_is_installed", lambda: False)
    module.torch_setup.ensure_torch("auto")
    module.torch_setup.ensure_torch("cpu")
    assert asked == []
    module.torch_setup.ensure_torch("cuda")
    assert asked == [{"askConfirmation": True, "torchVersionRequirement": ">=2.4"}]


def test_the_panel_has_words_for_every_remedy(module):
    phrases = module.remedies.PHRASES
    assert set(phrases) == set(Remedy)
    for phrase in phrases.values():
        assert "--" not in phrase
    error = SettingsError("a mask and a transform.", remedy=Remedy.OMIT_MASK_OR_TRANSFORM, details="more")
    assert module.remedies.phrased(error) == f"a mask and a transform. {phrases[Remedy.OMIT_MASK_OR_TRANSFORM]}\nmore"
    assert module.remedies.phrased(KeyError()) == "KeyError"


def test_remedies_name_what_the_panel_shows(module):
    """Words after *Choose* and before a colon are the labels of the panel."""
    import re

    ui = (MODULE / "Resources" / "UI" / "BrainFusion.ui").read_text(encoding="utf-8")
    named = {n for phrase in module.remedies.PHRASES.values() for n in re.findall(r"[cC]hoose ([A-Z][\w ]+):", phrase)}
    assert named == {"Registration", "Registration mask", "Fusion rule", "Compute on"}
    assert all(f"<string>{name}:</string>" in ui for name in named)


@pytest.fixture(scope="module")
def phantom_pair():
    """The pair that the self-test makes, made once: it takes seconds."""
    from BrainFusionLib.phantom import make_pair

    return make_pair(spacing_mm=4.0, rotation_deg=12.0, translation_mm=15.0)


@pytest.fixture
def no_second_phantom(monkeypatch, phantom_pair):
    monkeypatch.setattr("BrainFusionLib.phantom.make_pair", lambda **arguments: phantom_pair)


@pytest.mark.usefixtures("no_second_phantom")
def test_the_self_test_passes(module, monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed")
    from BrainFusionLib.settings import RegistrationSettings, SearchPass

    # The self-test's pose is only 12 degrees off: a smaller search does, and takes a third of the time.
    quick = Settings(registration=RegistrationSettings(passes=(SearchPass(40, 8),), samples=10_000))

    def run_quickly(request, *rest):
        asked = request.settings
        return remembered.run(replace(request, settings=replace(quick, output=asked.output, bone=asked.bone)), *rest)

    monkeypatch.setattr(case, "run", run_quickly)
    test = module.BrainFusionTest()
    test.runTest()
    passed, _, skipped = test.said[-1].partition("; skipped: ")
    assert passed == "Test passed"
    assert "test_thePanelCorrects (skipped: no main window)" in skipped.split(", ")


@pytest.mark.usefixtures("no_second_phantom")
def test_each_part_of_the_self_test_runs_alone(module, monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed")
    loaded = unittest.TestLoader().loadTestsFromModule(module)
    names = [test.id().rpartition(".")[2] for part in loaded for test in part]
    assert "test_resultsAreSavedAndLoaded" in names
    assert len(names) >= 20
    result = unittest.TestResult()
    module.BrainFusionTest("test_resultsAreSavedAndLoaded").run(result)
    assert result.wasSuccessful(), result.errors + result.failures


def test_the_self_test_leaves_a_scene_of_the_users_alone(module, pair):
    test = module.BrainFusionTest()
    before = slicer.mrmlScene.GetNumberOfNodes()
    test.runTest()
    assert test.said == [
        "The self-test needs an empty scene, and this one holds CT 1, T1. Save it and close it, then test again."
    ]
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    result = unittest.TestResult()
    module.BrainFusionTest("test_resultsAreSavedAndLoaded").run(result)
    assert len(result.skipped) == 1
    assert slicer.mrmlScene.GetNumberOfNodes() == before


@pytest.mark.parametrize("fault", ["the CT is not moved", "the CT is moved the wrong way", "the MRI is changed"])
@pytest.mark.usefixtures("no_second_phantom")
def test_the_self_test_notices(module, monkeypatch, phantom_pair, fault):
    pair = phantom_pair

    def run(request, inputs, progress, cancel):
        for stage in ("registration", "resampling", "fusion"):
            progress(stage, 0.5)
        transform = {
            "the CT is not moved": RigidTransform.identity(),
            "the CT is moved the wrong way": pair.transform.inverse(),
            "the MRI is changed": pair.transform,
        }[fault]
        if fault == "the MRI is changed":
            node = slicer.mrmlScene.GetFirstNodeByName("Phantom MRI")
            slicer.util.arrayFromVolume(node)[0, 0, 0] += 1
        return made_of(request, inputs, transform, fused=inputs.mri.with_array(inputs.mri.array_kji * 2))

    monkeypatch.setattr(case, "run", run)
    monkeypatch.setattr(module.torch_setup, "torch_is_installed", lambda: True)
    test = module.BrainFusionTest()
    with pytest.raises(AssertionError, match=r"voxels of Phantom MRI were changed|the CT is misaligned"):
        test.runTest()
    assert "Test passed" not in test.said


def turned(name, angle, shift):
    """A user's linear transform node."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    matrix = RigidTransform.from_axis_angle((3, 1, 2), angle, shift).moving_from_fixed_lps
    node.SetMatrixTransformToParent(sys.modules["BrainFusionSlicer.bridge"].vtk_matrix(matrix))
    return node


def voxels_in_the_world(node):
    """The corners of a volume, RAS mm, under its transforms."""
    own = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(own)
    world = np.eye(4)
    if node.GetParentTransformNode() is not None:
        world = slicer.util.arrayFromTransformMatrix(node.GetParentTransformNode(), toWorld=True)
    size = np.array(node.GetImageData().GetDimensions()) - 1
    corners = [[i, j, k, 1] for i in (0, size[0]) for j in (0, size[1]) for k in (0, size[2])]
    return (world @ slicer.util.arrayFromVTKMatrix(own) @ np.array(corners).T)[:3].T


@pytest.mark.parametrize("is_under_transforms", [False, True])
def test_a_fused_volume_on_the_cts_voxels_lies_where_the_registered_ct_does(
    module, calls, pair, monkeypatch, is_under_transforms
):
    ct, mri = pair
    parents = [None, None]
    if is_under_transforms:
        parents = [turned("of the CT", 25, (30, 1, -4)), turned("of the MRI", -40, (3, 12, 9))]
        for node, parent in zip(pair, parents, strict=True):
            node.SetAndObserveTransformNodeID(parent.GetID())

    def run(request, inputs, progress, cancel):
        grid = output_grid(request.settings.output, inputs.ct.grid, inputs.mri.grid, TRANSFORM)
        fused = Volume(inputs.ct.array_kji + 7, grid, "MR", "fused")
        made = made_of(request, inputs, TRANSFORM, fused)
        return replace(made, volumes=Volumes(fused, replace(inputs.ct, grid=grid), fused, fused))

    monkeypatch.setattr(case, "run", run)
    settings = Settings(output=OutputSettings(grid="ct"))
    outcome = module.BrainFusionLogic().process(ct, mri, settings=settings, alphaVolume=True, resampledCTVolume=True)
    assert ct.GetParentTransformNode() == outcome.transformNode
    for node in (outcome.fusedVolume, outcome.alphaVolume, outcome.resampledCTVolume):
        np.testing.assert_allclose(voxels_in_the_world(node), voxels_in_the_world(ct), atol=1e-6)
        assert node.GetParentTransformNode() == parents[1]
    assert outcome.fusedVolume.GetAttribute("BrainFusion.OutputGrid") == "ct"
    if is_under_transforms:  # what moves the MRI moves all
        parents[1].SetMatrixTransformToParent(module.bridge.vtk_matrix(np.diag([-1.0, -1, 1, 1])))
        np.testing.assert_allclose(voxels_in_the_world(outcome.fusedVolume), voxels_in_the_world(ct), atol=1e-6)


def test_the_squares_of_another_grid_show_the_mri_where_it_is(module, calls, pair, monkeypatch):
    from BrainFusionSlicer import ownership, review

    ct, mri = pair
    fused = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "fused")
    grid = Grid((8, 9, 7), (0.5, 0.7, 0.9), (-1.0, 6.0, 7.0))
    module.bridge.node_from_volume(Volume(np.zeros(grid.shape_kji), grid), fused)
    fused.SetAttribute(ownership.GRID_ATTRIBUTE, "union")
    drawing = review._drawn_squares(fused, ct, mri, (0.0, 100.0))
    while True:
        try:
            next(drawing)
        except StopIteration as end:
            image = end.value
            break
    assert image.GetDimensions() == (8, 9, 7)
    # The first cube of 20 mm, which is all, shows the MRI.
    at = module.bridge.volume_from_node(mri)
    expected = resample_onto(at, grid).array_kji
    drawn = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(7, 9, 8)
    np.testing.assert_allclose(drawn, expected, atol=1e-3)


def test_the_headless_example_fuses_two_files_and_ends_with_a_code(module, calls, pair, monkeypatch, tmp_path, capsys):
    path = MODULE.parent / "examples" / "fuse_in_slicer.py"
    spec = importlib.util.spec_from_file_location("fuse_in_slicer", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    saved, full = [], []
    loaded = dict(zip(("ct.nrrd", "mri.nrrd"), pair, strict=True))
    monkeypatch.setattr(slicer.util, "loadVolume", loaded.__getitem__)
    # It returns whether the node was saved, and raises nothing.
    monkeypatch.setattr(slicer.util, "saveNode", lambda node, path: not full and not saved.append(Path(path)))
    assert example.main("ct.nrrd", "mri.nrrd", str(tmp_path / "out")) == 0
    assert saved == [tmp_path / "out" / "fused.nrrd", tmp_path / "out" / "CT to MRI.tfm"]
    assert capsys.readouterr().out.startswith("Amber: ")
    assert example.main("ct.nrrd", "ct.nrrd", str(tmp_path / "out")) == 2
    assert "two different volumes" in capsys.readouterr().err
    full.append("the disk")
    assert example.main("ct.nrrd", "mri.nrrd", str(tmp_path / "out")) == 1
    assert "fused.nrrd was not written." in capsys.readouterr().err
    (tmp_path / "fused.nrrd").write_text("the user's, perhaps the MRI")
    assert example.main("ct.nrrd", "mri.nrrd", str(tmp_path)) == 2
    assert "is there already. Name another folder." in capsys.readouterr().err
