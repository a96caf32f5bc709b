"""Whether a verdict is still about what is in the scene: it belongs to a CT, an MRI, their poses and their voxels.

It is stored on the fused volume, with the fingerprints of the two, and so is saved with the scene.
"""

# No `from __future__ import annotations`: see `jobs`.

import json
from dataclasses import dataclass
from functools import lru_cache

import slicer
from slicer.i18n import tr as _

from BrainFusionLib.case import from_document, to_document
from BrainFusionLib.errors import BrainFusionError
from BrainFusionSlicer.companions import linear_parent
from BrainFusionSlicer.fingerprint import Fingerprint, fingerprint_of, is_same_place
from BrainFusionSlicer.verdict_text import Card

VERDICT_ATTRIBUTE = "BrainFusion.Verdict"
# On a fused volume: points of it, seen from the transform over the MRI, as it was made.
PLACE_ATTRIBUTE = "BrainFusion.Place"


@dataclass(frozen=True)
class StoredVerdict:
    """A verdict, and what it is about.

    card - Its words and colour, as the panel shows them.
    worst_mri_mm, worst_mm - The point of the largest misalignment, in the frame of the transform over the MRI, RAS mm,
        and its size, where it was measured.
    middle_mri_mm - The middle of the head, in the same frame.
    scale - The MRI's values of 0 and 1 on the library's scale, for pictures of both volumes.
    ct, mri - The fingerprints of the pair as it was judged: the CT where the result put it.
    """

    card: Card
    worst_mri_mm: tuple[float, ...] | None
    worst_mm: float | None
    middle_mri_mm: tuple[float, ...]
    scale: tuple[float, float]
    ct: Fingerprint
    mri: Fingerprint


def store(node: slicer.vtkMRMLNode, verdict: StoredVerdict) -> None:
    """Keep a verdict on an output node."""
    node.SetAttribute(VERDICT_ATTRIBUTE, json.dumps(to_document(verdict)))


def stored_on(node: slicer.vtkMRMLNode | None) -> StoredVerdict | None:
    """Return the verdict that is kept on a node, or None."""
    text = None if node is None else node.GetAttribute(VERDICT_ATTRIBUTE)
    return _verdict_in(text) if text else None


@lru_cache(maxsize=8)  # while a pose is adjusted by hand, the same ones are read with every move of the mouse
def _verdict_in(text: str) -> StoredVerdict | None:
    try:
        return from_document(json.loads(text), StoredVerdict)
    except (ValueError, BrainFusionError):  # of another version, or broken
        return None


def changes_of(name: str, before: Fingerprint, now: Fingerprint) -> list[str]:
    """Say in sentences how a volume itself differs from what it was; the list is empty if it does not."""
    changes = []
    if before.voxels != now.voxels:
        changes.append(_("The voxels of {name} were changed.").format(name=name))
    if not is_same_place(before.own_mm, now.own_mm):
        changes.append(_("The geometry of {name} was changed, or its transform was hardened.").format(name=name))
    return changes


def prints_of(ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode) -> tuple[Fingerprint, ...]:
    """Return the fingerprints of a pair with voxels: the CT's and the MRI's, seen from the MRI's transform."""
    frame = linear_parent(mri)
    return fingerprint_of(ct, frame), fingerprint_of(mri, frame)


def changes_between(names: tuple[str, str], before: tuple[Fingerprint, ...], now: tuple[Fingerprint, ...]) -> list[str]:
    """Say in sentences what differs of a pair; the list is empty if nothing does."""
    both = list(zip(before, now, strict=True))
    changes = [change for name, pair in zip(names, both, strict=True) for change in changes_of(name, *pair)]
    if not changes and not all(is_same_place(was.seen_mm, is_now.seen_mm) for was, is_now in both):
        changes.append(_("{ct} and {mri} were moved against each other.").format(ct=names[0], mri=names[1]))
    return changes


def note_place(fused: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Note on a fused volume where it is, seen from the MRI's transform."""
    fused.SetAttribute(PLACE_ATTRIBUTE, json.dumps(fingerprint_of(fused, linear_parent(mri)).seen_mm))


def changes_of_result(
    result: slicer.vtkMRMLNode | None, ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode
) -> list[str]:
    """Say what has changed since the verdict that is kept on an output was given; also whether it was left behind."""
    verdict = stored_on(result)
    changes = [] if verdict is None else changes_since(verdict, ct, mri)
    place = None if result is None or changes else result.GetAttribute(PLACE_ATTRIBUTE)
    if not place or result.GetImageData() is None:
        return changes
    if is_same_place(tuple(json.loads(place)), fingerprint_of(result, linear_parent(mri)).seen_mm):
        return []
    names = {"fused": result.GetName(), "mri": mri.GetName()}
    return [_("{fused} and {mri} were moved against each other. Fuse again.").format(**names)]


def changes_since(
    verdict: StoredVerdict, ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode
) -> list[str]:
    """Say in sentences what of a pair has changed since it was judged; the list is empty if nothing has."""
    changes = [
        _("{name} has no voxels any more.").format(name=node.GetName())
        for node in (ct, mri)
        if node.GetImageData() is None or node.GetImageData().GetNumberOfPoints() == 0
    ]
    names = ct.GetName(), mri.GetName()
    return changes or changes_between(names, (verdict.ct, verdict.mri), prints_of(ct, mri))
