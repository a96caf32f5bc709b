"""Other readers for `benchmarks.attack`: what they make of a file that ours has read.

They may be killed by it: each reads in a child of its own, and where it fails it has no opinion.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from BrainFusionLib.geometry import RAS_FROM_LPS, FloatArray
from BrainFusionLib.volume import VoxelArray

# Relative to the largest number.
CLOSE = 1e-4
LONGEST_S = 10

Read = tuple[FloatArray, VoxelArray]


def difference(name: str, path: Path, matrix: FloatArray, voxels: VoxelArray) -> str:
    """Return how what another reader reads differs from a matrix and voxels; empty if it agrees or cannot read it."""
    read = _READERS.get(name)
    if read is None:
        return ""
    report_read, report_write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
        said = ""
        try:
            said = _compared(*read(path), matrix, voxels)
        except BaseException:
            said = ""
        os.write(report_write, said[:1000].encode())
        os._exit(0)
    os.close(report_write)
    with os.fdopen(report_read, "rb") as stream:
        found = stream.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    return found


def _compared(their_matrix: FloatArray, theirs: VoxelArray, matrix: FloatArray, voxels: VoxelArray) -> str:
    if not np.isfinite(their_matrix).all():
        return ""
    if theirs.shape != voxels.shape:
        return f"{voxels.shape} voxels, another reader has {theirs.shape}"
    if not np.allclose(matrix, their_matrix, rtol=CLOSE, atol=CLOSE * max(1.0, float(np.abs(their_matrix).max()))):
        return f"matrix {matrix.tolist()}, another reader has {their_matrix.tolist()}"
    if voxels.size and not np.allclose(voxels, theirs, rtol=CLOSE, atol=1e-3, equal_nan=True):
        return f"values {voxels.ravel()[:5].tolist()}, another reader has {theirs.ravel()[:5].tolist()}"
    return ""


def _by_nibabel(path: Path) -> Read:
    nib: Any = importlib.import_module("nibabel")
    image = nib.load(path)
    values = np.asarray(image.dataobj, dtype=np.float32)
    values = values.reshape(values.shape[:3]) if values.size == np.prod(values.shape[:3]) else values
    return np.diag([-1.0, -1, 1, 1]) @ image.affine, values.T


def _by_itk(path: Path) -> Read:
    import SimpleITK as sitk

    image = sitk.ReadImage(str(path), sitk.sitkFloat32)
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return matrix, sitk.GetArrayFromImage(image)


def _nrrd_by_itk(path: Path) -> Read:
    # ITK turns this one by 180 degrees.
    if b"left-anterior-superior" in path.read_bytes()[:2000] or b"LAS" in path.read_bytes()[:2000]:
        raise ValueError
    return _by_itk(path)


def _metaimage_by_itk(path: Path) -> Read:
    head = path.read_bytes()[:4000]
    # Of compressed voxels, ITK needs the size, and takes whatever stands there: none, or of nothing, is no opinion.
    if re.search(rb"CompressedData = [Tt1]", head) and not re.search(rb"CompressedDataSize = 0*[1-9]\d*\r?\n", head):
        raise ValueError
    return _by_itk(path)


def _folder_by_itk(path: Path) -> Read:
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    names = reader.GetGDCMSeriesFileNames(str(path))
    if len(names) != sum(1 for _ in path.iterdir()):  # it leaves out, without a word, what it cannot read
        raise ValueError
    pydicom: Any = importlib.import_module("pydicom")
    classes = {pydicom.dcmread(name, stop_before_pixels=True).SOPClassUID for name in names}
    if classes != {pydicom.uid.CTImageStorage}:  # of a class that it does not know, it takes pixels of 1 mm
        raise ValueError
    reader.SetFileNames(names)
    image = reader.Execute()
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return matrix, sitk.GetArrayFromImage(image).astype(np.float32)


def _transform_by_itk(path: Path) -> Read:
    """Read each transform of a text alone and compose them, the last one first; ITK itself gives the first only."""
    content = path.read_bytes()
    head, *parts = content.split(b"\nTransform:") if content.startswith(b"#Insight Transform File") else [content]
    head = head.partition(b"\n")[0]
    if not parts:
        matrix = _one_transform(path)
        if path.suffix == ".xfm":  # ITK takes the numbers as they are, which are RAS
            matrix = RAS_FROM_LPS @ matrix @ RAS_FROM_LPS
        return matrix, np.zeros(0, np.float32)
    matrix = np.eye(4)
    for part in parts:
        alone = path.with_name("part.tfm")
        alone.write_bytes(head + b"\n#Transform 0\nTransform:" + part)
        matrix = matrix @ _one_transform(alone)
    return matrix, np.zeros(0, np.float32)


def _one_transform(path: Path) -> FloatArray:
    import SimpleITK as sitk

    made = sitk.ReadTransform(str(path))
    origin = np.array(made.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([made.TransformPoint(row) for row in np.eye(3).tolist()], axis=1) - origin[:, None]
    matrix[:3, 3] = origin
    return matrix


_READERS: dict[str, Callable[[Path], Read]] = {
    "nifti": _by_nibabel, "mgh": _by_nibabel, "nrrd": _nrrd_by_itk, "metaimage": _metaimage_by_itk,
    "metaimage list": _by_itk,
    "dicom": _folder_by_itk, "transform": _transform_by_itk,
}  # fmt: skip
