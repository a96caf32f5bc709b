"""Whether a verdict is still about what is in the scene: it belongs to a CT, an MRI, their poses and their voxels.

It is stored on the fused volume, with the fingerprints of the two, and so is saved with the scene.
"""

# No `from __future__ import annotations`: see `jobs`.

import json
from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

from BrainFusionLib.case import from_document, to_document
from BrainFusionLib.errors import BrainFusionError
from BrainFusionSlicer.fingerprint import Fingerprint, fingerprint_of, is_same_place

VERDICT_ATTRIBUTE = "BrainFusion.Verdict"


@dataclass(frozen=True)
class StoredVerdict:
    """A verdict, and what it is about.

    colour - Its colour.
    html - Its words, as the panel shows them.
    worst_lps_mm - The point of the largest misalignment, where it was measured.
    ct, mri - The fingerprints of the pair as it was judged: the CT where the result put it.
    """

    colour: str
    html: str
    worst_lps_mm: tuple[float, ...] | None
    ct: Fingerprint
    mri: Fingerprint


def store(node: slicer.vtkMRMLNode, verdict: StoredVerdict) -> None:
    """Keep a verdict on an output node."""
    node.SetAttribute(VERDICT_ATTRIBUTE, json.dumps(to_document(verdict)))


def stored_on(node: slicer.vtkMRMLNode | None) -> StoredVerdict | None:
    """Return the verdict that is kept on a node, or None."""
    text = None if node is None else node.GetAttribute(VERDICT_ATTRIBUTE)
    if not text:
        return None
    try:
        return from_document(json.loads(text), StoredVerdict)
    except (ValueError, BrainFusionError):  # of another version, or broken
        return None


def changes_of(name: str, before: Fingerprint, now: Fingerprint) -> list[str]:
    """Say in sentences how a volume differs from what it was; the list is empty if it does not."""
    changes = []
    if before.voxels != now.voxels:
        changes.append(_("The voxels of {name} were changed.").format(name=name))
    if not is_same_place(before.own_mm, now.own_mm):
        changes.append(_("The geometry of {name} was changed, or its transform was hardened.").format(name=name))
    elif not is_same_place(before.world_mm, now.world_mm):
        changes.append(_("{name} was moved.").format(name=name))
    return changes


def changes_since(
    verdict: StoredVerdict, ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode
) -> list[str]:
    """Say in sentences what of a pair has changed since it was judged; the list is empty if nothing has."""
    changes = []
    for node, before in ((ct, verdict.ct), (mri, verdict.mri)):
        if node.GetImageData() is None or node.GetImageData().GetNumberOfPoints() == 0:
            changes.append(_("{name} has no voxels any more.").format(name=node.GetName()))
        else:
            changes += changes_of(node.GetName(), before, fingerprint_of(node))
    return changes
