"""Placing landmarks by turns: a point on the MRI, then the same one on the CT, which the views jump to.

Slicer's own place mode is used, for one point at a time. What the slice views showed, and the mode of the mouse, are
put back at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import slicer
import slicer.util

from BrainFusionSlicer import bridge, landmark_lists, review

CT, MRI = 0, 1
INTERACTION_ID, SELECTION_ID = "vtkMRMLInteractionNodeSingleton", "vtkMRMLSelectionNodeSingleton"


@dataclass(frozen=True)
class Turn:
    """What is to be placed next.

    image - On the CT (0) or on the MRI (1).
    label - The label of its partner, or empty for the first point of a pair.
    partner_ras_mm - Where its partner is shown, or None.
    number - How many pairs are there, and one.
    """

    image: int
    label: str
    partner_ras_mm: tuple[float, ...] | None
    number: int


def next_turn(lists) -> Turn:
    """Return what is to be placed next: the partner of a point that has none, or else a new point on the MRI."""
    placed = [_placed(points) for points in lists]
    labels = [{label for _index, label in those} for those in placed]
    are_named = all(len(named) == len(those) and "" not in named for named, those in zip(labels, placed, strict=True))
    pairs = min(len(those) for those in placed)
    for image, other in ((CT, MRI), (MRI, CT)):
        alone = [(n, label) for n, label in placed[other] if label not in labels[image]]
        if are_named and alone:
            index, label = alone[0]
        elif not are_named and len(placed[other]) > len(placed[image]):
            index, label = placed[other][len(placed[image])]
        else:
            continue
        position = tuple(lists[other].GetNthControlPointPositionWorld(index))
        return Turn(image, label, position, pairs + 1)
    return Turn(MRI, "", None, pairs + 1)


class PointPlacer:
    """Has the user place pairs of points until `end`.

    :param later: calls `proceed` when the event that is being handled is over
    :param changed: called when something has changed that is to be shown
    """

    def __init__(self, later: Callable[[], None], changed: Callable[[], None]) -> None:
        self._later, self._changed = later, changed
        self._volumes: tuple = (None, None)
        self._lists: tuple = (None, None)
        self._tags: list = []
        self._views: list = []
        self._mouse: tuple | None = None
        self._known: list[set[str]] = [set(), set()]
        self._users: list[set[str]] = [set(), set()]  # the points that are named already, placed or not
        self.turn: Turn | None = None

    @property
    def is_on(self) -> bool:
        """Whether points are being placed."""
        return self.turn is not None

    def begin(self, lists, ct, mri) -> None:
        """Begin: show the image of the next point alone, and switch to Slicer's place mode."""
        self.end()
        scene = ct.GetScene()
        interaction, selection = (scene.GetNodeByID(node_id) for node_id in (INTERACTION_ID, SELECTION_ID))
        if interaction is None or selection is None:  # no application
            return
        self._lists, self._volumes = tuple(lists), (ct, mri)
        self._mouse = (
            interaction.GetCurrentInteractionMode(),
            interaction.GetPlaceModePersistence(),
            selection.GetActivePlaceNodeClassName(),
            selection.GetActivePlaceNodeID(),
        )
        self._views = [
            (view, view.GetBackgroundVolumeID(), view.GetForegroundVolumeID(), view.GetForegroundOpacity())
            for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        ]
        self._known = [set(_ids(points)) for points in lists]
        self._users = [_ids_of_settled(points) for points in lists]
        for points in lists:
            self._observe(points, points.PointPositionDefinedEvent)
        self._observe(interaction, interaction.InteractionModeChangedEvent)
        self._take_turn()

    def end(self) -> None:
        """End: put back what the views showed, and the mode of the mouse."""
        if self.turn is not None:
            self.forget(self._volumes[0].GetScene() or slicer.mrmlScene)

    def forget(self, scene=None) -> None:
        """Let go of all nodes; put things back only in the scene that is given."""
        self.turn = None
        for node, tag in self._tags:
            node.RemoveObserver(tag)
        mouse, views = self._mouse, self._views
        self._tags, self._views, self._mouse = [], [], None
        self._lists, self._volumes = (None, None), (None, None)
        if not scene or mouse is None:
            return
        interaction, selection = (scene.GetNodeByID(node_id) for node_id in (INTERACTION_ID, SELECTION_ID))
        if interaction is not None:
            # At each change of the mode the views take away the point that follows the mouse: also where the user was
            # placing points of his own before, and resumes that (vtkMRMLMarkupsDisplayableManager).
            interaction.SetCurrentInteractionMode(interaction.ViewTransform)
        if selection is not None:
            selection.SetReferenceActivePlaceNodeClassName(mouse[2])
            selection.SetReferenceActivePlaceNodeID(_there(scene, mouse[3]))
        if interaction is not None:
            interaction.SetPlaceModePersistence(mouse[1])
            interaction.SetCurrentInteractionMode(mouse[0])
        for view, background, foreground, opacity in views:
            if view.GetScene() is None:
                continue
            with slicer.util.NodeModify(view):
                view.SetBackgroundVolumeID(_there(scene, background))
                view.SetForegroundVolumeID(_there(scene, foreground))
                view.SetForegroundOpacity(opacity)

    def proceed(self) -> None:
        """Take the next turn after a point was placed; end if the user has left the place mode without one."""
        if self.turn is None:
            return
        gone = any(node.GetScene() is None for node in (*self._lists, *self._volumes))
        if not gone and self._name_new_points():
            self._take_turn()
        elif gone or not self._is_placing():
            self.end()
        self._changed()

    def _observe(self, node, event) -> None:
        self._tags.append((node, node.AddObserver(event, lambda caller, event: self._later())))

    def _is_placing(self) -> bool:
        interaction = self._volumes[0].GetScene().GetNodeByID(INTERACTION_ID)
        return interaction is not None and interaction.GetCurrentInteractionMode() == interaction.Place

    def _name_new_points(self) -> bool:
        """Give the point that was placed the label of its partner; say whether there are new points."""
        assert self.turn is not None
        found = False
        for image, points in enumerate(self._lists):
            new = [(n, name) for n, name in _ids_of_placed(points) if name not in self._known[image]]
            # The place mode fills a point that was left without a position before it makes a new one.
            nameless = [n for n, name in new if name not in self._users[image]]
            if nameless and image == self.turn.image and self.turn.label:
                points.SetNthControlPointLabel(nameless[0], self.turn.label)
            self._known[image].update(name for _n, name in new)
            found = found or bool(new)
        return found

    def _take_turn(self) -> None:
        self.turn = next_turn(self._lists)
        scene = self._volumes[0].GetScene()
        slicer.util.setSliceViewerLayers(background=self._volumes[self.turn.image], foreground=None)
        if self.turn.partner_ras_mm is not None:
            review.jump_to(self.turn.partner_ras_mm)
        points = self._lists[self.turn.image]
        selection, interaction = (scene.GetNodeByID(node_id) for node_id in (SELECTION_ID, INTERACTION_ID))
        selection.SetReferenceActivePlaceNodeClassName(points.GetClassName())
        selection.SetReferenceActivePlaceNodeID(points.GetID())
        interaction.SetPlaceModePersistence(0)
        interaction.SetCurrentInteractionMode(interaction.Place)


