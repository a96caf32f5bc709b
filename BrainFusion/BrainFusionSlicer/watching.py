"""Hearing of the changes of the user's nodes, without keeping the nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import slicer
import vtk

# A node, an event of it, and what is called with both.
Wish = tuple[Any, Any, Callable[[Any, Any], None]]


class Watched:
    """The observers of some nodes, changed as a whole.

    In the place of slicer.util.VTKObservationMixin, which keeps every node that it ever observed: the voxels of volumes
    of scenes that were closed long ago, too.
    """

    def __init__(self) -> None:
        self.wishes: list[Wish] = []
        self._tags: list[int] = []

    def only(self, wishes: Iterable[Wish]) -> None:
        """Call these functions for these events of these nodes, and no others."""
        wished = list(wishes)
        if wished == self.wishes:
            return
        for (node, _event, _call), tag in zip(self.wishes, self._tags, strict=True):
            node.RemoveObserver(tag)
        self.wishes = wished
        self._tags = [node.AddObserver(event, call) for node, event, call in wished]


def changes_of(node: slicer.vtkMRMLTransformableNode, call: Callable[[Any, Any], None]) -> list[Wish]:
    """Return wishes to hear of whatever may change what a node holds or where it is.

    What changes the voxels of a volume in their place may tell of it by ImageDataModifiedEvent alone.
    """
    events = (
        vtk.vtkCommand.ModifiedEvent,
        slicer.vtkMRMLScalarVolumeNode.ImageDataModifiedEvent,
        slicer.vtkMRMLTransformableNode.TransformModifiedEvent,
    )
    return [(node, event, call) for event in events]
