"""Run the module's self-test in a real Slicer, and take pictures of its panel: what ``dev.py slicer PATH`` starts.

Runs in Slicer's own Python, with the folder for the pictures as its only argument. Ends Slicer with 0 if the self-test
passed, and else with 1: an exception alone would leave it running for ever.
"""

# mypy: ignore-errors
import sys
import traceback
import unittest
from pathlib import Path

import qt
import slicer


def main(folder: Path) -> int:
    """Run the self-test and take the pictures; return the exit code."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        slicer.util.selectModule("BrainFusion")
        take(folder / "empty.png")
        failed = run_self_test()
        take_states(folder)
        return 1 if failed else 0
    except BaseException:
        traceback.print_exc()
        return 1


def run_self_test() -> int:
    """Run every test of the self-test; return how many failed."""
    import BrainFusion

    suite = unittest.defaultTestLoader.loadTestsFromTestCase(BrainFusion.BrainFusionTest)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    return len(result.errors) + len(result.failures)


def take_states(folder: Path) -> None:
    """Fuse a phantom by the panel's own buttons, and take a picture of each view and of a change."""
    from BrainFusionSlicer import selftest_tools

    import BrainFusion

    test = BrainFusion.BrainFusionTest("test_aHardenedCtIsNotMoved")
    test.pair = selftest_tools.phantomPair()
    ct, mri = test.addPhantom()
    ui = slicer.util.getModuleWidget("BrainFusion").ui
    ui.ctSelector.setCurrentNode(ct)
    ui.mriSelector.setCurrentNode(mri)
    test.clickFuse(slicer.util.getModuleWidget("BrainFusion"))
    slicer.util.resetSliceViews()
    views = {
        "fused": ui.fusedCheckBox,
        "ct_over_mri": ui.overlayButton,
        "bone_outline": ui.outlineButton,
        "squares": ui.checkerboardButton,
        "unregistered": ui.showUnregisteredButton,
    }
    take(folder / "done.png")
    for name, button in views.items():
        if name != "fused":
            button.click()
        take(folder / f"{name}.png")
    ui.fusedCheckBox.click()
    ct.HardenTransform()
    take(folder / "changed.png")
    slicer.mrmlScene.Clear()


def take(path: Path) -> None:
    """Write a picture of Slicer's window, 1366×768 as on a laptop."""
    window = slicer.util.mainWindow()
    window.resize(1366, 768)
    for _ in range(5):
        slicer.app.processEvents()
    window.grab().save(str(path))
    print("picture:", path)


if __name__ == "__main__":
    code = main(Path(sys.argv[1]).resolve())
    qt.QTimer.singleShot(0, lambda: slicer.util.exit(code))
