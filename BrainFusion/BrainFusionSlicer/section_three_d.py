"""The panel's section *3D*: skull and brain by one button, and off again."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from BrainFusionLib.errors import Cancelled
from BrainFusionSlicer import checks, remedies, three_d
from BrainFusionSlicer.section import Section


class ThreeDSection(Section):
    """What is shown stays while other modules are used; it goes with the button, another pair, or the scene."""

    UI = "SectionThreeD"

    def setup(self) -> None:
        ui = self.panel.ui
        self._is_showing = False
        self._asked = None  # the pair whose skull and brain are being found
        self._shown = None  # and that whose are shown
        ui.threeDButton.connect("toggled(bool)", self.onToggled)
        ui.boneShiftSlider.connect("valueChanged(double)", self.onShift)

    def update(self) -> None:
        ui, (ct, mri) = self.panel.ui, self.pair()
        scene = slicer.mrmlScene
        if three_d.is_shown(scene):
            # Without choices another module is shown, or a scene is being loaded: the volumes only have to be there.
            shown = (ct, mri) if self.panel._parameterNode else three_d.volumes(scene)
            is_as_found = self._shown is not None and self._shown.why_not() is None
            if is_as_found and None not in shown and three_d.is_of(scene, *shown):
                three_d.follow(*shown)
            else:
                three_d.hide(scene)
        is_pair = ct is not None and mri is not None and ct != mri
        why_not = _("Choose a CT and an MRI")
        if is_pair:
            why_not = checks.why_not_read(ct) or checks.why_not_read(mri)
        can_be_shown = why_not is None and not self.panel.logic.running
        ui.threeDButton.setEnabled(can_be_shown or three_d.is_shown(scene))
        ui.threeDButton.setToolTip(
            why_not or _("Render the CT's bone, and show the brain's surface and the bone's outline on the slices")
        )
        self.show()

    def show(self) -> None:
        """Show whether something is shown in 3D."""
        on = three_d.is_shown(slicer.mrmlScene)
        self._is_showing = True
        self.panel.ui.threeDButton.setChecked(on)
        self._is_showing = False
        self.panel.ui.boneShiftSlider.setEnabled(on)

    def onToggled(self, on: bool) -> None:
        if self._is_showing:
            return
        ct, mri = self.pair()
        if on and ct is not None and mri is not None and not self.panel.logic.running:
            self.start(ct, mri)
        elif not on:
            three_d.hide(slicer.mrmlScene)
        self.show()

    def start(self, ct, mri) -> None:
        """Have skull and brain found; they are shown when that is done."""
        panel = self.panel
        panel.beginProgress()
        try:
            asked = self._asked = three_d.Asked.of(ct, mri)
            panel.logic.startThreeD(
                asked,
                progressCallback=panel.showProgress,
                finishedCallback=lambda shapes, error: self.onFound(asked, shapes, error),
            )
        except Exception as error:
            self.onFound(self._asked, None, error)
        panel.updatePanel()

    def onFound(self, asked, shapes, error) -> None:
        """Show what was found, unless the scene is being closed, or something else was chosen meanwhile."""
        panel = self.panel
        panel.ui.progressBar.setVisible(False)
        if asked is not self._asked:
            return
        self._asked = None
        try:
            if error is not None:
                raise error
            why_not = asked.why_not()
            is_chosen = not panel._parameterNode or self.pair() == (asked.ct, asked.mri)
            if why_not is None and is_chosen:
                self._shown = asked
                three_d.show(asked, shapes, panel.ui.boneShiftSlider.value)
            panel.say(why_not or "")
        except Cancelled as cancelled:
            panel.say(remedies.phrased(cancelled))
        except Exception as problem:
            panel.say(_("Not shown: {error}").format(error=remedies.phrased(problem)))

    def onShift(self, hu: float) -> None:
        if three_d.is_shown(slicer.mrmlScene):
            three_d.set_shift(slicer.mrmlScene, hu)

    def forget(self) -> None:
        """The scene is being closed, or the module ends."""
        if self._asked is not None:
            self._asked = None
            self.panel.logic.cancel()
        three_d.hide(slicer.mrmlScene)
        self._shown = None
        self.show()
