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
from BrainFusionSlicer import companions, ownership, segmentations
from BrainFusionSlicer.companions import linear_parent
from BrainFusionSlicer.fingerprint import Fingerprint, fingerprint_of, has_voxels, is_same_place, own_points, voxels_of
from BrainFusionSlicer.verdict_text import Card

VERDICT_ATTRIBUTE = "BrainFusion.Verdict"
# On an output volume or segmentation: what it held as it was made.
WRITTEN_ATTRIBUTE = "BrainFusion.Written"
# On an output volume: points of it in its own frame, as it was made.
GEOMETRY_ATTRIBUTE = "BrainFusion.WrittenGeometry"
# On a fused volume, and a resampled one: points of it, seen from the transform over the MRI, as it was made.
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
        changes.append(_moved(*names))
    return changes


def _moved(ct: str, mri: str) -> str:
    return _("{ct} and {mri} were moved against each other.").format(ct=ct, mri=mri)


def note_place(output: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Note on an output volume where it is, seen from the MRI's transform."""
    output.SetAttribute(PLACE_ATTRIBUTE, json.dumps(fingerprint_of(output, linear_parent(mri)).seen_mm))


def note_written(output: slicer.vtkMRMLNode) -> None:
    """Note what an output volume or segmentation holds, so that a change of it is noticed."""
    output.SetAttribute(WRITTEN_ATTRIBUTE, _content_of(output))
    if output.IsA("vtkMRMLVolumeNode"):
        output.SetAttribute(GEOMETRY_ATTRIBUTE, json.dumps(own_points(output).ravel().tolist()))


def is_reshaped(output: slicer.vtkMRMLNode) -> bool:
    """Say whether the own geometry of an output volume or segmentation is another one: it was hardened, for example."""
    if output.IsA("vtkMRMLSegmentationNode"):
        return bool(output.GetAttribute(companions.PLACE_ATTRIBUTE)) and not companions.is_as_made(output)
    noted = output.GetAttribute(GEOMETRY_ATTRIBUTE) if output.IsA("vtkMRMLVolumeNode") and has_voxels(output) else None
    return bool(noted) and not is_same_place(tuple(json.loads(noted)), tuple(own_points(output).ravel()))


def is_edited(output: slicer.vtkMRMLNode) -> bool:
    """Say whether an output volume or segmentation holds something else than what was written into it."""
    written = output.GetAttribute(WRITTEN_ATTRIBUTE)
    return bool(written) and _content_of(output) not in (None, written)


def _content_of(output: slicer.vtkMRMLNode) -> str | None:
    if output.IsA("vtkMRMLSegmentationNode"):
        return segmentations.content_of(output)
    return voxels_of(output) if has_voxels(output) else None


def changes_of_result(
    result: slicer.vtkMRMLNode | None, ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode
) -> list[str]:
    """Say what has changed since the verdict that is kept on an output was given: of the pair, or of what was made."""
    verdict = stored_on(result)
    changes = [] if verdict is None else changes_since(verdict, ct, mri)
    return changes or [change for made in outputs_of(result, ct, mri) for change in _changes_of_output(made, mri)]


def why_older(
    result: slicer.vtkMRMLNode | None, ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode
) -> str | None:
    """Say why a fused volume is not of the pair as it is now, which was judged since, or return None."""
    changes, verdict = changes_of_result(result, ct, mri), stored_on(result)
    of_pair = [] if verdict is None else changes_since(verdict, ct, mri)
    if of_pair and of_pair != [_moved(ct.GetName(), mri.GetName())]:
        return _("{change} The fused volume is older: fuse again.").format(change=of_pair[0])
    if not of_pair and any(is_edited(made) for made in outputs_of(result, ct, mri)):
        return changes[0]
    older = _("The fused volume shows an earlier pose: fuse again (Registration: Skip keeps this pose).")
    return older if changes else None


def outputs_of(result: slicer.vtkMRMLNode | None, ct: slicer.vtkMRMLNode, mri: slicer.vtkMRMLNode) -> list:
    """Return the volumes that show a result: the fused one, and the resampled one where the CT could not be moved."""
    volumes = [result, ownership.registered_ct_of(result)]
    return [one for one in volumes if one is not None and one not in (ct, mri) and one.IsA("vtkMRMLVolumeNode")]


def _changes_of_output(output: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode) -> list[str]:
    """Say how an output volume differs from what was made; the list is empty if it does not."""
    names = {"name": output.GetName(), "mri": mri.GetName()}
    place = output.GetAttribute(PLACE_ATTRIBUTE)
    if not has_voxels(output):
        return []
    if place and not is_same_place(tuple(json.loads(place)), fingerprint_of(output, linear_parent(mri)).seen_mm):
        return [_("{name} and {mri} were moved against each other. Fuse again.").format(**names)]
    return [_("{name} was changed since it was made. Fuse again.").format(**names)] if is_edited(output) else []


def changes_since(
    verdict: StoredVerdict, ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode
) -> list[str]:
    """Say in sentences what of a pair has changed since it was judged; the list is empty if nothing has."""
    changes = [
        _("{name} has no voxels any more.").format(name=node.GetName()) for node in (ct, mri) if not has_voxels(node)
    ]
    names = ct.GetName(), mri.GetName()
    return changes or changes_between(names, (verdict.ct, verdict.mri), prints_of(ct, mri))
