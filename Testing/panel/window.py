"""The real BrainFusion.py in a window of PySide6, on Slicer's real MRML classes: for the tests and for benchmarks."""

import importlib.util
import shutil
import sys
import tempfile
import types
import unittest
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import slicer
import slicer.util
import vtk
from PySide6 import QtCore

sys.path.append(str(Path(__file__).parent))
import fakes
from sample_data import Application

from Testing.python_slicer import python_slicer

MODULE = Path(__file__).parents[2] / "BrainFusion"


@contextmanager
def loaded_module(application, layers):
    """Load the module file with stand-ins for the application and a new scene; what it shows is noted in `layers`."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as folders:

        def fake(name, **contents):
            made = types.ModuleType(name)
            vars(made).update(contents)
            patch.setitem(sys.modules, name, made)

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
        # Slicer's application gives the scene these; without them no scene can be loaded.
        cache, io = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
        # An empty folder: it looks through all that is there.
        cache.SetRemoteCacheDirectory(folders.enter_context(tempfile.TemporaryDirectory()))
        io.SetCacheManager(cache)
        scene.SetDataIOManager(io)
        for kind in ("vtkMRMLSelectionNode", "vtkMRMLInteractionNode"):  # vtkMRMLApplicationLogic.cxx
            node = scene.CreateNodeByClass(kind)
            node.UnRegister(None)
            node.SetSingletonTag("Singleton")
            scene.AddNode(node)
        # The markups' logic has point lists saved and loaded, and makes each the active one; that of the Data module
        # removes the display nodes and storage nodes of what is removed.
        logics = slicer.vtkSlicerMarkupsLogic(), slicer.vtkSlicerDataModuleLogic()
        for logic in logics:
            logic.SetMRMLScene(scene)
        patch.setattr(slicer, "mrmlScene", scene, raising=False)
        patch.setattr(slicer, "app", Application(processEvents=process_events), raising=False)
        patch.setattr(slicer.util, "mainWindow", lambda: object(), raising=False)
        patch.setattr(slicer.util, "loadUI", fakes.load_ui, raising=False)
        patch.setattr(slicer.util, "childWidgetVariables", fakes.child_widget_variables, raising=False)
        set_layers = slicer.util.setSliceViewerLayers

        def show(**shown):
            layers.append(shown)
            set_layers(**{**shown, "fit": False})  # there is no layout

        patch.setattr(slicer.util, "setSliceViewerLayers", show)
        found = shutil.which
        launcher = python_slicer(Path(folders.enter_context(tempfile.TemporaryDirectory())))
        patch.setattr(
            "shutil.which",
            lambda name, *more, **options: launcher if name == "PythonSlicer" else found(name, *more, **options),
        )
        patch.syspath_prepend(str(MODULE))
        spec = importlib.util.spec_from_file_location("BrainFusion", MODULE / "BrainFusion.py")
        loaded = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "BrainFusion", loaded)
        spec.loader.exec_module(loaded)
        # Takes seconds; those who want it call the runner.
        patch.setattr(loaded.BrainFusionLogic, "warmUp", lambda logic: None)
        with nothing_removed_twice(scene):
            yield loaded
        for selector in [one for one in fakes.SELECTORS if one.scene == scene]:
            selector.leaveScene()
        for logic in logics:
            logic.SetMRMLScene(None)


@contextmanager
def nothing_removed_twice(scene):
    """Look out for nodes that are removed again: Slicer tells everybody so, though they are in the scene no more."""
    twice = []

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def note(caller, event, node):
        if node.GetScene() is None:
            twice.append(node.GetClassName())

    tag = scene.AddObserver(scene.NodeAboutToBeRemovedEvent, note)
    yield
    scene.RemoveObserver(tag)
    assert twice == [], f"removed twice: {twice}"


def process_events():
    """Handle the events that are there. Not by QApplication: see `wait`."""
    QtCore.QEventLoop().processEvents(QtCore.QEventLoop.ProcessEventsFlag.AllEvents)


@contextmanager
def opened_panel(module):
    """Show the module's widget, set up and entered."""
    widget = module.BrainFusionWidget(fakes.Panel())
    fakes.note_entering(widget)
    note_outcomes(widget)
    widget.setup()
    widget.enter()
    widget.parent.resize(430, 900)
    widget.parent.show()
    yield widget
    widget.cleanup()
    widget.parent.close()


def note_outcomes(widget):
    """Keep what the last fusion gave, with its voxels, for tests; the panel itself does not."""
    widget.lastOutcome, finished = None, widget.onFinished

    def noting(outcome, error):
        widget.lastOutcome = outcome
        finished(outcome, error)

    widget.onFinished = noting


def wait(panel, until, seconds=120):
    """Handle events until a condition holds; an error after so many seconds without it."""
    late = []
    # Sleeps until there is an event; the timer is one, too. Not QApplication.processEvents: in PySide6 6.12 each call
    # loses a reference to None, and after some thousand calls Python ends.
    loop = QtCore.QEventLoop()
    timer = QtCore.QTimer(singleShot=True, interval=1000 * seconds)
    timer.timeout.connect(lambda: late.append(True))
    timer.start()
    while not until():
        assert not late, panel.ui.statusLabel.text
        loop.processEvents(QtCore.QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
    timer.stop()


def walk_self_test(module, panel, phantom, monkeypatch, name):
    """Run one test of the module's self-test on this panel, with a small phantom."""
    monkeypatch.setattr(sys.modules["BrainFusionSlicer.selftest_tools"], "phantomPair", lambda: phantom)
    monkeypatch.setattr(slicer.util, "selectModule", lambda name: None, raising=False)
    monkeypatch.setattr(slicer.util, "getModuleWidget", lambda name: panel, raising=False)
    test = module.BrainFusionTest(name)
    test.delayDisplay = lambda words: None
    test.setUp()
    getattr(test, name)()
    test.tearDown()
    assert panel.ui.statusLabel.text == "Choose a CT."
