"""The self-test itself: what it leaves out is said."""

import unittest

import pytest
import slicer
import slicer.util


def walks_of(test):
    return [name for name in dir(test) if name.startswith("test_")]


@pytest.fixture
def run(module, panel, monkeypatch):
    """Run the self-test with other walks in the place of all of its own; return what it says."""

    def run_with(walk):
        test, said = module.BrainFusionTest("runTest"), []
        test.delayDisplay = said.append
        monkeypatch.setattr(test, "setUp", lambda: None)
        for name in walks_of(test):

            def walked(name=name):
                walk(test, name)

            walked.__name__ = name
            monkeypatch.setattr(test, name, walked)
        test.runTest()
        return said

    return run_with


def test_walks_that_need_a_window_are_named_as_skipped_where_there_is_none(run, monkeypatch):
    def walk(test, name):
        if name == "test_thePanelCorrects":
            test.requireWindow()

    assert run(walk)[-1] == "Test passed"
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    assert run(walk)[-1] == "Test passed; skipped: test_thePanelCorrects (skipped: no main window)"


def test_every_walk_runs_or_is_skipped_by_name(run, module):
    walked = []
    run(lambda test, name: walked.append(name))
    assert sorted(walked) == walks_of(module.BrainFusionTest("runTest"))


def test_a_build_without_a_window_reports_its_walks_as_skipped(module, panel, monkeypatch):
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    for name in walks_of(module.BrainFusionTest("runTest")):
        if "Panel" in name or "Shown" in name:
            with pytest.raises(unittest.SkipTest, match="no main window"):
                getattr(module.BrainFusionTest(name), name)()
