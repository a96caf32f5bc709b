"""The sample of our own: listed in Sample Data, made on this machine, and loaded by our own button, too."""

import contextlib
import sys
from types import SimpleNamespace

import pytest
import slicer
import slicer.util
from sample_data import Application, ProgressDialog, click, sample_data
from window import walk_self_test

from BrainFusionLib.errors import BrainFusionError
from Testing.python_slicer import is_gone

NAME = "BrainFusion: CT and MRI in an unknown pose"


@pytest.fixture
def listed(module, monkeypatch):
    """The sample module, with Sample Data; Slicer has started."""
    from BrainFusionSlicer import sample

    modules = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "SampleData", sample_data(modules))
    monkeypatch.setattr(slicer, "app", Application(processEvents=lambda: None), raising=False)
    monkeypatch.setattr(slicer.util, "tryWithErrorDisplay", lambda *a, **k: contextlib.nullcontext(), raising=False)
    dialogs = []

    def dialog(**given):
        dialogs.append(ProgressDialog(cancel_at=sample.cancel_at, **given))
        return dialogs[-1]

    monkeypatch.setattr(slicer.util, "createProgressDialog", dialog, raising=False)
    monkeypatch.setattr(sample, "cancel_at", 101, raising=False)
    module.BrainFusion(SimpleNamespace())
    for started in slicer.app.slots:
        started()
    return SimpleNamespace(sources=modules.sampleDataSources, dialogs=dialogs, sample=sample)


@pytest.fixture
def small(listed, monkeypatch):
    """The same, made in this process and coarse."""
    monkeypatch.setattr("BrainFusionSlicer.sample_maker.SPACING_MM", 12.0)
    monkeypatch.setattr("shutil.which", lambda name: None)
    return listed


def volumes():
    return [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]


def test_sample_is_listed_once_with_a_thumbnail(listed):
    listed.sample.register()
    ((source,),) = listed.sources.values()
    assert source.sampleName == NAME
    with open(source.thumbnailFileName, "rb") as file:  # noqa: PTH123
        assert file.read(4) == b"\x89PNG"


def test_button_of_sample_data_loads_the_sample(small, layers):
    click(small.sources["BrainFusion"][0])
    assert volumes() == ["Sample CT", "Sample MRI"]
    assert layers[-1]["background"].GetName() == "Sample MRI"
    (dialog,) = small.dialogs
    assert dialog.shown == sorted(dialog.shown)
    assert not dialog.is_open


def test_our_own_button_loads_and_chooses_it(small, panel):
    panel.ui.sampleDataButton.click()
    assert panel.ui.ctSelector.currentNode().GetName() == "Sample CT"
    assert panel.ui.mriSelector.currentNode().GetName() == "Sample MRI"


def test_a_panel_that_was_left_meanwhile_shows_the_sample_when_it_is_entered(small, panel, monkeypatch):
    load = small.sample.load
    monkeypatch.setattr(small.sample, "load", lambda: panel.exit() or load())
    panel.ui.sampleDataButton.click()
    panel.enter()
    assert panel.ui.ctSelector.currentNode().GetName() == "Sample CT"


def test_the_self_test_loads_the_sample(small, panel, module, phantom, monkeypatch):
    walk_self_test(module, panel, phantom, monkeypatch, "test_theSampleIsMadeAndChosen")


def test_a_second_sample_has_names_of_its_own(small):
    small.sample.load()
    small.sample.load()
    assert len(set(volumes())) == 4


def test_cancelled_sample_leaves_the_scene_as_it_was(small, monkeypatch):
    monkeypatch.setattr(small.sample, "cancel_at", 50)
    assert small.sample.load() is None
    assert volumes() == []
    assert not small.dialogs[0].is_open
    monkeypatch.setattr(small.sample, "cancel_at", 101)
    assert small.sample.load() is not None


def test_sample_is_made_in_a_process_of_its_own(listed):
    ct, mri = listed.sample.load()
    assert ct.GetImageData().GetDimensions()[0] > 100
    assert mri.GetImageData().GetScalarRange()[1] > 100
    assert ct.GetImageData().GetScalarRange()[1] > 1000
    assert max(listed.dialogs[0].shown) >= 70


def test_cancelling_its_process_leaves_no_file(listed, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(listed.sample, "cancel_at", 10)
    made = []
    start = listed.sample.WorkerProcess
    monkeypatch.setattr(listed.sample, "WorkerProcess", lambda command: made.append(start(command)) or made[-1])
    assert listed.sample.load() is None
    assert is_gone(made[0].python_pid)
    assert list(tmp_path.iterdir()) == []
    assert volumes() == []


def test_process_that_fails_is_an_error_and_leaves_the_scene(listed, panel, monkeypatch, tmp_path):
    fails = tmp_path / "PythonSlicer"
    fails.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no memory')\n")
    fails.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(fails))
    with pytest.raises(BrainFusionError, match=r"ended with code 1.* Last output: no memory"):
        listed.sample.load()
    panel.ui.sampleDataButton.click()
    assert "The sample could not be made: the worker process" in panel.ui.statusLabel.text
    assert volumes() == []
