"""Poses in files of other programs: read as the command reads them, and put into the scene as a transform node.

Slicer itself reads none of FreeSurfer, FSL, elastix and DICOM registrations, and does not know which of two volumes an
ITK file moves.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
import slicer.util

from BrainFusionLib.io import read_transform
from BrainFusionLib.io.dicom_headers import DicomHeaders, read_headers
from BrainFusionLib.io.other_transforms import Between
from BrainFusionLib.io.transform_writing import are_in_nifti_order
from BrainFusionLib.io.transforms import READ_TRANSFORM_SUFFIXES
from BrainFusionSlicer import bridge, departing, dicom_export, registered_ct

PATTERN = " ".join(f"*{suffix}" for suffix in READ_TRANSFORM_SUFFIXES)


def load(
    path: str | Path, ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode
) -> slicer.vtkMRMLLinearTransformNode:
    """Add the pose in a file to the scene, as a transform that moves the CT onto the MRI; nothing is under it.

    A file is about the volumes as they are in their files: what the user has put them under since counts, too.

    Parameters
    ----------
    path
        The file, of any format that `io.read_transform` reads.
    ct, mri
        The pair.

    Raises
    ------
    ImageFileError
        The file cannot be read, or does not say what it maps.
    GeometryError
        It is not linear, or a volume is under a transform that is not.
    """
    files = departing.file_of(ct), departing.file_of(mri)
    between = Between(
        ct=departing.own_grid(ct),
        mri=departing.own_grid(mri),
        in_nifti_order=are_in_nifti_order(*files),
        headers=lambda: (_headers_of(ct), _headers_of(mri)),
    )
    pose = read_transform(path, rigid=False, between=between)
    worlds = (
        bridge.world_ras_from_parent(parent, node.GetName())
        for parent, node in zip(registered_ct.parents_as_read(ct, mri), (ct, mri), strict=True)
    )
    ct_world, mri_world = worlds
    scene = ct.GetScene()
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", scene.GenerateUniqueName(Path(path).name))
    matrix = mri_world @ bridge.mri_from_ct_ras(pose) @ np.linalg.inv(ct_world)
    node.SetMatrixTransformToParent(bridge.vtk_matrix(matrix))
    return node


def _headers_of(node: slicer.vtkMRMLScalarVolumeNode) -> DicomHeaders | None:
    files = dicom_export.filesOf(node)
    return read_headers(files) if files else None
