"""Poses of a CT that are there already: where it is shown, or what somebody else's transform makes of it."""

from __future__ import annotations

import numpy as np
import slicer
from slicer.i18n import tr as _

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.settings import Side
from BrainFusionLib.transform import AffineTransform, RigidTransform, Transform
from BrainFusionSlicer import bridge, registered_ct

# A matrix with a smaller one flattens the head.
LEAST_DETERMINANT = 1e-9


def shown_pose(
    ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode, reference: Side | None = None
) -> RigidTransform:
    """Return the pose in which a CT is shown on an MRI: maps MRI points to CT points, LPS mm.

    The points are those of the volumes as they are read (`registered_ct.parents_as_read`). It is the identity unless a
    result's transform is over one of them.

    Parameters
    ----------
    ct, mri, reference
        As there.

    Raises
    ------
    GeometryError
        The transform has been given a scale or a shear.
    """
    moves = []
    for volume, read in zip((ct, mri), registered_ct.parents_as_read(ct, mri, reference), strict=True):
        now = volume.GetParentTransformNode()
        if now == read:  # also where that is not linear
            moves.append(np.eye(4))
            continue
        worlds = (bridge.world_ras_from_parent(parent, volume.GetName()) for parent in (now, read))
        shown, before = worlds
        moves.append(shown @ np.linalg.inv(before))
    ct_from_mri = np.linalg.inv(moves[0]) @ moves[1]
    try:
        return RigidTransform(bridge.LPS_FROM_RAS @ ct_from_mri @ bridge.RAS_FROM_LPS)
    except GeometryError as error:
        ours = registered_ct.result_transform_of(ct) or registered_ct.result_transform_of(mri)
        raise GeometryError(
            _(
                "{transform} does not only rotate and shift: it scales or shears, or a transform above it does. The "
                "pose of a head is rigid. Click Undo, or set a rotation and a shift in the Transforms module."
            ).format(transform=ours.GetName())
        ) from error


def pose_from_node(node: slicer.vtkMRMLTransformNode) -> Transform:
    """Return a transform node, CT to MRI, as a pose to check: maps MRI points to CT points, LPS mm.

    Raises
    ------
    GeometryError
        It is not linear, or it is singular.
    """
    if not node.IsTransformToWorldLinear():
        raise GeometryError(
            _("{transform} is not linear: only rigid and affine transforms can be checked.").format(
                transform=node.GetName()
            )
        )
    moved = bridge.mri_from_ct_of(node)
    if abs(float(np.linalg.det(moved[:3, :3]))) < LEAST_DETERMINANT:
        raise GeometryError(_("{transform} cannot be inverted.").format(transform=node.GetName()))
    ct_from_mri = np.linalg.inv(bridge.LPS_FROM_RAS @ moved @ bridge.RAS_FROM_LPS)
    try:
        return RigidTransform(ct_from_mri)
    except GeometryError:
        return AffineTransform(ct_from_mri)
