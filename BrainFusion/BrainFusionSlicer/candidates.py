"""Which volumes of a scene may be the CT and the MRI of a pair that nobody has chosen yet."""

from __future__ import annotations

import slicer

from BrainFusionSlicer import checks, ownership
from BrainFusionSlicer.fingerprint import has_voxels


def only_pair(scene: slicer.vtkMRMLScene) -> tuple:
    """Return the CT and the MRI of a scene that holds exactly one of each, by DICOM modality or by values; else None.

    What this module has made, and what is hidden, is none of them.
    """
    ct, mri = [], []
    for node in ownership.nodes_of(scene, "vtkMRMLScalarVolumeNode"):
        if _is_candidate(node):
            (ct if checks.is_ct(node) else mri).append(node)
    return (ct[0], mri[0]) if len(ct) == len(mri) == 1 else (None, None)


def _is_candidate(node) -> bool:
    image = node.GetImageData()
    return (
        node.GetClassName() == "vtkMRMLScalarVolumeNode"
        and not node.GetHideFromEditors()
        and not ownership.is_made_here(node)
        and has_voxels(node)
        and min(image.GetDimensions()) > 1
    )
