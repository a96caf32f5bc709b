"""What may be written: outputs of this CT and this MRI as the module left them, and what the user allowed by hand.

An output that was approved, or whose voxels somebody has changed since, is kept: the panel makes a new one then.
"""

from __future__ import annotations

from collections.abc import Iterable

import slicer
import slicer.util
from slicer.i18n import tr as _

from BrainFusionLib.errors import Remedy, SettingsError
from BrainFusionSlicer import currency, decisions, ownership


def why_kept(node: slicer.vtkMRMLNode) -> str:
    """Say why an output is the user's by now, and a new one is to be made in its place; nothing if it is not."""
    if currency.is_edited(node):
        return _("{name} was changed since it was made").format(name=node.GetName())
    if currency.is_reshaped(node):
        return _("{name} was hardened or given another geometry since it was made").format(name=node.GetName())
    if ownership.role_of(node) == ownership.FUSED and decisions.state_of(node) == "approved":
        return _("{name} was approved").format(name=node.GetName())
    if _belongs_to_an_approved_one(node):
        return _("{name} belongs to a fused volume that was approved").format(name=node.GetName())
    return ""


def _belongs_to_an_approved_one(node: slicer.vtkMRMLNode) -> bool:
    """Whether an output shows the CT of an approved fused volume, and would be exported beside it."""
    fused = slicer.util.getNodesByClass(ownership.CLASSES[ownership.FUSED]) if ownership.role_of(node) else ()
    return any(
        ownership.role_of(one) == ownership.FUSED
        and ownership.registered_ct_of(one) == node
        and decisions.state_of(one) == "approved"
        for one in fused
    )


def _why_not_written(node: slicer.vtkMRMLNode, ct: slicer.vtkMRMLNode | None, mri: slicer.vtkMRMLNode | None) -> str:
    if ownership.is_output_of(node, ct, mri):
        return why_kept(node)
    return _("{name} is not an output of this CT and this MRI").format(name=node.GetName())


def not_writable(
    outputs: Iterable[slicer.vtkMRMLNode],
    ct: slicer.vtkMRMLNode | None,
    mri: slicer.vtkMRMLNode | None,
    overwrite: Iterable[slicer.vtkMRMLNode] = (),
) -> list[slicer.vtkMRMLNode]:
    """Return those of the chosen outputs that must not be written.

    Parameters
    ----------
    outputs
        Nodes that were chosen.
    ct, mri
        The pair that they are chosen for.
    overwrite
        Nodes that the user allowed to be overwritten.
    """
    allowed = {node.GetID() for node in overwrite}
    return [node for node in outputs if node.GetID() not in allowed and _why_not_written(node, ct, mri)]


def require_permission(
    outputs: Iterable[slicer.vtkMRMLNode],
    ct: slicer.vtkMRMLNode,
    mri: slicer.vtkMRMLNode,
    overwrite: Iterable[slicer.vtkMRMLNode],
) -> None:
    """Refuse to write a node that is neither an output of the pair nor allowed.

    Raises
    ------
    SettingsError
        There is such a node; names the first.
    """
    for node in not_writable(outputs, ct, mri, overwrite):
        reason = _why_not_written(node, ct, mri)
        raise SettingsError(f"{reason}, and would be overwritten.", remedy=Remedy.ALLOW_OVERWRITE)


class Permissions:
    """What the user allowed to be overwritten by the next fusion: nodes with what they hold now, not with more."""

    def __init__(self) -> None:
        self._given: dict[str, tuple[slicer.vtkMRMLNode, object]] = {}

    def give(self, node: slicer.vtkMRMLNode) -> None:
        """Allow that a node is overwritten."""
        self._given[node.GetID()] = (node, content_of(node))

    def withdraw(self, node: slicer.vtkMRMLNode) -> None:
        """Allow it no more."""
        self._given.pop(node.GetID(), None)

    def clear(self) -> None:
        """Allow nothing."""
        self._given.clear()

    def nodes(self) -> list[slicer.vtkMRMLNode]:
        """Return the nodes that may be overwritten; not those that something else was written into since."""
        return [node for node, content in self._given.values() if node.GetScene() and content_of(node) == content]


def content_of(node: slicer.vtkMRMLNode) -> object:
    """Return what can be compared in the place of what a volume or a linear transform holds."""
    if node.IsA("vtkMRMLVolumeNode"):
        image = node.GetImageData()
        return None if image is None else image.GetMTime()
    if not node.IsLinear():  # hardened with one that is not: it has no matrix any more
        return node.GetTransformToParent().GetMTime()
    return tuple(slicer.util.arrayFromTransformMatrix(node).ravel())
