"""DICOM export: the fused volume and the moved one as derived series in the study of the one that stayed.

The library writes them (`exporting`, in the worker process). Here the MRI's files are looked up in Slicer's DICOM
database, and the volumes are taken from the world to where the MRI's own slices are. Nothing in the scene changes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from BrainFusionLib.acquisition import are_of_two_patients
from BrainFusionLib.case.leaving import require_decision
from BrainFusionLib.errors import GeometryError, ImageContentError, ImageFileError, SettingsError
from BrainFusionLib.geometry import RAS_FROM_LPS, FloatArray, Grid
from BrainFusionLib.io.dicom_segmentation import can_write_segmentations
from BrainFusionLib.transform import AffineTransform
from BrainFusionSlicer import acquired, bridge, currency, decisions, departing, ownership, registered_ct, segmentations
from BrainFusionSlicer.exporting import ExportInputs, export
from BrainFusionSlicer.jobs import ExportOrder, RawVolume
from BrainFusionSlicer.registered_ct import Standing


def exportResults(results: Any, folder: str | Path, exportAnyway: bool = False) -> list[Path]:
    """Write the fused volume and the registered CT into `folder`, as ``fused/*.dcm`` and ``ct_in_mri/*.dcm``.

    Where the CT is the reference, the MRI is written in the CT's place, as ``mri_in_ct/*.dcm``, into the CT's study.

    If the CT is from DICOM, too, the pose is written as ``registration.dcm`` (Spatial Registration); and the bone, if a
    segmentation of it was made, as ``bone.dcm`` (Segmentation) in the MRI's study. Returns when it is done;
    `BrainFusionLogic.startExport` has it done by the worker process.

    Parameters
    ----------
    results
        The outcome of BrainFusionLogic, or its fused volume node (a scene that was saved and loaded has only that).
    folder
        Is there; holds nothing called ``fused``, ``ct_in_mri``, ``registration.dcm`` or ``bone.dcm``.
    exportAnyway
        Also what is red, or was changed since it was judged; each object then says so.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    BrainFusionError
        As `orderFor` and `exporting.export`.
    """
    order, inputs = orderFor(results, folder, exportAnyway)
    return [Path(file) for file in export(order, inputs, lambda stage, fraction: None)]


def orderFor(results: Any, folder: str | Path, exportAnyway: bool = False) -> tuple[ExportOrder, ExportInputs]:
    """Return what has to be done to export results, from the nodes: on the main thread, and quick.

    Parameters are those of `exportResults`.

    Raises
    ------
    SettingsError
        The CT and the MRI of the volume are not in the scene, or cannot be exported, or are in doubt; says why.
    ImageFileError
        The reference's files are not where the DICOM database has them.
    ImageContentError
        The CT is not where the registration moved it.
    GeometryError
        The MRI was moved, cropped or resampled after it was loaded.
    """
    fusedNode = getattr(results, "fusedVolume", results)
    reason = whatIsMissingForExport(fusedNode)
    if reason is not None:
        raise SettingsError(reason + ".")
    mriNode, ctNode = _inputsOf(fusedNode)
    reference = ownership.reference_of(fusedNode)
    fixed = ctNode if reference == "ct" else mriNode
    doubt = departing.doubt_of(fusedNode)
    require_decision(doubt, exportAnyway)
    mriFiles, ctFiles = filesOf(mriNode), filesOf(ctNode)
    if not (ctFiles if reference == "ct" else mriFiles):
        raise ImageFileError(
            _(
                "The DICOM files of {volume} are not where Slicer's DICOM database has them. Import them again in the "
                "DICOM module, and try again."
            ).format(volume=fixed.GetName())
        )
    fused = bridge.raw_from_node(fusedNode)
    fixedFromWorld = np.linalg.inv(_worldLpsFromDicom(fixed))
    fused = replace(fused, lps_from_ijk=fixedFromWorld @ fused.lps_from_ijk)
    if reference == "ct":
        moved, movedFromFixed = movedMri(ctNode, mriNode, fixedFromWorld)
        inputs = ExportInputs(fused, None, moved)
    else:
        moved, movedFromFixed = registeredCt(fusedNode, ctNode, fixedFromWorld)
        inputs = ExportInputs(fused, moved)
    if mriFiles and can_write_segmentations():
        inputs = replace(inputs, bone=boneOf(ctNode, mriNode))
    order = ExportOrder(
        target=Path(folder),
        mri_files=tuple(mriFiles),
        ct_files=tuple(ctFiles),
        moved_from_fixed=movedFromFixed,
        window=_windowOf(fusedNode),
        pose=departing.pose_of(fusedNode) if ctFiles and mriFiles else None,
        place=departing.own_grid(fixed) if fusedNode.GetAttribute(ownership.GRID_ATTRIBUTE) else None,
        doubt=doubt,
        reference=reference,
        bone_rule=_rule_of(fusedNode),
    )
    return order, inputs


def whatIsMissingForExport(results: Any) -> str | None:
    """Say why these results cannot be exported, or return None if they can, as far as a quick look tells."""
    fusedNode = getattr(results, "fusedVolume", results)
    if fusedNode is None or fusedNode.GetScene() is None:
        return _("Fuse a CT and an MRI first")
    mriNode, ctNode = _inputsOf(fusedNode)
    if mriNode is None or ctNode is None:
        return _("The CT and the MRI that {fused} was made from are not in the scene").format(fused=fusedNode.GetName())
    fixed = ownership.fixed_of(fusedNode)
    if not bridge.is_under_linear_transforms(fixed):
        return _(
            "{volume} is under a transform that is not linear, so what was fused is not where its DICOM slices are, "
            "and cannot be written into its study. Export to DICOM in the Data module can still export it"
        ).format(volume=fixed.GetName())
    if ownership.registered_ct_of(fusedNode) is None:
        return _("The registered CT of {fused} was removed from the scene. Fuse again").format(
            fused=fusedNode.GetName()
        )
    if not (fixed.GetAttribute(ownership.DICOM_ATTRIBUTE) or "").split():
        return _(
            "{volume} was not loaded from DICOM, so there is no patient and no study to write into. Export to "
            "DICOM in the Data module can still export it"
        ).format(volume=fixed.GetName())
    return None


def whosePatient(fusedNode: slicer.vtkMRMLScalarVolumeNode | None) -> str:
    """Say for whom the results of a CT and an MRI of two patient IDs are written, or return nothing."""
    pair = (None, None) if fusedNode is None else _inputsOf(fusedNode)
    if None in pair or not are_of_two_patients(*(acquired.acquisition_of(node) for node in reversed(pair))):
        return ""
    words = _("They were written for the patient of {volume}: CT and MRI have different patient IDs.")
    return words.format(volume=ownership.fixed_of(fusedNode).GetName())


def _inputsOf(fusedNode: slicer.vtkMRMLScalarVolumeNode) -> tuple[Any, Any]:
    """Return the MRI and the CT that a fused volume was made from; None for what is not in the scene any more."""
    return fusedNode.GetNodeReference(ownership.TARGET_MRI_ROLE), fusedNode.GetNodeReference(ownership.MOVED_CT_ROLE)


def filesOf(node: slicer.vtkMRMLScalarVolumeNode) -> list[str]:
    """Return the files that a volume was loaded from; none where one of them cannot be found.

    DICOMScalarVolumePlugin.py writes the UIDs of the files, one a slice, into the attribute; DICOM.py makes the
    database at start-up, and ctkDICOMDatabase::fileForInstance returns "" for what it does not know.
    """
    database = getattr(slicer, "dicomDatabase", None)
    uids = (node.GetAttribute(ownership.DICOM_ATTRIBUTE) or "").split()
    if database is None:
        return []
    files = [database.fileForInstance(uid) for uid in uids]
    return files if all(file and Path(file).is_file() for file in files) else []


def _worldLpsFromDicom(node: slicer.vtkMRMLScalarVolumeNode) -> FloatArray:
    """Return the 4x4 matrix of the transforms that a volume is under: DICOM's LPS to the world's LPS, mm."""
    matrix = bridge.world_ras_from_parent(node.GetParentTransformNode(), node.GetName())
    return RAS_FROM_LPS @ matrix @ RAS_FROM_LPS


def registeredCt(
    fusedNode: slicer.vtkMRMLScalarVolumeNode,
    ctNode: slicer.vtkMRMLScalarVolumeNode,
    mriFromWorld: FloatArray,
) -> tuple[RawVolume, AffineTransform | None]:
    """Return the CT as registered, and the transform from MRI points to its points; None if it is on the fused grid.

    It is taken from the scene, as all other volumes are: CT and MRI may have been moved together since the run.
    """
    registered = ownership.registered_ct_of(fusedNode)
    if registered != ctNode:  # resampled: the CT is under a transform that is not linear
        raw = bridge.raw_from_node(registered)
        return replace(raw, lps_from_ijk=mriFromWorld @ raw.lps_from_ijk), None
    _requireRegistered(ctNode, fusedNode.GetNodeReference(ownership.TARGET_MRI_ROLE))
    raw = bridge.raw_from_node(ctNode, as_shown=True)
    return raw, AffineTransform(np.linalg.inv(mriFromWorld))


def movedMri(
    ctNode: slicer.vtkMRMLScalarVolumeNode,
    mriNode: slicer.vtkMRMLScalarVolumeNode,
    ctFromWorld: FloatArray,
) -> tuple[RawVolume, AffineTransform | None]:
    """Return the MRI as it was put onto the CT, and the transform from the CT's points to its points."""
    _requireRegistered(ctNode, mriNode)
    return bridge.raw_from_node(mriNode, as_shown=True), AffineTransform(np.linalg.inv(ctFromWorld))


def boneOf(ctNode: slicer.vtkMRMLScalarVolumeNode, mriNode: slicer.vtkMRMLScalarVolumeNode) -> RawVolume | None:
    """Return the bone of a pair where the MRI's DICOM slices are; None if none was made, or the user has changed it."""
    node = ownership.find_output(ownership.BONE, ctNode, mriNode)
    labels = None if node is None or currency.is_edited(node) else segmentations.labels_of(node)
    parents = [] if node is None else [node.GetParentTransformNode(), mriNode.GetParentTransformNode()]
    if labels is None or not all(parent is None or parent.IsTransformToWorldLinear() for parent in parents):
        return None
    mask_kji, ras_from_ijk = labels
    world = bridge.world_ras_from_parent(node.GetParentTransformNode(), node.GetName())
    lps_from_ijk = np.linalg.inv(_worldLpsFromDicom(mriNode)) @ RAS_FROM_LPS @ world @ ras_from_ijk
    try:
        Grid.from_lps_from_ijk(lps_from_ijk, mask_kji.shape[::-1])
    except GeometryError:  # something scales or shears it
        return None
    return RawVolume(mask_kji, lps_from_ijk, None, node.GetName())


def _rule_of(fusedNode: slicer.vtkMRMLScalarVolumeNode) -> str:
    result = decisions.result_of(fusedNode)
    if result is None or result.bone is None:
        return "bone in the head of the CT"
    return f"above {result.bone.threshold_hu:g} HU in the head of the CT"


def _requireRegistered(ctNode: slicer.vtkMRMLScalarVolumeNode, mriNode: slicer.vtkMRMLScalarVolumeNode) -> None:
    standing = registered_ct.standing_of(ctNode, mriNode)
    if standing not in (Standing.REGISTERED, Standing.HOMELESS, Standing.NOT_MOVED):
        raise ImageContentError(
            _(
                "{volume} is not under the transform any more that moved it, so it cannot be exported as registered. "
                "Fuse again, and export then."
            ).format(volume=registered_ct.moved_of_pair(ctNode, mriNode).GetName())
        )


def _windowOf(node: slicer.vtkMRMLScalarVolumeNode) -> tuple[float, float] | None:
    """Return the lowest and highest value that a volume is shown with."""
    display = node.GetDisplayNode()
    if display is None:
        return None
    return display.GetWindowLevelMin(), display.GetWindowLevelMax()