@contextmanager
def active_list_kept(scene) -> Iterator[None]:
    """Leave the list in which the mouse places points as it is, while markups are added that are not to be that list.

    Slicer makes every one that is added the active one: vtkSlicerMarkupsLogic::OnMRMLSceneNodeAdded.
    """
    selection = scene.GetNodeByID(SELECTION_ID)
    before = None if selection is None else (selection.GetActivePlaceNodeClassName(), selection.GetActivePlaceNodeID())
    try:
        yield
    finally:
        if before is not None and selection.GetScene() is not None:
            selection.SetReferenceActivePlaceNodeClassName(before[0])
            selection.SetReferenceActivePlaceNodeID(_there(scene, before[1]))


def new_list(volume, name: str):
    """Add an empty point list to the scene, under the transform of a volume and beside it in the data tree."""
    scene = volume.GetScene()
    with active_list_kept(scene):
        points = scene.AddNewNodeByClass(landmark_lists.LIST_CLASS, name)
    points.CreateDefaultDisplayNodes()
    points.SetControlPointLabelFormat("%d")
    parent = volume.GetParentTransformNode()
    points.SetAndObserveTransformNodeID(None if parent is None else parent.GetID())
    bridge.share_place(points, volume)
    return points


def _placed(points) -> list[tuple[int, str]]:
    return [(n, point.label) for n, point in enumerate(landmark_lists.marked(points)) if point.lps_mm is not None]


def _ids(points) -> list[str]:
    return [name for _n, name in _ids_of_placed(points)]


def _ids_of_placed(points) -> list[tuple[int, str]]:
    return [(n, points.GetNthControlPointID(n)) for n, _label in _placed(points)]


def _ids_of_settled(points) -> set[str]:
    numbers = range(points.GetNumberOfControlPoints())
    preview = points.PositionPreview
    return {points.GetNthControlPointID(n) for n in numbers if points.GetNthControlPointPositionStatus(n) != preview}


def _there(scene, node_id):
    return node_id if node_id and scene.GetNodeByID(node_id) is not None else None
