"""Which nodes are outputs, and of which CT and MRI; `permission` says which nodes the module may write.

An output carries a mark (an attribute) and references to its two inputs. What a selector shows is never a permission:
Slicer's selectors move to a neighbour by themselves when their node is removed.
"""

from __future__ import annotations

from collections.abc import Iterator

import slicer

from BrainFusionLib.settings import Side

# References from an output to the inputs that it was made of.
MOVED_CT_ROLE = "BrainFusion.CT"
TARGET_MRI_ROLE = "BrainFusion.MRI"
INPUT_ROLES = (MOVED_CT_ROLE, TARGET_MRI_ROLE)
# A reference from a fused volume to what shows the CT as registered: the CT, or, where it is under a transform that is
# not linear and so could not be moved, a resampled one.
REGISTERED_CT_ROLE = "BrainFusion.RegisteredCT"
# The mark: the output's role, and a reference of the node to itself. A scene that is imported gives nodes other ids and
# keeps references; the reference of a copy is to the original: it is the user's.
OUTPUT_ATTRIBUTE = "BrainFusion.Output"
SELF_ROLE = "BrainFusion.Self"

# Of Slicer, on a volume that was loaded from DICOM: its files.
DICOM_ATTRIBUTE = "DICOM.instanceUIDs"
# On the temporary volumes of the review.
REVIEW_ATTRIBUTE = "BrainFusion.Review"

FUSED, TRANSFORM, ALPHA, RESAMPLED_CT, BONE = "fused", "transform", "alpha", "ct", "bone"
RESAMPLED_MRI = "mri"
CLASSES = {
    FUSED: "vtkMRMLScalarVolumeNode",
    TRANSFORM: "vtkMRMLLinearTransformNode",
    ALPHA: "vtkMRMLScalarVolumeNode",
    RESAMPLED_CT: "vtkMRMLScalarVolumeNode",
    BONE: "vtkMRMLSegmentationNode",
    RESAMPLED_MRI: "vtkMRMLScalarVolumeNode",
}
# On an output in the CT's frame, where the MRI is moved onto the CT: whose frame it is.
REFERENCE_ATTRIBUTE = "BrainFusion.Reference"
# On the transform of a result that another one of its pair has replaced.
REPLACED_ATTRIBUTE = "BrainFusion.Replaced"
# On a fused volume that is not on the MRI's grid: which one it is on.
GRID_ATTRIBUTE = "BrainFusion.OutputGrid"


def nodes_of(scene: slicer.vtkMRMLScene, kind: str = "vtkMRMLNode") -> list:
    """Return the nodes of a class. GetNthNodeByClass counts from the first node for each: seconds in a large scene."""
    found = scene.GetNodesByClass(kind)
    found.UnRegister(None)
    return list(found)


def mark(
    node: slicer.vtkMRMLNode, role: str, ct: slicer.vtkMRMLNode, mri: slicer.vtkMRMLNode, reference: Side = "mri"
) -> None:
    """Note on a node that it is an output of a CT and an MRI, in the frame of one of them."""
    if not is_output_of(node, ct, mri):
        _part_from_file(node)
    node.SetAttribute(OUTPUT_ATTRIBUTE, role)
    node.SetNodeReferenceID(SELF_ROLE, node.GetID())
    node.SetNodeReferenceID(MOVED_CT_ROLE, ct.GetID())
    node.SetNodeReferenceID(TARGET_MRI_ROLE, mri.GetID())
    node.SetAttribute(REFERENCE_ATTRIBUTE, None if reference == "mri" else reference)


def reference_of(output: slicer.vtkMRMLNode) -> Side:
    """Return in whose frame an output is; the other volume is the one that was moved."""
    return "ct" if output.GetAttribute(REFERENCE_ATTRIBUTE) == "ct" else "mri"


def moved_role(output: slicer.vtkMRMLNode) -> str:
    """Return the role of an output's reference to the volume that was moved."""
    return TARGET_MRI_ROLE if reference_of(output) == "ct" else MOVED_CT_ROLE


def moved_of(output: slicer.vtkMRMLNode) -> slicer.vtkMRMLNode | None:
    """Return the volume that was moved: the CT, unless the output is in the CT's frame."""
    return output.GetNodeReference(moved_role(output))


def fixed_of(output: slicer.vtkMRMLNode) -> slicer.vtkMRMLNode | None:
    """Return the volume in whose frame an output is."""
    return output.GetNodeReference(MOVED_CT_ROLE if reference_of(output) == "ct" else TARGET_MRI_ROLE)


