"""The panel's section *Expected error*: at the cursor, at points, along a line, and as a colour layer."""

from __future__ import annotations

import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _

from BrainFusionSlicer import currency, error_here
from BrainFusionSlicer.review import View
from BrainFusionSlicer.section import Section
from BrainFusionSlicer.watching import Watched

LAYER_OPACITY = 0.4


class ErrorSection(Section):
    """Reads the map of the result that is shown; the user's points are never changed."""

    UI = "SectionError"

    def setup(self) -> None:
        ui = self.panel.ui
        self._found = self._source = self._mri = None
        self._watched = Watched()
        ui.errorPointsSelector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: self.onPoints())
        ui.errorLayerButton.connect("toggled(bool)", self.onLayer)
        scene = slicer.mrmlScene
        # Before the selector hears of it (-10), which would choose a neighbour.
        self.panel.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved, priority=0.0)

    def update(self) -> None:
        ui = self.panel.ui
        why_not = self.read()
        there = self._found is not None
        for widget in (ui.errorPointsSelector, ui.errorLayerButton):
            widget.setEnabled(there)
            widget.setToolTip(why_not or "")
        ui.errorHintLabel.setText(why_not or "")
        ui.errorHintLabel.setVisible(not there)
        if not there:
            error_here.remove_layer(slicer.mrmlScene)
        self._check_layer(error_here.layer_of(slicer.mrmlScene) is not None)
        self.show_cursor()
        self.show_points()
        self.watch()

    def holds(self, view) -> bool:
        return view is not View.ERROR or (self.read() is None and error_here.layer_of(slicer.mrmlScene) is not None)

    def read(self) -> str | None:
        """Take up the map of the result that is shown, or say why there is none."""
        fused, _registered, mri = self.panel.registeredNodes()
        card = self.panel._state.card
        self._mri = mri
        if self.panel.logic.running:
            self._found = self._source = None
            return _("A fusion or an export is running")
        if fused is None or card is None:
            self._found = self._source = None
            return _("Fuse first")
        if card.colour not in ("green", "amber"):
            self._found = self._source = None
            if card.colour == "red":
                return _("The verdict is red: no error is stated")
            return _("What is shown is not what was judged")
        older = currency.why_older(fused, self.panel._parameterNode.ctVolume, mri)
        if older is not None:  # something else was judged since
            self._found = self._source = None
            return older
        names = error_here.decisions.RESULT_ATTRIBUTE, error_here.FRAME_ATTRIBUTE
        source = (*(fused.GetAttribute(name) for name in names), mri.GetID())
        if self._source != source:
            self._source = source
            self._found = error_here.of_result(fused, mri)
        return None if self._found is not None else _("This result has no errors at points")

    # ---- what is shown ----------------------------------------------------------------------------------------------

    def show_cursor(self) -> None:
        label = self.panel.ui.cursorErrorLabel
        position, crosshair = [0.0, 0.0, 0.0], self.crosshair()
        if self._found is None:
            label.setText("")
        elif crosshair is None or not crosshair.GetCursorPositionRAS(position):
            label.setText(_("move the cursor over a slice view"))
        else:
            label.setText(error_here.words_at(self._found, position, self._mri))

    def show_points(self) -> None:
        ui = self.panel.ui
        points = ui.errorPointsSelector.currentNode()
        there = self._found is not None and points is not None
        rows = error_here.rows_of(self._found, points, self._mri) if there else []
        ui.errorPointsLabel.setText("\n".join(rows or [_("no point was placed")]) if there else "")
        ui.errorPointsLabel.setVisible(there)

    def onPoints(self) -> None:
        self.show_points()
        self.watch()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, scene, event, node) -> None:
        if not scene.IsClosing() and node == self.panel.ui.errorPointsSelector.currentNode():
            self.panel.ui.errorPointsSelector.setCurrentNode(None)

    def onLayer(self, on: bool) -> None:
        if self._isShowing:
            return
        if on and self._found is not None:
            self.panel.putAwayReview()
            layer = error_here.make_layer(self._found, self._mri)
            slicer.util.setSliceViewerLayers(background=self._mri, foreground=layer, foregroundOpacity=LAYER_OPACITY)
            self.panel._view = View.ERROR  # and none of the buttons of the review is pressed
        elif not on and self.panel._view is View.ERROR:
            self.panel.showView(View.FUSED)  # which removes the layer
        self.panel.updatePanel()

    def _check_layer(self, on: bool) -> None:
        self._quietly(lambda: self.panel.ui.errorLayerButton.setChecked(on))

    # ---- what is watched --------------------------------------------------------------------------------------------

    def crosshair(self):
        """Return the node that knows where the cursor is."""
        return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")

    def watch(self) -> None:
        """Hear of the cursor and of the chosen points, while there is a map; of nothing else."""
        wanted = []
        if self._found is not None:
            crosshair, points = self.crosshair(), self.panel.ui.errorPointsSelector.currentNode()
            if crosshair is not None:
                wanted.append((crosshair, crosshair.CursorPositionModifiedEvent, self.onCursor))
            if points is not None:
                wanted += [
                    (points, event, self.onPointsModified)
                    for event in (
                        points.PointModifiedEvent,
                        points.PointRemovedEvent,
                        points.PointPositionDefinedEvent,
                        points.PointPositionUndefinedEvent,
                        slicer.vtkMRMLTransformableNode.TransformModifiedEvent,
                    )
                ]
        self._watched.only(wanted)

    def onCursor(self, caller, event) -> None:
        self.show_cursor()

    def onPointsModified(self, caller, event) -> None:
        self.show_points()

    def put_away(self) -> None:
        self._watched.only([])
        error_here.remove_layer(slicer.mrmlScene)
        self._check_layer(False)

    def forget(self) -> None:
        self._watched.only([])
        self._found = self._source = self._mri = None
