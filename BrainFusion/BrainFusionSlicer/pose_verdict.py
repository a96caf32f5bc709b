"""Verdicts on a pose alone: of a check, a refinement, or a registration without a fusion.

There is no fused volume to keep them on. They are kept on the transform of the result; if there is none, because a pose
was checked that no registration of ours has made, on the module's parameter node. Both are saved with the scene.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import slicer

from BrainFusionSlicer import currency, ownership, registered_ct
from BrainFusionSlicer.currency import StoredVerdict
from BrainFusionSlicer.fingerprint import has_voxels

MODULE = "BrainFusion"


@dataclass(frozen=True)
class Shown:
    """The verdict to show for a pair.

    stored - The verdict, or None.
    changes - What of the pair has changed since it was given, in sentences.
    is_of_fused - Whether it is that of the fused volume.
    """

    stored: StoredVerdict | None = None
    changes: tuple[str, ...] = ()
    is_of_fused: bool = False


def store(ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode, verdict: StoredVerdict) -> None:
    """Keep the verdict on the pose of a pair, in the place of an earlier one."""
    forget(ct, mri)
    transform = ownership.find_output(ownership.TRANSFORM, ct, mri)
    has_moved = transform is not None and bool(transform.GetAttribute(registered_ct.GEOMETRY_ATTRIBUTE))
    is_theirs = transform is not None and (
        not has_moved or registered_ct.result_transform_of(ownership.moved_of(transform)) == transform
    )
    carrier = transform if is_theirs else parameter_node(ct.GetScene())
    if carrier is not None:
        currency.store(carrier, verdict)


def forget(ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Remove the verdict on the pose of a pair, if there is one."""
    for carrier, _stored in list(_kept(ct, mri)):
        carrier.RemoveAttribute(currency.VERDICT_ATTRIBUTE)


def shown(
    fused: slicer.vtkMRMLScalarVolumeNode | None,
    ct: slicer.vtkMRMLScalarVolumeNode,
    mri: slicer.vtkMRMLScalarVolumeNode,
) -> Shown:
    """Return the newest verdict of a pair that still holds, or else the newest that does not."""
    judged = [Shown(stored, tuple(currency.changes_since(stored, ct, mri))) for _carrier, stored in _kept(ct, mri)]
    of_fused = currency.stored_on(fused)
    if of_fused is not None:
        judged.append(Shown(of_fused, tuple(currency.changes_of_result(fused, ct, mri)), True))
    best = next((one for one in judged if not one.changes), judged[0] if judged else Shown())
    if best.stored is None or best.is_of_fused or best.changes or of_fused is None or not judged[-1].changes:
        return best
    older = currency.why_older(fused, ct, mri)
    card = replace(best.stored.card, findings=(*best.stored.card.findings, *filter(None, [older])))
    return replace(best, stored=replace(best.stored, card=card))


def _kept(
    ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode
) -> Iterator[tuple[slicer.vtkMRMLNode, StoredVerdict]]:
    transform = ownership.find_output(ownership.TRANSFORM, ct, mri)
    stored = currency.stored_on(transform)
    if stored is not None:
        yield transform, stored
    node = parameter_node(ct.GetScene())
    stored = currency.stored_on(node)
    if stored is None or not (has_voxels(ct) and has_voxels(mri)):
        return
    # The parameter node has no pair of its own: the voxels say whose verdict it is.
    now = currency.prints_of(ct, mri)
    if (stored.ct.voxels, stored.mri.voxels) == (now[0].voxels, now[1].voxels):
        yield node, stored


def parameter_node(scene: slicer.vtkMRMLScene) -> slicer.vtkMRMLNode | None:
    """Return the module's parameter node of a scene, if it has one."""
    return scene.GetSingletonNode(MODULE, "vtkMRMLScriptedModuleNode")
