"""What leaves for an archive (PACS): why it should not without a second press, and the pose that goes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _

from BrainFusionLib.case.leaving import joined
from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import RAS_FROM_LPS, Grid
from BrainFusionLib.io.dicom_attributes import Doubt
from BrainFusionLib.transform import AffineTransform, RigidTransform, Transform
from BrainFusionSlicer import bridge, currency, decisions, ownership, registered_ct
from BrainFusionSlicer.fingerprint import has_voxels
from BrainFusionSlicer.registered_ct import Standing
from BrainFusionSlicer.verdict_text import Card

# Where the CT is moved as it was registered, or was never moved.
_AS_REGISTERED = (Standing.REGISTERED, Standing.HOMELESS, Standing.NOT_MOVED)


def doubt_of(fusedNode: slicer.vtkMRMLScalarVolumeNode | None) -> Doubt | None:
    """Return why a fused volume should not leave without a second decision; None if it may.

    It is red, by its own verdict or by a later check of its pose; it was changed since it was judged, it was rejected,
    or it has no verdict.
    """
    ct, mri = (None if fusedNode is None else fusedNode.GetNodeReference(role) for role in ownership.INPUT_ROLES)
    if ct is None or mri is None:
        return None
    stored = currency.stored_on(fusedNode)
    if stored is None:
        return Doubt("NO VERDICT", "the fused volume has no verdict")
    changes = currency.changes_of_result(fusedNode, ct, mri)
    later = None if changes else decisions.later_card(fusedNode, ct, mri)
    red = next((card for card in (stored.card, later) if card is not None and card.colour == "red"), None)
    return joined(
        [
            None if red is None else Doubt("RED", f"the verdict on the alignment is red: {_first_of(red)}"),
            Doubt("STALE", f"changed since it was judged: {' '.join(changes).rstrip('.')}") if changes else None,
            Doubt("REJECTED", "the result was rejected") if decisions.is_rejected(fusedNode) else None,
        ]
    )


def _first_of(card: Card) -> str:
    return card.findings[0].rstrip(".") if card.findings else card.heading


class SecondPress:
    """Lets what is in doubt go at the second press only: the first one says why."""

    def __init__(self) -> None:
        self._said: tuple[str, str] | None = None

    def why_not(self, what: str, doubt: Doubt | None) -> str | None:
        """Return what to say in the place of doing it, or None if it may be done.

        Parameters
        ----------
        what
            What was pressed, so that another button does not count as the second press.
        doubt
            As `doubt_of` has it now: a new one has to be read first.
        """
        asked = None if doubt is None else (what, doubt.text)
        if asked is None or asked == self._said:
            self._said = None
            return None
        self._said = asked
        text = doubt.text[:1].upper() + doubt.text[1:] if doubt is not None else ""
        return _("{reason}. Click again to export it nevertheless; each object then says it of itself.").format(
            reason=text
        )

    def forget(self) -> None:
        """Ask again: something else was chosen."""
        self._said = None


def pose_of(fusedNode: slicer.vtkMRMLScalarVolumeNode | None) -> Transform | None:
    """Return the pose in the frames of the two files: maps MRI points to CT points, LPS mm.

    The transforms that both are under in the scene are taken out of it. None if the CT (or the MRI) is not where the
    registration moved it, or is under a transform that is not linear (a tilted gantry).
    """
    ct, mri = (None if fusedNode is None else fusedNode.GetNodeReference(role) for role in ownership.INPUT_ROLES)
    if ct is None or mri is None or registered_ct.standing_of(ct, mri) not in _AS_REGISTERED:
        return None
    parents = ct.GetParentTransformNode(), mri.GetParentTransformNode()
    if not all(parent is None or parent.IsTransformToWorldLinear() for parent in parents):
        return None
    world_from_ct, world_from_mri = (bridge.world_ras_from_parent(parent, "") for parent in parents)
    matrix = RAS_FROM_LPS @ np.linalg.inv(world_from_ct) @ world_from_mri @ RAS_FROM_LPS
    try:
        return RigidTransform(matrix)
    except GeometryError:
        return AffineTransform(matrix)


def file_of(node: slicer.vtkMRMLScalarVolumeNode | None) -> str | None:
    """Return the file that a volume was loaded from or saved to; None if there is none."""
    storage = None if node is None else node.GetStorageNode()
    return None if storage is None else storage.GetFileName()


def folder_beside(node: slicer.vtkMRMLScalarVolumeNode | None) -> Path:
    """Return where a dialog is to begin: beside a volume's file, or in the user's folder; by itself in Slicer's own."""
    beside = Path(file_of(node) or "").parent
    return beside if beside.is_absolute() and beside.is_dir() else Path.home()


def own_grid(node: slicer.vtkMRMLScalarVolumeNode) -> Grid | None:
    """Return the grid of a volume in its file's frame, LPS mm; None if it has none, or a sheared one."""
    if not has_voxels(node):
        return None
    lps_from_ijk = RAS_FROM_LPS @ _array_of_ijk_to_ras(node)
    try:
        return Grid.from_lps_from_ijk(lps_from_ijk, node.GetImageData().GetDimensions())
    except GeometryError:
        return None


def _array_of_ijk_to_ras(node: slicer.vtkMRMLScalarVolumeNode) -> Any:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)
