"""The section "Output grid and export": the voxels of the next fusion, the transform as a file, Slicer's database."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from BrainFusionLib.errors import BrainFusionError, Cancelled, ImageFileError
from BrainFusionLib.io import write_transform
from BrainFusionLib.io.transform_writing import SUFFIXES, check_voxel_order
from BrainFusionSlicer import choices, departing, ownership, remedies, selection
from BrainFusionSlicer.choices import OutputGrid, Reference, TransformAs
from BrainFusionSlicer.section import Section


class OutputSection(Section):
    """Which voxels the fused volume gets, and what is taken along besides the DICOM series."""

    UI = "Output"

    def setup(self) -> None:
        """Connect the widgets."""
        ui, self.panel._secondPress = self.panel.ui, departing.SecondPress()
        for box, name, kind in self._boxes():
            for member in kind:
                box.addItem(member.label())
            if kind is not Reference:
                box.connect(
                    "currentIndexChanged(int)", lambda index, name=name, kind=kind: self._choose(name, kind, index)
                )
        ui.referenceComboBox.connect("currentIndexChanged(int)", self.onReference)
        ui.spacingSpinBox.connect("valueChanged(double)", lambda mm: self._keep(choices.SPACING, f"{mm:g}"))
        ui.boneCheckBox.connect("toggled(bool)", lambda on: self._keep(choices.BONE, "true" if on else "false"))
        ui.saveTransformButton.connect("clicked(bool)", self.onSaveTransform)
        ui.databaseButton.connect("clicked(bool)", self.onDatabase)

    def update(self) -> None:
        """Show what is chosen, and what can be done now."""
        parameters, state, ui = self.panel._parameterNode, self.panel._state, self.panel.ui
        ui.outputCollapsibleButton.setEnabled(parameters is not None and not state.running)
        if parameters:
            for box, name, kind in self._boxes():
                blocked = box.blockSignals(True)
                box.setCurrentIndex(list(kind).index(choices.chosen(parameters, name)))
                box.blockSignals(blocked)
            self._quietly(lambda: self._show_numbers(parameters))
        fused = self.panel.registeredNodes()[0]
        why_not = None if fused is not None else _("Fuse first")
        if why_not is None and departing.pose_of(fused) is None:
            why_not = _("The CT is not where the registration moved it, or is under a transform that is not linear")
        ui.saveTransformButton.setEnabled(why_not is None)
        ui.saveTransformButton.setToolTip(
            why_not or _("Save the transform that moves the CT onto the MRI, between the frames of their files")
        )
        why_not = state.not_exportable or no_database()
        ui.databaseButton.setEnabled(why_not is None)
        ui.databaseButton.setToolTip(
            why_not or _("Copy the fused volume, the registered CT and the pose into the database of the DICOM module")
        )

    def _show_numbers(self, parameters) -> None:
        ui, spacing = self.panel.ui, choices.chosen_spacing_mm(parameters)
        if ui.spacingSpinBox.value != spacing:  # else what is being typed would be written anew: 0.7 as 0.70
            ui.spacingSpinBox.setValue(spacing)
        ui.boneCheckBox.setChecked(choices.is_bone_chosen(parameters))
        self._show_reference(choices.chosen_reference(parameters))
        is_isotropic = choices.chosen(parameters, "outputGrid") is OutputGrid.isotropic
        for widget in (ui.spacingLabel, ui.spacingSpinBox):
            widget.setVisible(is_isotropic)

    def _show_reference(self, reference) -> None:
        """Name the outputs by what they are."""
        ui = self.panel.ui
        moved, fixed = (_("MRI"), _("CT")) if reference == "ct" else (_("CT"), _("MRI"))
        names = {
            ui.transformLabel: (ui.transformSelector, _("{moved} to {fixed} transform")),
            ui.resampledLabel: (ui.resampledSelector, _("{moved} on the {fixed}'s grid")),
        }
        for label, (selector, words) in names.items():
            name = words.format(moved=moved, fixed=fixed)
            label.setText(f"{name}:")
            selector.setAccessibleName(name)
        ui.transformSelector.setToolTip(
            _(
                "Overwritten with the transform that moves the {moved} onto the {fixed}. The one of the last run, or a "
                "new one, if none is chosen."
            ).format(moved=moved, fixed=fixed)
        )
        ui.resampledSelector.setToolTip(
            _("The MRI on the voxels of the fused volume, on its own scale")
            if reference == "ct"
            else _("The CT, resampled onto the MRI's voxels, in Hounsfield units")
        )

    def onReference(self, index: int) -> None:
        """Choose which of the two stays where it is."""
        parameters = self.panel._parameterNode
        if parameters and index >= 0:
            reference = list(Reference)[index].name
            choices.choose_reference(parameters, reference)
            selection.follow_reference(parameters, reference)

    def forget(self) -> None:
        """Ask again before what is in doubt is exported."""
        self.panel._secondPress.forget()

    def onSaveTransform(self, checked: bool = False) -> None:
        """Save the pose in the format that is chosen."""
        fused, _registered, mri = self.panel.registeredNodes()
        ct = fused.GetNodeReference(ownership.MOVED_CT_ROLE)
        form = choices.chosen(self.panel._parameterNode, "transformAs")
        try:
            check_voxel_order(form.name, departing.file_of(ct), departing.file_of(mri))
        except ImageFileError as error:
            self.panel.say(_("Not saved: {error}").format(error=remedies.phrased(error)))
            return
        suffix = SUFFIXES[form.name][0]
        first = str(departing.folder_beside(mri) / f"ct_to_mri{suffix}")
        path = qt.QFileDialog.getSaveFileName(None, _("Save the transform"), first, f"{form.label()} (*{suffix})")
        pose = departing.pose_of(fused)
        if not path or pose is None:
            return
        if not path.endswith(SUFFIXES[form.name]):
            path = f"{path}{suffix}"
            if Path(path).exists():  # the dialog has asked about another name
                words = _("Not saved: {path} is there already. Choose it by its whole name.")
                self.panel.say(words.format(path=path))
                return
        path = Path(path)
        try:
            write_transform(pose, path, form.name, ct=departing.own_grid(ct), mri=departing.own_grid(mri))
        except BrainFusionError as error:
            self.panel.say(_("Not saved: {error}").format(error=remedies.phrased(error)))
        else:
            self.panel.say(_("The transform was saved: {path}").format(path=path))

    def onDatabase(self, checked: bool = False) -> None:
        """Export to a temporary folder, and have Slicer's DICOM database copy what is there."""
        why_not = no_database() or self.panel._secondPress.why_not(
            "database", departing.doubt_of(self.panel.registeredNodes()[0])
        )
        if why_not is not None:
            self.panel.say(why_not)
            return
        folder = tempfile.mkdtemp(prefix="brainfusion-dicom-")
        self.panel.startExport(folder, lambda files, error, whose: self.onWritten(files, error, whose, folder))

    def onWritten(self, files, error, whose: str, folder: str) -> None:
        """Put what was written into the database, and say so."""
        self.panel.ui.progressBar.setVisible(False)
        try:
            if error is None:
                put_into_database(folder, files)
        except BrainFusionError as problem:
            error = problem
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if error is None:
            text = _("{count} DICOM files are in the database of the DICOM module now; derived, not for diagnosis.")
            self.panel.say(f"{text.format(count=len(files))} {whose}".rstrip())
        elif isinstance(error, Cancelled):
            self.panel.say(_("Cancelled; nothing was written."))
        else:
            self.panel.say(_("Not exported: {error}").format(error=remedies.phrased(error)))

    def _boxes(self) -> tuple:
        ui = self.panel.ui
        return (
            (ui.gridComboBox, "outputGrid", OutputGrid),
            (ui.referenceComboBox, "reference", Reference),
            (ui.transformAsComboBox, "transformAs", TransformAs),
        )

    def _keep(self, name: str, value: str) -> None:
        if self.panel._parameterNode and not self._isShowing:
            self.panel._parameterNode.parameterNode.SetParameter(name, value)

    def _choose(self, name: str, kind: type[choices.Choice], index: int) -> None:
        if self.panel._parameterNode and index >= 0:
            self.panel._parameterNode.parameterNode.SetParameter(name, list(kind)[index].name)


def no_database() -> str | None:
    """Return why nothing can be put into Slicer's DICOM database, or None."""
    database = getattr(slicer, "dicomDatabase", None)
    if database is None or not database.isOpen:
        return _("No DICOM database is open. Open the DICOM module, which makes or opens one")
    return None


def put_into_database(folder: str, files) -> None:
    """Copy DICOM files into Slicer's database.

    DICOMUtils.importDicom returns True also where the indexer took nothing in: the database is asked afterwards.

    Raises
    ------
    ImageFileError
        One of the files is not in the database.
    """
    import pydicom
    from DICOMLib import DICOMUtils

    uids = [str(pydicom.dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID) for file in files]
    taken = DICOMUtils.importDicom(folder, slicer.dicomDatabase, copyFiles=True)
    if not taken or not all(slicer.dicomDatabase.fileForInstance(uid) for uid in uids):
        raise ImageFileError(
            _("The DICOM module did not take all files into its database. Export to a folder, and import that there.")
        )
