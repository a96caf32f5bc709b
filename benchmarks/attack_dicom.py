"""Sound DICOM for `benchmarks.attack`: folders, what else lies in them, multi-frame files, zips."""

from __future__ import annotations

import gzip
import io
import zipfile
from typing import Any

import numpy as np

from benchmarks.attack_parts import Input, Random, geometry, voxels_of


def dicom(random: Random) -> Input:
    """Return a folder of slices."""
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset

    kind, voxels = voxels_of(random, random.choice(["u1", "i1", "u2", "i2"]))
    affine = geometry(random)
    if np.linalg.det(affine[:3, :3]) < 0:  # slices along the normal of their plane, as they are sorted
        affine[:3, 2] *= -1
    syntaxes = (
        uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless,
    )  # fmt: skip
    syntax = syntaxes[random.integers(len(syntaxes))]
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    files: dict[str, bytes] = {}
    for k in random.permutation(len(voxels)):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = syntax if syntax != uid.RLELossless else uid.ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid.UID(f"1.2.3.4.5.{k + 1}")
        data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality, data.SeriesNumber = "1.2.3", "1.2.3.4.5", "CT", 1
        data.ImagePositionPatient = [f"{x:.8g}" for x in affine[:3, 3] + k * affine[:3, 2]]
        data.ImageOrientationPatient = [f"{x:.11f}" for x in (affine[:3, :2] / lengths[:2]).T.ravel()]
        data.PixelSpacing = [f"{x:.10g}" for x in lengths[1::-1]]
        data.Rows, data.Columns = voxels.shape[1:]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        bits = 8 * voxels.itemsize
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = (
            bits,
            bits,
            bits - 1,
            kind[0] == "i",
        )
        data.PixelRepresentation = int(kind[0] == "i")
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        pixels = voxels[k].tobytes()
        data.PixelData = pixels + bytes(len(pixels) % 2)
        if syntax == uid.RLELossless:
            data.compress(syntax, voxels[k])
        files[f"{len(files)}.dcm"] = _written(data)
    return Input("dicom", files, ".", voxels, affine)


def export(random: Random) -> Input:
    """Return a folder with more than the slices: copies, a report, raw data, notes, a screenshot, a scout across."""
    import pydicom
    from pydicom import uid

    made = dicom(random)
    names = list(made.files)
    files = {f"IM{names.index(name)}": made.files[name] for name in names}
    files |= {f"copy {name}": made.files[name] for name in names if random.random() < 0.3}
    for sop, modality in ((uid.BasicTextSRStorage, "SR"), (uid.RawDataStorage, "CT"), (uid.CTImageStorage, "CT")):
        other = pydicom.dcmread(io.BytesIO(made.files[names[0]]))
        other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = sop
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = uid.UID(f"1.2.3.4.6.{len(files)}")
        other.Modality = modality
        if sop == uid.CTImageStorage:
            if len(names) < 4:
                continue
            along = np.array(other.ImageOrientationPatient, dtype=float).reshape(2, 3)
            other.ImageOrientationPatient = [f"{x:.11f}" for x in [*along[0], *np.cross(*along)]]
            other.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        else:
            del other.PixelData
        files[f"AA{len(files)}"] = _written(other)
    screen = pydicom.dcmread(io.BytesIO(made.files[names[0]]))
    if not screen.file_meta.TransferSyntaxUID.is_encapsulated:
        screen.SOPInstanceUID = screen.file_meta.MediaStorageSOPInstanceUID = uid.UID("1.2.3.4.7.1")
        screen.PhotometricInterpretation = "PALETTE COLOR"
        files["AAscreen"] = _written(screen)
    files["Thumbs.db"] = b"\xd0\xcf\x11\xe0" + bytes(99)
    return Input("dicom export", files, ".", made.voxels_kji, made.lps_from_ijk)


def enhanced(random: Random) -> Input:
    """Return a multi-frame CT: its groups shared or of each frame, its frames in any order."""
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset

    _, voxels = voxels_of(random, "i2")
    affine = geometry(random)
    if np.linalg.det(affine[:3, :3]) < 0:
        affine[:3, 2] *= -1
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    shared, measures, plane, rescale = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [f"{x:.10g}" for x in lengths[1::-1]]
    plane.ImageOrientationPatient = [f"{x:.11f}" for x in (affine[:3, :2] / lengths[:2]).T.ravel()]
    rescale.RescaleIntercept, rescale.RescaleSlope, rescale.RescaleType = 0, 1, "HU"
    frames, order = [], random.permutation(len(voxels))
    are_shared = random.random() < 0.5
    for k in order:
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = [f"{x:.8g}" for x in affine[:3, 3] + k * affine[:3, 2]]
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    for group in [shared] if are_shared else frames:
        group.PixelMeasuresSequence, group.PlaneOrientationSequence = [measures], [plane]
        group.PixelValueTransformationSequence = [rescale]
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = random.choice([uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian])
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = uid.EnhancedCTImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid.UID("1.2.3.4.5.1")
    data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality, data.SeriesNumber = "1.2.3", "1.2.3.4.5", "CT", 1
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], frames
    data.NumberOfFrames, data.Rows, data.Columns = voxels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, random.choice(["MONOCHROME1", "MONOCHROME2"])
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.PixelData = voxels[order].tobytes()
    return Input("enhanced dicom", {"a.dcm": _written(data)}, "a.dcm", voxels, affine)


def rare(random: Random) -> Input:
    """Return a folder of slices packed with gzip, of floating-point numbers, or of plain pixels in an envelope."""
    import pydicom
    from pydicom import uid
    from pydicom.encaps import encapsulate

    made = dicom(random)
    way = str(random.choice(["gzip", "floats", "doubles", "envelope"]))
    files: dict[str, bytes] = {}
    for name, content in made.files.items():
        if way == "gzip":
            files[f"{name}.gz"] = gzip.compress(content, mtime=0)
            continue
        data = pydicom.dcmread(io.BytesIO(content))
        stored = data.pixel_array
        data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        if way == "envelope":
            data.file_meta.TransferSyntaxUID = uid.UID("1.2.840.10008.1.2.1.98")
            data.PixelData = encapsulate([stored.tobytes()])
            data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
        else:
            kind, keyword = ("<f4", "FloatPixelData") if way == "floats" else ("<f8", "DoubleFloatPixelData")
            del data.PixelData, data.BitsStored, data.HighBit, data.PixelRepresentation
            data.BitsAllocated = 8 * np.dtype(kind).itemsize
            setattr(data, keyword, stored.astype(kind).tobytes())
        files[name] = _written(data)
    return Input("rare dicom", files, ".", made.voxels_kji, made.lps_from_ijk)


def _written(data: Any) -> bytes:
    import pydicom

    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


def zipped(random: Random) -> Input:
    """Return a zip of a folder of slices."""
    made = dicom(random)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as packed:
        for name, content in made.files.items():
            packed.writestr(f"DICOM/{name}", content)
    return Input("zip", {"a.zip": stream.getvalue()}, "a.zip", made.voxels_kji, made.lps_from_ijk)
