"""A slice view in Slicer's place mode: a point follows the mouse, and a click makes it one of the list.

As Modules/Loadable/Markups does it: MRMLDM/vtkMRMLMarkupsDisplayableManager.cxx, VTKWidgets/vtkSlicerMarkupsWidget.cxx,
and vtkMRMLMarkupsDisplayNode::UpdateActiveControlPointWorld.
"""

import slicer
import vtk


def add_unplaced(points, label):
    """Add a point without a position; AddNControlPoints of several cannot be called from Python without one."""
    n = points.AddControlPoint(vtk.vtkVector3d(0, 0, 0), label)
    points.UnsetNthControlPointPosition(n)
    return n


class PlaceMode:
    """One view, which hears of the mode of the mouse; `leave` when it is closed."""

    def __init__(self, scene):
        self.scene = scene
        self.interaction, self.selection = (
            scene.GetNodeByID(f"vtkMRML{name}NodeSingleton") for name in ("Interaction", "Selection")
        )
        self._points = None  # the list whose widget was active last
        self._made = None  # the id of the point that follows the mouse, if the widget has made it
        event = self.interaction.InteractionModeChangedEvent
        self._tag = self.interaction.AddObserver(event, lambda caller, event: self.leave())

    def close(self):
        """What the destructor does."""
        self.interaction.RemoveObserver(self._tag)

    def move(self, position):
        """Move the mouse over the view."""
        self._update(position, slicer.vtkMRMLMarkupsNode.PositionPreview)

    def click(self, position):
        """Click where the mouse is; return the list and the number of the point (PlacePoint)."""
        self.move(position)
        points, n = self._update(position, slicer.vtkMRMLMarkupsNode.PositionDefined)
        self._made = None
        if not self.interaction.GetPlaceModePersistence():
            self.interaction.SetCurrentInteractionMode(self.interaction.ViewTransform)
        return points, n

    def leave(self):
        """Take the point away that follows the mouse: it was made for that, or had no position before."""
        n = None if self._points is None else self._preview()
        if n is not None and self._points.GetNthControlPointID(n) == self._made:
            self._points.RemoveNthControlPoint(n)
        elif n is not None:
            self._points.UnsetNthControlPointPosition(n)
        self._points = self._made = None

    def _update(self, position, status):
        assert self.interaction.GetCurrentInteractionMode() == self.interaction.Place
        points = self.scene.GetNodeByID(self.selection.GetActivePlaceNodeID())
        assert points.GetClassName() == self.selection.GetActivePlaceNodeClassName()
        if self._points is not None and self._points != points:
            self.leave()
        self._points = points
        n = self._preview()
        if n is None:
            every = range(points.GetNumberOfControlPoints())
            undefined = points.PositionUndefined
            n = next((n for n in every if points.GetNthControlPointPositionStatus(n) == undefined), None)
        if n is None:
            n = add_unplaced(points, "")
            self._made = points.GetNthControlPointID(n)
        points.SetNthControlPointPositionWorld(n, *position, status)
        return points, n

    def _preview(self):
        points = self._points
        every = range(points.GetNumberOfControlPoints())
        return next((n for n in every if points.GetNthControlPointPositionStatus(n) == points.PositionPreview), None)
