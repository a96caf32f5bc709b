"""DICOM export: the fused volume and the registered CT as derived series in the MRI's study.

The library writes them (`BrainFusionLib.io.dicom_writing`). Here the MRI's headers are looked up in Slicer's DICOM
database, and the volumes are taken from the world to where the MRI's own slices are. Nothing in the scene changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from BrainFusionLib.errors import ImageContentError, ImageFileError, SettingsError
from BrainFusionLib.geometry import RAS_FROM_LPS, FloatArray
from BrainFusionLib.transform import AffineTransform
from BrainFusionLib.volume import AIR_HU, Volume

from . import bridge, ownership, registered_ct

if TYPE_CHECKING:
    from BrainFusionLib.io.dicom_headers import DicomHeaders  # brings SimpleITK, which loading the module must not


def exportResults(results: Any, folder: str | Path) -> list[Path]:
    """Write the fused volume and the registered CT into `folder`, as ``fused/*.dcm`` and ``ct_in_mri/*.dcm``.

    Parameters
    ----------
    results
        The outcome of BrainFusionLogic, or its fused volume node (a scene that was saved and loaded has only that).
    folder
        Is there; holds nothing called ``fused`` or ``ct_in_mri``.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    SettingsError
        The CT and the MRI of the volume are not in the scene, or the MRI was not loaded from DICOM.
    ImageFileError
        The MRI's files are not where the DICOM database has them, or the folder cannot be written to.
    ImageContentError
        The CT is not under the transform that moved it onto the MRI.
    GeometryError
        The MRI was moved, cropped or resampled after it was loaded, or is under a transform that is not linear.
    MissingDependencyError
        torch, which pulls the CT onto the MRI's grid, is not installed.
    """
    fusedNode = getattr(results, "fusedVolume", results)
    reason = whatIsMissingForExport(fusedNode)
    if reason is not None:
        raise SettingsError(reason)
    from BrainFusionLib.io.dicom_writing import write_dicom_results

    mriNode, ctNode = _inputsOf(fusedNode)
    mriHeaders = _headersOf(mriNode)
    if mriHeaders is None:
        raise ImageFileError(
            _(
                "The DICOM files of {mri} are not where Slicer's DICOM database has them. Import them again in the "
                "DICOM module, and try again."
            ).format(mri=mriNode.GetName())
        )
    fused = bridge.volume_from_node(fusedNode)
    mriFromWorld = np.linalg.inv(_worldLpsFromDicom(mriNode))
    mriHeaders.check_same_place(fused.grid.moved(mriFromWorld), fused.name)  # before the work
    ctFromMri = _ctFromMriLps(ctNode)
    registeredCt = _registeredCt(results, ctNode, fused, ctFromMri)
    ctDicomFromMriDicom = np.linalg.inv(_worldLpsFromDicom(ctNode)) @ ctFromMri @ np.linalg.inv(mriFromWorld)
    folders = write_dicom_results(
        Volume(fused.array_kji, fused.grid.moved(mriFromWorld), fused.modality, fused.name),
        Volume(registeredCt.array_kji, fused.grid.moved(mriFromWorld), "CT", registeredCt.name),
        Path(folder),
        mriHeaders,
        ct=_headersOf(ctNode),
        transform=AffineTransform(ctDicomFromMriDicom),
        fused_window=_windowOf(fusedNode),
    )
    return [file for made in folders.values() for file in sorted(made.iterdir())]


def whatIsMissingForExport(results: Any) -> str | None:
    """Say why these results cannot be exported, or return None if they can, as far as a quick look tells."""
    fusedNode = getattr(results, "fusedVolume", results)
    if fusedNode is None or fusedNode.GetScene() is None:
        return _("Fuse a CT and an MRI first")
    mriNode, ctNode = _inputsOf(fusedNode)
    if mriNode is None or ctNode is None:
        return _("The CT and the MRI that {fused} was made from are not in the scene").format(fused=fusedNode.GetName())
    if not (mriNode.GetAttribute("DICOM.instanceUIDs") or "").split():
        return _(
            "{mri} was not loaded from DICOM, so there is no patient and no study to write into. Export to "
            "DICOM in the Data module can still export it"
        ).format(mri=mriNode.GetName())
    return None


def _inputsOf(fusedNode: slicer.vtkMRMLScalarVolumeNode) -> tuple[Any, Any]:
    """Return the MRI and the CT that a fused volume was made from; None for what is not in the scene any more."""
    return fusedNode.GetNodeReference(ownership.TARGET_MRI_ROLE), fusedNode.GetNodeReference(ownership.MOVED_CT_ROLE)


def _headersOf(node: slicer.vtkMRMLScalarVolumeNode) -> DicomHeaders | None:
    """Return the headers of the files that a volume was loaded from; None where they cannot be found.

    DICOMScalarVolumePlugin.py writes the UIDs of the files, one a slice, into the attribute; DICOM.py makes the
    database at start-up, and ctkDICOMDatabase::fileForInstance returns "" for what it does not know.
    """
    database = getattr(slicer, "dicomDatabase", None)
    uids = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    if database is None or not uids:
        return None
    files = [database.fileForInstance(uid) for uid in uids]
    from BrainFusionLib.io.dicom_headers import read_headers

    return read_headers(files) if all(file and Path(file).is_file() for file in files) else None


def _worldLpsFromDicom(node: slicer.vtkMRMLScalarVolumeNode) -> FloatArray:
    """Return the 4x4 matrix of the transforms that the user put a volume under: DICOM's LPS to the world's LPS, mm."""
    matrix = bridge.world_ras_from_parent(registered_ct.users_parent(node), node.GetName())
    return RAS_FROM_LPS @ matrix @ RAS_FROM_LPS


def _ctFromMriLps(ctNode: slicer.vtkMRMLScalarVolumeNode) -> FloatArray:
    """Return the 4x4 matrix from MRI points to points of the CT where it was before it was moved, world LPS mm."""
    if registered_ct.result_transform_of(ctNode) is None:
        raise ImageContentError(
            _(
                "{ct} is not under the transform any more that moved it onto the MRI, so it cannot be exported as "
                "registered. Fuse again, and export then."
            ).format(ct=ctNode.GetName())
        )
    before = bridge.world_ras_from_parent(registered_ct.users_parent(ctNode), ctNode.GetName())
    now = bridge.world_ras_from_parent(ctNode.GetParentTransformNode(), ctNode.GetName())
    return RAS_FROM_LPS @ before @ np.linalg.inv(now) @ RAS_FROM_LPS


def _registeredCt(results: Any, ctNode: slicer.vtkMRMLScalarVolumeNode, fused: Volume, ctFromMri: FloatArray) -> Volume:
    """Return the CT on the fused volume's grid, whole Hounsfield units: the run's own, or made again as it makes it."""
    made = getattr(getattr(results, "result", None), "ct_in_mri", None)
    if made is not None and made.grid.same_as(fused.grid, 1e-3):
        return made
    from BrainFusionLib.device import require_torch

    require_torch()
    from BrainFusionLib.resample import resample_onto

    ct = bridge.volume_from_node(ctNode)
    pulled = resample_onto(ct, fused.grid, AffineTransform(ctFromMri), fill=AIR_HU)
    return pulled.with_array(np.rint(pulled.array_kji))


def _windowOf(node: slicer.vtkMRMLScalarVolumeNode) -> tuple[float, float] | None:
    """Return the lowest and highest value that a volume is shown with."""
    display = node.GetDisplayNode()
    if display is None:
        return None
    return display.GetWindowLevelMin(), display.GetWindowLevelMax()
