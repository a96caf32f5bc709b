"""How a volume was acquired, from the DICOM files that Slicer loaded it from."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import slicer
import slicer.util
import vtk

from BrainFusionLib.geometry import RAS_FROM_LPS, apply_affine
from BrainFusionSlicer.fingerprint import has_voxels
from BrainFusionSlicer.ownership import DICOM_ATTRIBUTE

if TYPE_CHECKING:
    from BrainFusionLib.acquisition import Acquisition
    from BrainFusionSlicer.jobs import RawVolume


def with_acquisition(raw: RawVolume, node: slicer.vtkMRMLScalarVolumeNode) -> RawVolume:
    """Return a volume with what the headers of its node's DICOM files say."""
    return replace(raw, acquisition=acquisition_of(node))


def acquisition_of(node: slicer.vtkMRMLScalarVolumeNode) -> Acquisition | None:
    """Return how a volume was acquired; ``None`` where there is no database, or it does not have the files.

    DICOMScalarVolumePlugin writes the UIDs of the files, in the order of the slices, into an attribute of the node;
    ctkDICOMDatabase::fileForInstance returns "" for what it does not know. Three headers are read, in milliseconds.
    """
    database = getattr(slicer, "dicomDatabase", None)
    uids = (node.GetAttribute(DICOM_ATTRIBUTE) or "").split()
    if database is None or not uids or not has_voxels(node):
        return None
    try:
        from BrainFusionLib.io.dicom_acquisition import read_acquisition
        from BrainFusionLib.io.dicom_files import open_image_header

        files = [database.fileForInstance(uids[n]) for n in sorted({0, len(uids) // 2, len(uids) - 1})]
        headers = [open_image_header(Path(file)) for file in files if file and Path(file).is_file()]
        found = [header for header in headers if header is not None]
        # The node's own axes, without the transforms above it, are those of the headers.
        ras_from_ijk = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(ras_from_ijk)
        lps_from_ijk = RAS_FROM_LPS @ slicer.util.arrayFromVTKMatrix(ras_from_ijk)
        middle = (np.array(node.GetImageData().GetDimensions()) - 1) / 2
        centre = apply_affine(lps_from_ijk, middle)
        return read_acquisition(found, centre, node.GetSpacing()[2]) if found else None
    except Exception:  # a damaged header must not stop a fusion
        logging.warning("BrainFusion: the DICOM headers of a volume could not be read", exc_info=True)
        return None
