"""The panel in a window that nobody sees, with a pair of phantoms."""

import ctypes
import os
import sys
import types
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("slicer", reason="slicer-core is not installed: pip install slicer-core==5.12.4.0")
pytest.importorskip("PySide6.QtWidgets", reason="PySide6-Essentials is not installed")

import pydicom
import slicer
from PySide6 import QtWidgets

from BrainFusionLib import case
from BrainFusionLib.phantom import make_pair
from Testing import remembered

# PySide6 6.12 takes None for immortal, as it is from Python 3.12 on: each call of a method that returns nothing loses a
# reference to it, and after some ten thousand calls Python ends ("deallocating None"); so it is with True and False.
if sys.version_info < (3, 12):
    for _lent in (None, True, False):
        ctypes.c_ssize_t.from_address(id(_lent)).value += 1 << 40

sys.path.append(str(Path(__file__).parent))
from window import loaded_module, opened_panel


@pytest.fixture(autouse=True)
def _computed_once(monkeypatch):
    """What runs in this process is computed once for all tests: most of them fuse the same pair."""
    monkeypatch.setattr(case, "run", remembered.run)


@pytest.fixture(scope="session")
def application():
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication([])


# PySide6 loses a reference to None in each call of a method without a result: after some 70,000 of them Python ends,
# while tests run or after the last one. This list lends two million, and is itself never released.
LENT = [None] * 2_000_000
ctypes.pythonapi.Py_IncRef(ctypes.py_object(LENT))


@pytest.fixture
def layers():
    """What the slice views were told to show, in order."""
    return []


@pytest.fixture
def module(application, layers):
    with loaded_module(application, layers) as loaded:
        yield loaded


@pytest.fixture
def panel(module):
    with opened_panel(module) as widget:
        yield widget


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


@pytest.fixture
def runner(panel, phantom):
    """A runner that answers at once, with the phantom's true pose."""
    from answering import AnsweringRunner

    made = AnsweringRunner(phantom.transform)
    panel.logic._runner = made
    return made


@pytest.fixture
def chosen(panel, nodes, runner):
    """The panel with the phantom's pair chosen."""
    panel.ui.ctSelector.setCurrentNode(nodes[0])
    panel.ui.mriSelector.setCurrentNode(nodes[1])
    return panel


class FakeDatabase:
    """What is used of ctkDICOMDatabase: the property isOpen, and the file of a SOP instance, "" where it is none."""

    def __init__(self):
        self.isOpen, self.files = True, {}

    def fileForInstance(self, uid):  # noqa: N802
        return self.files.get(uid, "")


@pytest.fixture
def database(monkeypatch):
    """Slicer's database, and DICOMLib.DICOMUtils after Modules/Scripted/DICOMLib/DICOMUtils.py."""
    made = FakeDatabase()
    monkeypatch.setattr(slicer, "dicomDatabase", made, raising=False)

    def import_dicom(folder, database=None, copyFiles=False):  # noqa: N803
        slicer.app.processEvents()  # as ctkDICOMIndexer.waitForImportFinished
        if made.takes:
            for path in Path(folder).rglob("*.dcm"):
                made.files[str(pydicom.dcmread(path).SOPInstanceUID)] = "copied" if copyFiles else str(path)
        return True  # also where nothing was taken in

    made.takes = True
    utils = types.ModuleType("DICOMLib.DICOMUtils")
    utils.importDicom = import_dicom
    package = types.ModuleType("DICOMLib")
    package.DICOMUtils = utils
    monkeypatch.setitem(sys.modules, "DICOMLib", package)
    monkeypatch.setitem(sys.modules, "DICOMLib.DICOMUtils", utils)
    return made
