"""Volumes in and out, in the format that the file's name asks for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from BrainFusionLib.arguments import checked
from BrainFusionLib.io import formats
from BrainFusionLib.volume import Modality, Volume


@checked
def read_volume(
    path: str | os.PathLike[str], *, modality: Modality | None = None, series: str | int | None = None
) -> Volume:
    """Read a volume in any format of `formats.FORMATS`.

    Parameters
    ----------
    path
        A file; either file of a pair; a folder of DICOM slices; or one slice, which stands for its series.
    modality
        ``"CT"`` or ``"MR"``: what the volume is. Only DICOM files say it themselves.
    series
        Which DICOM series, if the folder holds several: its UID, its number, or its place in the error's list.

    Returns
    -------
    Volume
        Voxels float32, rescaled as the file says, in the file's own order (left-handed grids stay so), LPS mm.
        `notes` describe what had to be assumed or resampled.

    Raises
    ------
    ImageFileError
        The file or folder is missing, unreadable, damaged, of an unknown kind, not one 3D volume of gray values.
    GeometryError
        Zero spacing, sheared axes, or slices that do not make one regular volume.
    ImageContentError
        DICOM headers that say CT and an MRI was wanted, or vice versa.
    """
    path = Path(path)
    form = formats.format_of(path)
    formats.refuse_series(form, path, series)
    if form.slices:
        return _without_nan(form.read(path, modality=modality, series=series))
    volume = _without_nan(form.read(path))
    # A name that is not UTF-8 on disk cannot be written into a report as it is.
    name = os.fsencode(volume.name).decode("utf-8", "replace")
    return replace(volume, modality=modality, name=name)


def _without_nan(volume: Volume) -> Volume:
    """Return a volume in which what is not a number, as programs mark the outside, has the lowest value."""
    lowest = float(np.min(volume.array_kji))
    if not np.isnan(lowest):
        return volume
    is_nan = np.isnan(volume.array_kji)
    finite = volume.array_kji[np.isfinite(volume.array_kji)]
    if not finite.size:
        return volume  # refused as content
    lowest = float(finite.min())
    note = f"{int(is_nan.sum())} voxels are not numbers (NaN): taken for outside, with the lowest value ({lowest:zg})."
    array = np.where(is_nan, np.float32(lowest), volume.array_kji)
    return volume.with_array(array, notes=(*volume.notes, note))


@checked
def write_volume(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write a volume in the format that the name asks for, whole or not at all.

    Voxels are stored as int16 where that loses nothing (all whole and in range), else as float32. An ``.img``/``.hdr``
    pair gets a NIfTI header, which readers of Analyze 7.5 understand, too: true Analyze could not say which side is
    left. NIfTI stores positions as float32 (1e-5 mm in a head), NRRD and MetaImage exactly.

    Parameters
    ----------
    volume
        What to write.
    path
        Ends in one of the suffixes that are written (`formats.writable`); of a pair, both files are written.

    Raises
    ------
    ImageFileError
        Another ending, a folder that is missing or may not be written to, or a full disk. Nothing is left behind.
    """
    path = Path(path)
    write = formats.written_format_of(path).write
    if write is None:
        raise TypeError(f"the format of {path.name} has suffixes to write and no writer")
    write(volume, path)