def _part_from_file(node: slicer.vtkMRMLNode) -> None:
    """Make a node forget the file that it was loaded from, which saving the scene would overwrite."""
    storage = node.GetStorageNode()
    if storage is not None:
        node.GetScene().RemoveNode(storage)
    node.RemoveAttribute(DICOM_ATTRIBUTE)


def note_registered_ct(fused: slicer.vtkMRMLNode, ct: slicer.vtkMRMLNode) -> None:
    """Note on a fused volume which node shows the CT as registered."""
    fused.SetNodeReferenceID(REGISTERED_CT_ROLE, ct.GetID())


def registered_ct_of(fused: slicer.vtkMRMLNode | None) -> slicer.vtkMRMLNode | None:
    """Return the node that shows the CT of a fused volume as registered; None if it was removed."""
    return None if fused is None else fused.GetNodeReference(REGISTERED_CT_ROLE)


def role_of(node: slicer.vtkMRMLNode) -> str | None:
    """Return which output of this module a node is, or None for the user's own and for copies of outputs.

    A transform that was hardened with one that is not linear is the user's by then: a pose is a matrix.
    """
    role: str | None = node.GetAttribute(OUTPUT_ATTRIBUTE)
    if role == TRANSFORM and not node.IsLinear():
        return None
    return role if role and node.GetNodeReferenceID(SELF_ROLE) == node.GetID() else None


# Of a temporary volume that no slice view shows: the review leaves it alone.
THREE_D_ROLE = "3D"


def mark_for_review(node: slicer.vtkMRMLNode, view: str) -> None:
    """Note on a node that it is a temporary volume of the review."""
    node.SetAttribute(REVIEW_ATTRIBUTE, view)


def review_role_of(node: slicer.vtkMRMLNode) -> str | None:
    """Return the view that a temporary volume of the review belongs to, or None for all other nodes."""
    return node.GetAttribute(REVIEW_ATTRIBUTE)


def remove(*nodes: slicer.vtkMRMLNode | None) -> None:
    """Remove nodes of the module's own that are still in a scene.

    With a node its display nodes may go already: Slicer's Data module removes those that nothing else refers to.
    """
    for node in nodes:
        if node is not None and node.GetScene() is not None:
            node.GetScene().RemoveNode(node)


def is_made_here(node: slicer.vtkMRMLNode) -> bool:
    """Say whether a node is an output of any pair, or a temporary volume."""
    return role_of(node) is not None or review_role_of(node) is not None


def is_output_of(node: slicer.vtkMRMLNode, ct: slicer.vtkMRMLNode | None, mri: slicer.vtkMRMLNode | None) -> bool:
    """Say whether a node is an output of this very pair."""
    return (
        ct is not None
        and mri is not None
        and role_of(node) is not None
        and node.GetNodeReferenceID(MOVED_CT_ROLE) == ct.GetID()
        and node.GetNodeReferenceID(TARGET_MRI_ROLE) == mri.GetID()
    )


def find_output(role: str, ct: slicer.vtkMRMLNode | None, mri: slicer.vtkMRMLNode | None) -> slicer.vtkMRMLNode | None:
    """Return the newest output of a pair in a role, or None; a transform that was replaced is none."""
    found = (node for node in _outputs(role, ct, mri) if not node.GetAttribute(REPLACED_ATTRIBUTE))
    return next(found, None)


def find_transform(
    ct: slicer.vtkMRMLNode, mri: slicer.vtkMRMLNode, reference: Side
) -> slicer.vtkMRMLLinearTransformNode | None:
    """Return the last transform of a pair that moves one of the two onto the other, replaced or not."""
    found = [node for node in _outputs(TRANSFORM, ct, mri) if reference_of(node) == reference]
    found.sort(key=lambda node: bool(node.GetAttribute(REPLACED_ATTRIBUTE)))  # the one in force first
    return found[0] if found else None


def note_in_force(transform: slicer.vtkMRMLLinearTransformNode) -> None:
    """Note that a transform is that of the last result of its pair, and that all others are not."""
    ct, mri = (transform.GetNodeReference(role) for role in INPUT_ROLES)
    for one in _outputs(TRANSFORM, ct, mri):
        one.SetAttribute(REPLACED_ATTRIBUTE, None if one == transform else "true")


def _outputs(role: str, ct: slicer.vtkMRMLNode | None, mri: slicer.vtkMRMLNode | None) -> Iterator[slicer.vtkMRMLNode]:
    """Yield the outputs of a pair in a role, the newest first."""
    if ct is None or mri is None:
        return
    for node in reversed(nodes_of(ct.GetScene(), CLASSES[role])):
        if role_of(node) == role and is_output_of(node, ct, mri):
            yield node
