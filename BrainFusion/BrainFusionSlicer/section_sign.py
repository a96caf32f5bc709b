"""The panel's section *Sign*: approve or reject the result that is shown, comment on it, and save its report."""

from __future__ import annotations

from pathlib import Path

import qt
from slicer.i18n import tr as _

from BrainFusionLib.case.decision import NO_SIGNATURE, Standing, state_of
from BrainFusionLib.errors import BrainFusionError, Cancelled
from BrainFusionSlicer import currency, decisions, departing, ownership, registered_ct, remedies, report_export
from BrainFusionSlicer.panel_state import COLOURS
from BrainFusionSlicer.section import Section
from BrainFusionSlicer.verdict_text import SYMBOLS, sentence
from BrainFusionSlicer.watching import Watched, changes_of

# Earlier decisions are counted beyond so many.
MOST_SHOWN = 4
_COLOUR = {"approved": "green", "rejected": "red", "void": "stale", "unsigned": "none"}


class SignSection(Section):
    """What the buttons Approve, Reject, Comment and Save report do, and what was decided."""

    UI = "SectionSign"

    def setup(self) -> None:
        ui = self.panel.ui
        self._watched = Watched()
        ui.approveButton.connect("clicked(bool)", lambda checked=False: self.onSign("approve"))
        ui.rejectButton.connect("clicked(bool)", lambda checked=False: self.onSign("reject"))
        ui.commentButton.connect("clicked(bool)", lambda checked=False: self.onSign("comment"))
        ui.saveReportButton.connect("clicked(bool)", self.onSaveReport)
        ui.noSignatureLabel.setText(_(NO_SIGNATURE))

    def update(self) -> None:
        fused, ct, mri = self.nodes()
        self.watch(fused)
        if self.panel.logic.running:
            # What was decided stays in view; what it is worth is asked again when the fusion has ended.
            self.enable(_("A fusion or an export is running"), _("A fusion or an export is running"))
            return
        subject = self.subject()
        # What was decided about an earlier pose stays in view, as void.
        found = [decisions.standings_of(node, ct, mri) for node in (subject, self.pose(), fused) if node]
        self.draw(next((standings for standings in found if standings), ()))
        why_not = self.why_not_now() or decisions.why_not_signed(subject, ct, mri)
        no_report = _("Fuse first: the report shows the fused volume")
        if fused is not None:
            no_report = report_export.what_is_missing(fused, ct, mri)
        self.enable(why_not, self.why_not_now() or no_report)

    def forget(self) -> None:
        self.watch(None)
        self.draw(())

    def put_away(self) -> None:
        self.watch(None)

    def nodes(self) -> tuple:
        """Return the fused volume of the pair, or None, the CT and the MRI; three times None without a pair."""
        fused, _registered, mri = self.panel.registeredNodes()
        return fused, None if mri is None else self.panel._parameterNode.ctVolume, mri

    def subject(self):
        """Return what is decided on: the fused volume, or, where its verdict does not hold, the registered pose."""
        fused, ct, mri = self.nodes()
        if ct is None or (fused is not None and decisions.why_not_signed(fused, ct, mri) is None):
            return fused
        pose = self.pose()
        return pose if pose is not None and decisions.why_not_signed(pose, ct, mri) is None else fused

    def pose(self):
        """Return the transform that a result of this pair has put the CT under, or None."""
        _fused, ct, mri = self.nodes()
        moved = None if ct is None else registered_ct.moved_of_pair(ct, mri)
        transform = None if moved is None else registered_ct.result_transform_of(moved)
        return transform if transform is not None and ownership.is_output_of(transform, ct, mri) else None

    def why_not_now(self) -> str | None:
        """Say why what is shown at this moment cannot be decided on, or return None."""
        card, standing = self.panel._state.card, self.panel._state.standing
        if card is None or (card.colour == "none" and standing is not registered_ct.Standing.SHOWN_UNREGISTERED):
            return _("Fuse first")
        if card.colour == "none":
            return _("The unregistered {volume} is shown").format(volume=self.panel._state.moved)
        if card.colour == "stale":
            return _("Something has changed since: check or fuse again")
        return None

    # ---- what is shown ----------------------------------------------------------------------------------------------

    def draw(self, standings: tuple[Standing, ...]) -> None:
        ui = self.panel.ui
        state = state_of(standings)
        heading = {
            "approved": _("Approved"),
            "rejected": _("Rejected"),
            "void": _("Void: changed since it was approved or rejected"),
            "unsigned": _("Neither approved nor rejected"),
        }[state]
        colour = _COLOUR[state]
        background, letters = COLOURS[colour]
        ui.decisionLabel.setStyleSheet(
            f"background-color: {background}; color: {letters}; font-weight: bold; padding: 3px;"
        )
        ui.decisionLabel.setText(f"{SYMBOLS[colour]} {heading}")
        lines = [standing.sentence for standing in reversed(standings)]
        if len(lines) > MOST_SHOWN:
            lines = [*lines[:MOST_SHOWN], _("Earlier decisions: {count}").format(count=len(lines) - MOST_SHOWN)]
        ui.decisionsLabel.setText("\n".join(lines))
        ui.decisionsLabel.setVisible(bool(lines))

    def enable(self, why_not: str | None, no_report: str | None) -> None:
        ui = self.panel.ui
        tips = {
            ui.approveButton: _("Note that you approve this result"),
            ui.rejectButton: _("Note that you reject this result"),
            ui.commentButton: _("Keep only the comment; an earlier decision stays in force"),
        }
        for button, tip in tips.items():
            button.setEnabled(why_not is None)
            button.setToolTip(why_not or tip)
        ui.saveReportButton.setEnabled(no_report is None)
        ui.saveReportButton.setToolTip(no_report or _("Write one page with pictures, evidence and decisions"))

    def watch(self, fused) -> None:
        """Hear of changes of the volumes that show the result; the panel itself watches CT and MRI."""
        made = [] if fused is None else currency.outputs_of(fused, *self.nodes()[1:])
        self._watched.only(wish for node in made for wish in changes_of(node, self.onFusedModified))

    def onFusedModified(self, caller, event) -> None:
        self.panel.updatePanel()

    # ---- what is done -----------------------------------------------------------------------------------------------

    def onSign(self, action: str) -> None:
        ui = self.panel.ui
        subject, (_fused, ct, mri) = self.subject(), self.nodes()
        why_not = self.why_not_now() or decisions.why_not_signed(subject, ct, mri)
        if why_not is not None or self.panel.logic.running:
            self.panel.updatePanel()
            return
        if not ui.signerEdit.text.strip():
            self.panel.say(_("Not signed: enter your name first."))
            ui.signerEdit.setFocus()
            return
        try:
            decisions.sign(subject, ct, mri, action, ui.signerEdit.text, ui.commentEdit.text)
        except BrainFusionError as error:
            self.panel.say(_("Not signed: {error}").format(error=remedies.phrased(error)))
            return
        ui.commentEdit.setText("")
        said = {"approve": _("Approved."), "reject": _("Rejected."), "comment": _("The comment was kept.")}
        self.panel.say(said[action])

    def onSaveReport(self, checked: bool = False) -> None:
        panel = self.panel
        first = str(departing.folder_beside(self.nodes()[2]) / "report.html")
        # PythonQt returns the name alone.
        chosen = qt.QFileDialog.getSaveFileName(None, _("Save report"), first, _("Web page (*.html)"))
        if not chosen:
            return
        path = Path(chosen)
        if path.suffix.lower() not in (".html", ".htm"):
            path = path.with_name(path.name + ".html")
            if path.exists():  # the dialog has asked about another name
                panel.say(_("Not saved: {path} is there already. Choose it by its whole name.").format(path=path))
                return
        fused, ct, mri = self.nodes()
        remarks = self.remarks_on_report(fused, ct, mri)
        panel.beginProgress()
        try:
            panel.logic.startReport(
                fused,
                path,
                progressCallback=panel.showProgress,
                finishedCallback=lambda files, error: self.onReportSaved(files, error, remarks),
            )
        except Exception as error:
            self.onReportSaved(None, error, remarks)
        panel.updatePanel()

    def remarks_on_report(self, fused, ct, mri) -> list[str]:
        """Say what a report of the fused volume does not have, though it was done since."""
        if fused is None:
            return []
        remarks = []
        if decisions.later_card(fused, ct, mri) is not None:
            remarks.append(_("It has the verdict of the fusion, not of the later check."))
        uncounted = report_export.uncounted_landmarks(fused, ct, mri)
        return remarks if uncounted is None else [*remarks, sentence(uncounted)]

    def onReportSaved(self, files, error, remarks: list[str]) -> None:
        self.panel.ui.progressBar.setVisible(False)
        if error is None:
            self.panel.say(" ".join([_("The report was saved: {path}").format(path=files[0]), *remarks]))
        elif isinstance(error, Cancelled):
            self.panel.say(_("Cancelled; nothing was written."))
        else:
            self.panel.say(_("Not saved: {error}").format(error=remedies.phrased(error)))
