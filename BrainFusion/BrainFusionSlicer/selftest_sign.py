"""The part of the self-test that signs a result, in the panel where there is a window, and saves its report."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import slicer
import slicer.util

from BrainFusionSlicer import decisions
from BrainFusionSlicer.selftest_tools import NO_WINDOW, TIMEOUT_S, moveBy


class SignTests:
    """One walk; `BrainFusionTest` is one of these."""

    def test_aResultIsSignedAndItsReportSaved(self):
        self.delayDisplay("Signing, and saving the report")
        ct, mri = self.addPhantom()
        fused = self.fuseQuickly(ct, mri).fusedVolume
        transform = ct.GetParentTransformNode()
        decisions.sign(fused, ct, mri, "approve", "Self-test", "")
        assert decisions.state_of(fused) == "approved"
        moveBy(transform, 3)
        assert decisions.state_of(fused) == "void", "a decision holds for another pose"
        moveBy(transform, -3)
        assert decisions.state_of(fused) == "approved", "a decision is void though its pose is the same again"
        if slicer.util.mainWindow() is None:
            self.delayDisplay(f"Signing in the panel: {NO_WINDOW}")
            decisions.sign(fused, ct, mri, "reject", "Self-test", "")
        else:
            self.rejectInThePanel(ct, mri, transform)
        assert decisions.is_rejected(fused), "the result was not rejected"
        self.checkReport(fused)
        self.logic.close()

    def rejectInThePanel(self, ct, mri, transform):
        """Reject the result by the panel's buttons, and see what the panel says of it."""
        ui = self.openedPanel().ui
        ui.ctSelector.setCurrentNode(ct)
        ui.mriSelector.setCurrentNode(mri)
        before = ui.signerEdit.text
        ui.signerEdit.setText("Self-test")
        ui.rejectButton.click()
        ui.signerEdit.setText(before)
        assert "Rejected" in ui.decisionLabel.text, f"not rejected: {ui.statusLabel.text}"
        moveBy(transform, 3)
        assert "Void" in ui.decisionLabel.text, "the panel does not say that a decision is void"
        moveBy(transform, -3)
        assert "Rejected" in ui.decisionLabel.text, "the decision did not come back with its pose"

    def checkReport(self, fused):
        """Save the report as the panel does, but without its dialog, and look into it."""
        ended = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "report.html"
            self.logic.startReport(fused, path, finishedCallback=lambda files, error: ended.append(error))
            began = time.monotonic()
            while not ended:
                assert time.monotonic() - began < TIMEOUT_S, "the report was not saved"
                slicer.app.processEvents()
                time.sleep(0.01)
            assert ended == [None], f"the report was not saved: {ended[0]}"
            assert "Rejected by Self-test" in path.read_text(encoding="utf-8"), "the decision is not in the report"
