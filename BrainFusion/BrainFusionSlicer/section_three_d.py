"""The panel's section *3D*: skull and brain by one button, and off again."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from BrainFusionSlicer import remedies, three_d
from BrainFusionSlicer.section import Section


class ThreeDSection(Section):
    """What is shown stays while other modules are used; it goes with the button, another pair, or the scene."""

    UI = "SectionThreeD"

    def setup(self) -> None:
        ui = self.panel.ui
        self._is_showing = False
        ui.threeDButton.connect("toggled(bool)", self.onToggled)
        ui.boneShiftSlider.connect("valueChanged(double)", self.onShift)

    def update(self) -> None:
        ui, (ct, mri) = self.panel.ui, self.pair()
        scene = slicer.mrmlScene
        if three_d.is_shown(scene):
            # Without choices another module is shown, or a scene is being loaded: the volumes only have to be there.
            shown = (ct, mri) if self.panel._parameterNode else three_d.volumes(scene)
            if three_d.is_of(scene, *shown):
                three_d.follow(*shown)
            else:
                three_d.hide(scene)
        is_pair = ct is not None and mri is not None and ct != mri
        ui.threeDButton.setEnabled((is_pair and not self.panel.logic.running) or three_d.is_shown(scene))
        ui.threeDButton.setToolTip(
            _("Render the CT's bone, and show the brain's surface and the bone's outline on the slices")
            if is_pair
            else _("Choose a CT and an MRI")
        )
        self.show()

    def pair(self) -> tuple:
        parameters = self.panel._parameterNode
        return (parameters.ctVolume, parameters.mriVolume) if parameters else (None, None)

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
        try:
            if on and ct is not None and mri is not None:
                three_d.show(ct, mri, self.panel.ui.boneShiftSlider.value)
            else:
                three_d.hide(slicer.mrmlScene)
        except Exception as error:
            self.panel.say(_("Not shown: {error}").format(error=remedies.phrased(error)))
        self.show()

    def onShift(self, hu: float) -> None:
        if three_d.is_shown(slicer.mrmlScene):
            three_d.set_shift(slicer.mrmlScene, hu)

    def forget(self) -> None:
        """The scene is being closed, or the module ends."""
        three_d.hide(slicer.mrmlScene)
        self.show()
