"""The real BrainFusion.py in a panel of PySide6, on Slicer's real MRML classes."""

import importlib.util
import os
import sys
import types
import unittest
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("slicer", reason="slicer-core is not installed: pip install slicer-core==5.12.4.0")
pytest.importorskip("PySide6.QtWidgets", reason="PySide6-Essentials is not installed")

import slicer
import slicer.util
from PySide6 import QtWidgets

from BrainFusionLib.phantom import make_pair

sys.path.append(str(Path(__file__).parent))
import fakes

MODULE = Path(__file__).parents[2] / "BrainFusion"


@pytest.fixture(scope="session")
def application():
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication([])


@pytest.fixture
def layers():
    """What the slice views were told to show, in order."""
    return []


@pytest.fixture
def module(monkeypatch, application, layers, tmp_path):
    def fake(name, **contents):
        made = types.ModuleType(name)
        vars(made).update(contents)
        monkeypatch.setitem(sys.modules, name, made)

    fake("qt", **fakes.fake_qt())
    fake("slicer.i18n", tr=lambda text: text, translate=lambda context, text: text)
    fake("slicer.parameterNodeWrapper", parameterNodeWrapper=fakes.parameter_node_wrapper)
    fake(
        "slicer.ScriptedLoadableModule",
        ScriptedLoadableModule=fakes.Module,
        ScriptedLoadableModuleLogic=fakes.Logic,
        ScriptedLoadableModuleTest=unittest.TestCase,
        ScriptedLoadableModuleWidget=fakes.Widget,
    )
    scene = slicer.vtkMRMLScene()
    monkeypatch.setattr(slicer, "mrmlScene", scene, raising=False)
    monkeypatch.setattr(slicer, "app", SimpleNamespace(processEvents=application.processEvents), raising=False)
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: object(), raising=False)
    monkeypatch.setattr(slicer.util, "loadUI", fakes.load_ui, raising=False)
    monkeypatch.setattr(slicer.util, "childWidgetVariables", fakes.child_widget_variables, raising=False)
    monkeypatch.setattr(slicer.util, "setSliceViewerLayers", lambda **shown: layers.append(shown), raising=False)
    monkeypatch.setattr("shutil.which", lambda name: sys.executable if name == "PythonSlicer" else None)
    monkeypatch.syspath_prepend(str(MODULE))
    spec = importlib.util.spec_from_file_location("BrainFusion", MODULE / "BrainFusion.py")
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "BrainFusion", loaded)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def panel(module):
    """The module's widget, set up and entered."""
    widget = module.BrainFusionWidget(fakes.Panel())
    widget.setup()
    widget.enter()
    widget.parent.resize(430, 900)
    widget.parent.show()
    yield widget
    widget.cleanup()
    widget.parent.close()


@pytest.fixture(scope="session")
def phantom():
    return make_pair(spacing_mm=4.0, rotation_deg=10.0, translation_mm=8.0)


@pytest.fixture
def nodes(module, phantom):
    made = []
    for name, volume in (("CT", phantom.ct), ("MRI", phantom.mri)):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        module.bridge.node_from_volume(volume, node)
        made.append(node)
    return made
