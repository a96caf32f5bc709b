"""The part of the panel that looks at the pair, fuses, exports, and loads sample data."""

from __future__ import annotations

import time
from pathlib import Path

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

from BrainFusionLib.errors import Cancelled
from BrainFusionLib.settings import FusionSettings, RegistrationSettings, Settings
from BrainFusionSlicer import (
    checks,
    choices,
    departing,
    dicom_export,
    exporting,
    landmark_lists,
    ownership,
    permission,
    progress_text,
    registered_ct,
    remedies,
    sample,
    selection,
    torch_setup,
)
from BrainFusionSlicer.choices import Start
from BrainFusionSlicer.registered_ct import Standing

# The registration starts from the transform that is chosen.
WITH_TRANSFORM = (Start.transform, Start.refine)


class FusingControls:
    """What the buttons Swap, Fuse, Cancel, Export as DICOM and Load sample data do; the widget is one of these."""

    _secondPress = departing.SecondPress()
    _suspicion: tuple = (None, None)  # the pair that was looked at, and the warning
    _began = 0.0
    _kept: tuple[str, ...] | list[str] = ()  # why outputs of the fusion that was started were kept

    def onSampleDataButton(self, checked: bool = False) -> None:
        try:
            made = sample.load()
        except Exception as error:
            self.say(_("The sample could not be made: {error}").format(error=remedies.phrased(error)))
            return
        if made is not None:
            # The panel may have been left meanwhile.
            parameters = self._parameterNode or self.logic.getParameterNode()
            with slicer.util.NodeModify(parameters):
                parameters.ctVolume, parameters.mriVolume = made

    def whatIsSuspicious(self) -> str | None:
        ct, mri = self._parameterNode.ctVolume, self._parameterNode.mriVolume
        pair = ct.GetID(), mri.GetID(), ct.GetImageData().GetMTime(), mri.GetImageData().GetMTime()
        if self._suspicion[0] != pair:
            self._suspicion = (pair, checks.what_is_suspicious(ct, mri))
        return self._suspicion[1]

    def onSwapButton(self, checked: bool = False) -> None:
        parameters = self._parameterNode
        ct, mri = parameters.ctVolume, parameters.mriVolume
        with slicer.util.NodeModify(parameters):
            parameters.ctVolume, parameters.mriVolume = mri, ct

    def takeUpSelectors(self) -> None:
        """Choose what the selectors show: with a newer Qt 6 they are silent between two volumes of one name."""
        parameters, ui = self._parameterNode, self.ui
        for name, selector in (("ctVolume", ui.ctSelector), ("mriVolume", ui.mriSelector)):
            if selector.currentNode() != getattr(parameters, name):
                setattr(parameters, name, selector.currentNode())

    def onFuseButton(self, checked: bool = False) -> None:
        if self.logic.running:
            self.logic.cancel()
            return
        self.takeUpSelectors()
        try:
            torch_setup.ensure_torch(self._parameterNode.device.name)
            self.startFusion()
        except Exception as error:
            self.showError(error)

    def startFusion(self) -> None:
        parameters = self._parameterNode
        self._unseen = None
        if self._state.standing is Standing.SHOWN_UNREGISTERED:
            registered_ct.bring_again(parameters.ctVolume, parameters.mriVolume)
        self.putAwayReview()
        self.beginProgress()
        allowed = self._permitted.nodes()
        volumes = parameters.fusedVolume, parameters.alphaVolume, parameters.resampledCTVolume
        self._kept = [permission.why_kept(node) if node and node not in allowed else "" for node in volumes]
        # In the place of an output that is kept, a new one is made.
        fused, alpha, resampled = (True if why else node for why, node in zip(self._kept, volumes, strict=True))
        self.logic.startFusion(
            parameters.ctVolume,
            parameters.mriVolume,
            None if fused is True else fused,
            self.chosenTransform(),
            alphaVolume=alpha,
            resampledCTVolume=resampled,
            settings=self.chosenSettings(choices.is_bone_chosen(parameters)),
            keepAlignment=parameters.start is Start.skip,
            **self.chosenStart(),
            overwrite=allowed,
            progressCallback=self.showProgress,
            finishedCallback=self.onFinished,
        )
        self.updatePanel()

    def chosenTransform(self):
        """Return the output transform that is chosen; not one of this pair's that moves the reference."""
        selection.follow_reference(self._parameterNode, choices.chosen_reference(self._parameterNode))
        return self._parameterNode.ctToMriTransform

    def chosenSettings(self, bone: bool = False) -> Settings:
        """Return the settings that are chosen; the bone is made by a fusion alone."""
        parameters = self._parameterNode
        return Settings(
            registration=RegistrationSettings.preset(
                parameters.preset.name,
                # A given pose is used unchanged.
                align="skull" if parameters.start is Start.skip else parameters.align.name,
                search="local" if parameters.start is Start.refine else "global",
            ),
            fusion=FusionSettings(rule=parameters.rule.name),
            device=parameters.device.name,
            output=choices.chosen_output(parameters),
            bone=bone,
        )

    def chosenStart(self):
        """Return what of the choices a registration takes besides the pair, as arguments of the logic."""
        parameters = self._parameterNode
        return {
            "startTransform": parameters.startTransform if parameters.start in WITH_TRANSFORM else None,
            "startFromLandmarks": parameters.start is Start.landmarks,
            "mask": parameters.mask,
            "landmarks": self.chosenLandmarks(),
        }

    def chosenLandmarks(self) -> tuple | None:
        """Return the two point lists that are chosen, or None while they cannot be used; the section says why."""
        parameters = self._parameterNode
        pair = parameters.ctVolume, parameters.mriVolume
        lists = landmark_lists.chosen(parameters.parameterNode, *pair)
        return None if landmark_lists.why_not(lists, *pair) is not None else tuple(lists)

    def showIdle(self) -> None:
        self.ui.progressBar.setVisible(False)
        parameters = self._parameterNode
        self._notice = (torch_setup.hint(parameters.device.name) if parameters else None) or ""
        self._saidOf = ()
        self.ui.statusLabel.setText(self._notice)

    def beginProgress(self) -> None:
        self._began = time.monotonic()
        self.ui.progressBar.setValue(0)
        self.ui.progressBar.setVisible(True)

    def showProgress(self, stage: str, fraction: float) -> None:
        done = progress_text.fraction_done(stage, fraction)
        self.ui.progressBar.setValue(round(100 * done))
        self.ui.statusLabel.setText(progress_text.words(stage, done, time.monotonic() - self._began))

    def onFinished(self, outcome, error) -> None:
        self.ui.progressBar.setVisible(False)
        if error is not None:
            self.showError(error)
            return
        self._unseen = outcome.fusedVolume
        self._permitted.clear()
        # Also while another module is shown: the choice is there when the panel is entered.
        parameters = self._parameterNode or self.logic.getParameterNode()
        ct, mri = (outcome.fusedVolume.GetNodeReference(role) for role in ownership.INPUT_ROLES)
        if parameters.ctVolume is None and parameters.mriVolume is None:
            # The parameter node was removed meanwhile, and this is a new one.
            with slicer.util.NodeModify(parameters):
                parameters.ctVolume, parameters.mriVolume = ct, mri
        if (parameters.ctVolume, parameters.mriVolume) == (ct, mri):
            parameters.fusedVolume = outcome.fusedVolume
            if outcome.transformNode:
                parameters.ctToMriTransform = outcome.transformNode
            if outcome.alphaVolume:
                parameters.alphaVolume = outcome.alphaVolume
            if outcome.resampledCTVolume:
                parameters.resampledCTVolume = outcome.resampledCTVolume
            self._drawn = selection.chosen_ids(parameters)
        words = [
            _("{ct} and {mri}: fused in {seconds:.0f} s.").format(
                ct=ct.GetName(), mri=mri.GetName(), seconds=outcome.seconds
            )
        ]
        if (parameters.ctVolume, parameters.mriVolume) == (ct, mri):
            words = [_("Fused in {seconds:.0f} s.").format(seconds=outcome.seconds)]
        if outcome.moved:
            words.append(_("Moved with the {volume}: {count}.").format(volume=outcome.movedName, count=outcome.moved))
        words += [_("{reason}: it was kept, and this is a new volume.").format(reason=why) for why in self._kept if why]
        words += [_("{reason}: it was kept, and a new one was made.").format(reason=why) for why in outcome.kept]
        self.say(" ".join(words))
        if self.parent.isEntered:
            self.showUnseen()

    def showError(self, error: Exception) -> None:
        self.ui.progressBar.setVisible(False)
        text = remedies.phrased(error)
        self.say(text if isinstance(error, Cancelled) else _("Not fused: {error}").format(error=text))

    def onExportButton(self, checked: bool = False) -> None:
        fused = self.registeredNodes()[0]
        why_not = self._secondPress.why_not("folder", departing.doubt_of(fused))
        if why_not is not None:
            self.say(why_not)
            return
        first = str(departing.folder_beside(self.registeredNodes()[2]))
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder for the DICOM series"), first)
        if folder:
            self.startExport(folder, lambda files, error, whose: self.onExported(files, error, whose, folder))

    def startExport(self, folder: str, ended) -> None:
        """Start to export the chosen fused volume; call `ended` with its files, or an error, and whose they are."""
        self.beginProgress()
        fused = self.registeredNodes()[0]
        whose = dicom_export.whosePatient(fused)  # now: the panel may be left meanwhile, and knows no pair then
        try:
            self.logic.startExport(
                fused,
                folder,
                exportAnyway=True,  # it was asked for
                progressCallback=self.showProgress,
                finishedCallback=lambda files, error: ended(files, error, whose),
            )
        except Exception as error:
            ended(None, error, whose)
        self.updatePanel()

    def onExported(self, files, error, whose, folder) -> None:
        self.ui.progressBar.setVisible(False)
        if error is None:
            text = _("{count} DICOM files were written to {folder}; derived, not for diagnosis.")
            self.say(f"{text.format(count=len(files), folder=folder)} {whose}".rstrip())
        elif isinstance(error, Cancelled):
            left, words = exporting.results_in(Path(folder)), _("Cancelled; nothing was written.")
            if left:
                words = _("Cancelled. What had been written is in {folder}: {names}.")
            self.say(words.format(folder=folder, names=", ".join(left)))
        else:
            self.say(_("Not exported: {error}").format(error=remedies.phrased(error)))
