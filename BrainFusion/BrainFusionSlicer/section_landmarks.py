"""The panel's section "Landmarks": the user's own points in both images, and their residuals in the pose shown."""

from __future__ import annotations

import qt
import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _

from BrainFusionLib.landmarks import CAUTION
from BrainFusionLib.quantities import length
from BrainFusionSlicer import landmark_lists, placing, registered_ct, review, verdict_text
from BrainFusionSlicer.registered_ct import Standing
from BrainFusionSlicer.section import Section
from BrainFusionSlicer.watching import Watched


class LandmarksSection(Section):
    """Two point lists are chosen, or placed by turns. They measure the pose, and move nothing."""

    UI = "SectionLandmarks"

    def setup(self) -> None:
        ui = self.panel.ui
        self._watched = Watched()
        self._settled = []  # the points of both lists, as they are shown
        self._shown = []  # where the points of the table's rows are, RAS mm
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self.proceed)
        self._placer = placing.PointPlacer(self._timer.start, self.update)
        self._selectors = (ui.ctPointsSelector, ui.mriPointsSelector)
        for index, selector in enumerate(self._selectors):
            selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node, index=index: self.onChosen(index, node))
        ui.placeButton.connect("toggled(bool)", self.onPlace)
        ui.attachShownButton.connect("clicked(bool)", lambda checked=False: self.attach(keep_in_world=True))
        ui.attachOwnButton.connect("clicked(bool)", lambda checked=False: self.attach(keep_in_world=False))
        ui.landmarksTable.connect("cellClicked(int,int)", self.onCell)
        ui.landmarksTable.setHorizontalHeaderLabels([_("Point"), _("Residual")])
        ui.landmarksCautionLabel.setText(_(CAUTION))
        scene = slicer.mrmlScene
        # Before the selectors hear of it (-10), which would choose a neighbour.
        self.panel.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved, priority=0.0)

    def lists(self) -> list:
        parameters = self.panel._parameterNode
        return landmark_lists.chosen(parameters.parameterNode, *self.pair()) if parameters else [None, None]

    # ---- what is chosen ---------------------------------------------------------------------------------------------

    def onChosen(self, index: int, node) -> None:
        parameters = self.panel._parameterNode
        if self._isShowing or not parameters:
            return
        volume = self.pair()[index]
        if volume is None:
            self.update()
            return
        if node != self.lists()[index]:
            self._placer.end()
            landmark_lists.choose(parameters.parameterNode, index, node, volume)
        self.update()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, scene, event, node) -> None:
        """Choose none where the node is chosen: by itself its selector would choose a neighbour."""
        if scene.IsClosing():
            return
        if node in (*self.lists(), *self.pair()):
            self._placer.end()
        for index, points in enumerate(self.lists()):
            if points is not None and points == node:
                landmark_lists.choose(self.panel._parameterNode.parameterNode, index, None, None)
        self._watched.only([wish for wish in self._watched.wishes if wish[0] != node])
        for selector in self._selectors:
            if selector.currentNode() == node:
                self._quietly(lambda selector=selector: selector.setCurrentNode(None))

    def attach(self, *, keep_in_world: bool) -> None:
        """Put the lists under the transforms of their volumes: a click on one of the two buttons that ask."""
        if landmark_lists.is_misplaced(self.lists(), *self.pair()):
            landmark_lists.attach(self.lists(), *self.pair(), keep_in_world=keep_in_world)
        self.update()

    # ---- placing ----------------------------------------------------------------------------------------------------

    def onPlace(self, on: bool) -> None:
        if self._isShowing:
            return
        if not on:
            self._placer.end()
            self.update()
            return
        panel, (ct, mri) = self.panel, self.pair()
        if ct is None or mri is None or ct == mri or panel.logic.running:
            self.update()
            return
        if panel._state.standing is Standing.SHOWN_UNREGISTERED:
            registered_ct.bring_again(ct, mri)
        for index, volume in enumerate((ct, mri)):
            if self.lists()[index] is None:
                points = placing.new_list(volume, _("{name} landmarks").format(name=volume.GetName()))
                registered_ct.note_companion(volume, points)
                landmark_lists.choose(panel._parameterNode.parameterNode, index, points, volume)
        lists = self.lists()
        if lists[0] != lists[1] and not landmark_lists.is_misplaced(lists, ct, mri):
            panel.putAwayReview()
            self._placer.begin(lists, ct, mri)
        self.update()

    def proceed(self) -> None:
        if self._placer.is_on:  # else the panel may be gone
            self._placer.proceed()
            self.update()

    def onCell(self, row: int, column: int) -> None:
        if row < len(self._shown):
            review.jump_to(self._shown[row])

    # ---- what is shown ----------------------------------------------------------------------------------------------

    def update(self) -> None:
        ui, lists, pair = self.panel.ui, self.lists(), self.pair()
        running = self.panel.logic.running
        if running:
            self._placer.end()
        is_pair = None not in pair and pair[0] != pair[1]
        self._quietly(lambda: self._show_choice(lists))
        for widget in (*self._selectors, ui.placeButton):
            widget.setEnabled(is_pair and not running)
        self._quietly(lambda: ui.placeButton.setChecked(self._placer.is_on))
        ui.placeLabel.setText(self._words_of_turn())
        ui.placeLabel.setVisible(self._placer.is_on)
        misplaced = landmark_lists.is_misplaced(lists, *pair)
        for button in (ui.attachShownButton, ui.attachOwnButton):
            button.setVisible(misplaced)
            button.setEnabled(not running)
        self._settled = _settled(lists)
        self._show_residuals(lists, pair)
        nodes = {node.GetID(): node for node in lists if node is not None}.values()
        self._watched.only((node, event, call) for node in nodes for event, call in self._events_of(node))

    def put_away(self) -> None:
        self._placer.end()
        self._watched.only([])

    def forget(self) -> None:
        self._placer.forget()
        self._watched.only([])

    def _events_of(self, points) -> list:
        changed = (
            points.PointModifiedEvent,
            points.PointRemovedEvent,
            points.PointPositionDefinedEvent,
            points.PointPositionUndefinedEvent,
        )
        moved = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        return [*((event, self.onPointsModified) for event in changed), (moved, self.onPointsMoved)]

    def onPointsModified(self, caller, event) -> None:
        if self._settled == _settled(self.lists()):  # in place mode, sent at every move of the mouse
            return
        self.panel.updatePanel()  # the registration may start from them

    def onPointsMoved(self, caller, event) -> None:
        self.update()

    def _show_choice(self, lists) -> None:
        for selector, points in zip(self._selectors, lists, strict=True):
            if selector.currentNode() != points:
                selector.setCurrentNode(points)

    def _show_residuals(self, lists, pair) -> None:
        ui = self.panel.ui
        reason = landmark_lists.why_not(lists, *pair)
        unregistered = self.panel._state.standing is Standing.SHOWN_UNREGISTERED
        if reason is None and unregistered:
            reason = _("Switch off Show unregistered {volume} to see the residuals.").format(
                volume=self.panel._state.moved
            )
        errors = None if reason is not None else landmark_lists.residuals(lists, *pair)
        words = (
            [reason]
            if errors is None
            else [*_words_of(errors, landmark_lists.left_out(lists)), self._uncounted(errors)]
        )
        ui.landmarksLabel.setText(" ".join(filter(None, words)))
        ui.landmarksTable.setVisible(errors is not None)
        ui.landmarksCautionLabel.setVisible(errors is not None)
        points = [] if errors is None else sorted(errors.points, key=lambda point: -point.residual_mm)
        self._shown = [tuple(float(mm) for mm in point.mri_lps_mm * (-1, -1, 1)) for point in points]
        ui.landmarksTable.setRowCount(len(points))
        for row, point in enumerate(points):
            for column, text in enumerate((point.name, length(point.residual_mm))):
                ui.landmarksTable.setItem(row, column, qt.QTableWidgetItem(text))

    def _uncounted(self, errors) -> str:
        """Say that the verdict shown was given without these points, or when they were elsewhere, or return nothing."""
        card = self.panel._state.card
        if card is None or card.colour in ("none", "stale") or verdict_text.counts(card, errors):
            return ""
        return _("The verdict does not count these points as they are now: click Check.")

    def _words_of_turn(self) -> str:
        turn = self._placer.turn
        if turn is None:
            return ""
        volume = self.pair()[turn.image]
        name = "" if volume is None else volume.GetName()
        if turn.partner_ras_mm is None:
            words = _("Point {number}: click an anatomical point on {image}, in any slice view.")
        else:
            words = _("Point {number}: click the same point on {image}; the views show where it is expected.")
        return words.format(number=turn.number, image=name)


def _settled(lists) -> list:
    return [None if points is None else landmark_lists.settled(points) for points in lists]


def _words_of(errors, left_out: int) -> list[str]:
    words = [
        _("{count} points in the pose shown: median {median}, worst {worst} ({name}).").format(
            count=len(errors.points),
            median=length(errors.median_mm),
            worst=length(errors.worst_mm),
            name=errors.worst.name,
        )
    ]
    if left_out:
        words.append(_("Left out, without a position or a partner: {count}.").format(count=left_out))
    return words
