"""The part of the panel that shows a result in the slice views, one view at a time, and takes it back."""

from __future__ import annotations

from dataclasses import replace

import slicer
from slicer.i18n import tr as _

from BrainFusionSlicer import (
    bridge,
    currency,
    ownership,
    panel_state,
    pose_history,
    registered_ct,
    remedies,
    review,
)
from BrainFusionSlicer.registered_ct import Standing
from BrainFusionSlicer.review import View
from BrainFusionSlicer.watching import changes_of


class ReviewControls:
    """What the buttons of the review and of the verdict's card do; the widget is one of these."""

    def showUnseen(self) -> None:
        """Show the result of a fusion that has not been shown yet, if its pair is chosen and nothing was removed."""
        fused, self._unseen = self._unseen, None
        if fused is not None and self._parameterNode and fused == self.registeredNodes()[0]:
            self.showView(View.FUSED)

    def registeredNodes(self) -> tuple:
        """Return the fused volume whose verdict is shown, the node that shows the CT as registered, and the MRI."""
        parameters = self._parameterNode
        if not parameters or not parameters.ctVolume or not parameters.mriVolume:
            return None, None, None
        fused = panel_state.judged(parameters.fusedVolume, (parameters.ctVolume, parameters.mriVolume))
        registered = parameters.ctVolume if fused is None else ownership.registered_ct_of(fused)
        return fused, registered, parameters.mriVolume

    def onView(self, view: View, on: bool) -> None:
        """A button of the review was clicked; switching one off shows the fused volume, and that one off the CT."""
        if not self._parameterNode or self.logic.running:
            self.updatePanel()
        elif on:
            self.showView(view)
        else:
            has_fused = View.FUSED not in self._state.not_viewable
            self.showView(View.CT if view is View.FUSED or not has_fused else View.FUSED)

    def showView(self, view: View) -> None:
        parameters = self._parameterNode
        ct, mri = parameters.ctVolume, parameters.mriVolume
        if view is not View.UNREGISTERED and self._state.standing is Standing.SHOWN_UNREGISTERED:
            registered_ct.bring_again(ct, mri)
            self._view = View.FUSED
        if view in self._state.not_viewable:
            self.updatePanel()
            return
        if view is View.UNREGISTERED:
            registered_ct.take_back(registered_ct.moved_of_pair(ct, mri), to_look=True)
        self._view = view
        fused, registered, _mri = self.registeredNodes()
        stored = currency.stored_on(fused)
        self._showing = review.showing(
            view,
            fused,
            ct if view is View.UNREGISTERED else registered,
            mri,
            opacity=self.ui.opacitySlider.value,
            scale=None if stored is None else stored.scale,
        )
        self.showNext()
        self.updatePanel()

    def showNext(self) -> None:
        """Do the next step of showing a view; the window gets a turn between two of them."""
        showing = self._showing
        if showing is None:
            return
        try:
            next(showing)
        except StopIteration:
            self._showing = None
        except Exception as error:  # or the next tick would continue something broken
            self._showing = None
            self.say(_("Not shown: {error}").format(error=remedies.phrased(error)))
        else:
            self._showingTimer.start()

    def leaveView(self) -> None:
        """Show something else in the place of a view that does not apply any more."""
        self._view = View.CT if View.CT not in self._state.not_viewable else View.FUSED
        self._showing = None
        fused, registered, _mri = self.registeredNodes()
        review.put_away(registered if self._view is View.CT else fused, registered, slicer.mrmlScene)
        self._state = replace(self._state, view=self._view)

    def putAwayReview(self) -> None:
        """Leave no temporary volume behind."""
        self._showing = None
        fused, registered, _mri = self.registeredNodes()
        if self._view in (View.OUTLINE, View.SQUARES, View.ERROR):
            self._view = View.FUSED
        review.put_away(fused, registered, slicer.mrmlScene)

    def onOpacity(self, opacity: float) -> None:
        if self._parameterNode and View.CT not in self._state.not_viewable and not self.logic.running:
            self.showView(self._view if self._view is View.UNREGISTERED else View.CT)

    def onUndoButton(self, checked: bool = False) -> None:
        parameters = self._parameterNode
        pair, alone = (parameters.ctVolume, parameters.mriVolume), self._state.left_behind
        is_pair, word = None not in pair, self._state.moved
        volume = alone or (registered_ct.moved_of_pair(*pair) if is_pair else None)
        for section in self.sections:  # an adjustment that is going on is a step of its own
            section.put_away()
        step = None if alone or volume is None else pose_history.step_back(volume)
        if step is not None:
            self.say(_("Undone: the {volume} is where it was before {step}.").format(volume=word, step=step))
            return
        why_not, moved = self._state.why_not_moved, 0 if volume is None else registered_ct.moved_with(volume)
        self.putAwayReview()
        self._view = View.FUSED
        if registered_ct.take_back(alone) if alone else is_pair and registered_ct.leave_unregistered(*pair):
            words = [_("Undone: the {volume} is where it was before the registration.").format(volume=word)]
            if moved:
                words.append(_("Moved back with it: {count}.").format(count=moved))
            self.say(" ".join(words))
            return
        count = 0 if alone else registered_ct.take_back_abandoned(*pair)
        if count:
            self.say(_("Moved back what an earlier registration had moved along: {count}.").format(count=count))
        else:
            self.say(why_not or "")

    def sayRemoved(self, node, taken_back) -> None:
        """Say that a node is being removed, and which CT was taken out of it, if one was."""
        words = [_("{name} was removed from the scene.").format(name=node.GetName())]
        if taken_back is not None:
            words.append(_("{ct} is where it was before the registration.").format(ct=taken_back.GetName()))
        parameters = self._parameterNode or self.logic.getParameterNode()
        for volume in (parameters.ctVolume, parameters.mriVolume):
            ours = None if volume is None else registered_ct.result_transform_of(volume)
            if ours is not None and ownership.fixed_of(ours) == node:
                still = _("{volume} is still where it was moved to: Undo moves it back.")
                if not registered_ct.can_be_taken_back(volume):
                    still = _("{volume} is still where it was moved to.")
                words.append(still.format(volume=volume.GetName()))
        self.say(" ".join(words))

    def onJump(self, checked: bool = False) -> None:
        if self._state.jump_mri_mm is not None:
            review.jump_to(bridge.world_from_mri_frame(self._state.jump_mri_mm, self._parameterNode.mriVolume))

    def watch(self, nodes: list) -> None:
        """Have the panel updated when one of these nodes changes, and no others; whether it matters is not asked."""
        self._watched.only(wish for node in nodes for wish in changes_of(node, self.onPairModified))

    def onPairModified(self, caller, event) -> None:
        ct = self.registeredNodes()[1]
        if self._view is View.UNREGISTERED and self._parameterNode:
            ct = self._parameterNode.ctVolume
        if ct is not None and self._view in (View.CT, View.UNREGISTERED):
            review.follow(ct)
        self.updatePanel()
