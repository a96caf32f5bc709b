"""Files for `benchmarks.attack`: sound ones whose content is known, in every format, and damaged ones made of them.

Everything follows from one random generator, so that a number names an input.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from BrainFusionLib.geometry import FloatArray, Grid, rotation_matrix
from BrainFusionLib.io.other_transforms import Between
from BrainFusionLib.io.transform_writing import write_other_transform
from BrainFusionLib.transform import RigidTransform

Random = np.random.Generator
TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
_SIGNS_FROM_LPS = {
    "left-posterior-superior": (1, 1, 1), "LPS": (1, 1, 1), "right-anterior-superior": (-1, -1, 1), "RAS": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "LAS": (1, -1, 1),
}  # fmt: skip
_NRRD_TYPES = {
    "u1": "uchar", "i1": "int8", "u2": "ushort", "i2": "short", "u4": "uint32", "i4": "int", "u8": "uint64",
    "i8": "long long", "f4": "float", "f8": "double",
}  # fmt: skip
_META_TYPES = {
    "u1": "UCHAR", "i1": "CHAR", "u2": "USHORT", "i2": "SHORT", "u4": "UINT", "i4": "INT", "u8": "ULONG_LONG",
    "i8": "LONG_LONG", "f4": "FLOAT", "f8": "DOUBLE",
}  # fmt: skip


@dataclass
class Input:
    """One input: files by name, which of them to read, and what must come out.

    Attributes
    ----------
    name
        Its format.
    files
        Content by name.
    entry
        The file to name to the reader; "." for the folder.
    voxels_kji, lps_from_ijk
        What a volume holds, or what a picture or a transform does in one of the two; ``None`` where nothing is known.
    options
        Further arguments for the reader.
    """

    name: str
    files: dict[str, bytes]
    entry: str
    voxels_kji: npt.NDArray[Any] | None = None
    lps_from_ijk: FloatArray | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def sound_input(random: Random) -> Input:
    """Return a sound input of a random format."""
    return _MAKERS[random.integers(len(_MAKERS))](random)


def damaged_input(random: Random) -> Input:
    """Return a sound input that was damaged in one of its files; what must come out of it is not known."""
    made = sound_input(random)
    name = list(made.files)[random.integers(len(made.files))]
    content = made.files[name]
    for _ in range(random.integers(1, 3)):
        content = _DAMAGES[random.integers(len(_DAMAGES))](random, content)
    return Input(made.name, made.files | {name: content}, made.entry, options=made.options)


# ---------------------------------------------------------------- sound


def _geometry(random: Random) -> FloatArray:
    """Return voxel indices to LPS mm: any of the 48 orientations, half of them turned a little more."""
    axes = np.eye(3)[random.permutation(3)] * random.choice([-1, 1], 3)
    turn = rotation_matrix(random.uniform(0.1, 1, 3), random.uniform(-180, 180)) if random.random() < 0.5 else np.eye(3)
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ axes * random.uniform(0.3, 4, 3)
    matrix[:3, 3] = random.uniform(-200, 200, 3)
    return matrix


def _voxels(random: Random, kind: str | None = None) -> tuple[str, npt.NDArray[Any]]:
    kind = kind or TYPES[random.integers(len(TYPES))]
    shape = tuple(random.integers(2, 9, 3))
    values = random.integers(0 if kind[0] == "u" else -100, 100, shape)
    return kind, values.astype(kind)


def _exact(numbers: npt.ArrayLike, separator: str = " ") -> str:
    return separator.join(repr(float(n)) for n in np.asarray(numbers).ravel())


def _nrrd(random: Random) -> Input:
    kind, voxels = _voxels(random)
    affine, order = _geometry(random), random.choice(["<", ">"])
    space = random.choice(list(_SIGNS_FROM_LPS))
    signed = np.array(_SIGNS_FROM_LPS[space])[:, None] * affine[:3]
    encoding = random.choice(["raw", "gzip", "gz", "bzip2", "hex", "ascii"])
    data = voxels.astype(order + kind).tobytes()
    packers: dict[str, Callable[[], bytes]] = {
        "raw": lambda: data, "hex": lambda: data.hex().encode(), "bzip2": lambda: bz2.compress(data),
        "ascii": lambda: " ".join(map(str, voxels.ravel().tolist())).encode(),
    }  # fmt: skip
    packed = packers.get(encoding, lambda: gzip.compress(data, mtime=0))()
    vectors = " ".join(f"({_exact(signed[:, n], ',')})" for n in range(3))
    header = (
        f"NRRD000{random.integers(4, 6)}\n# made\ntype: {_NRRD_TYPES[kind]}\ndimension: 3\nspace: {space}\n"
        f"sizes: {' '.join(map(str, voxels.shape[::-1]))}\nspace directions: {vectors}\nkinds: domain domain domain\n"
        f"endian: {'little' if order == '<' else 'big'}\nencoding: {encoding}\n"
        f"space origin: ({_exact(signed[:, 3], ',')})\nkey:=value\n"
    )
    if random.random() < 0.7:
        return Input("nrrd", {"a.nrrd": header.encode() + b"\n" + packed}, "a.nrrd", voxels, affine)
    skip = int(random.integers(0, 9)) if encoding == "raw" else 0
    header += f"byte skip: {skip}\ndata file: a.bin\n"
    return Input("nrrd", {"a.nhdr": header.encode(), "a.bin": bytes(skip) + packed}, "a.nhdr", voxels, affine)


def _metaimage(random: Random) -> Input:
    kind, voxels = _voxels(random)
    affine, order = _geometry(random), random.choice(["<", ">"])
    packed, detached = random.random() < 0.5, random.random() < 0.3
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    data = voxels.astype(order + kind).tobytes()
    data = zlib.compress(data) if packed else data
    # ITK reads no compressed voxels without their size; other programs write none.
    size = f"CompressedDataSize = {len(data)}\n" if packed and random.random() < 0.7 else ""
    header = (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = {order == '>'}\n"
        f"CompressedData = {packed}\n{size}TransformMatrix = {_exact((affine[:3, :3] / lengths).T)}\n"
        f"Offset = {_exact(affine[:3, 3])}\nElementSpacing = {_exact(lengths)}\n"
        f"DimSize = {' '.join(map(str, voxels.shape[::-1]))}\nElementType = MET_{_META_TYPES[kind]}\n"
        f"ElementDataFile = {'a.raw' if detached else 'LOCAL'}\n"
    ).encode()
    files = {"a.mhd": header, "a.raw": data} if detached else {"a.mha": header + data}
    return Input("metaimage", files, next(iter(files)), voxels, affine)


def _nifti(random: Random) -> Input:
    nib: Any = importlib.import_module("nibabel")  # untyped
    kind, voxels = _voxels(random)
    affine = _geometry(random)
    pair, packed, form = random.random() < 0.3, random.random() < 0.5, random.choice(["sform", "qform", "both"])
    ras = np.diag([-1, -1, 1, 1]) @ affine
    made = nib.Nifti1Pair if pair else nib.Nifti1Image
    header = made.header_class(endianness=random.choice(["<", ">"]))
    header.set_data_dtype(kind)
    image = made(np.asarray(voxels).T, ras, header, dtype=np.dtype(kind))
    image.set_sform(ras, 0 if form == "qform" else 1)
    image.set_qform(ras, 0 if form == "sform" else 1)
    streams = {key: io.BytesIO() for key in image.file_map}
    for key, stream in streams.items():
        image.file_map[key].fileobj = stream
    image.to_file_map()
    names = {"header": "a.hdr", "image": "a.img" if pair else "a.nii"}
    files = {
        names[key] + (".gz" if packed else ""): gzip.compress(s.getvalue(), mtime=0) if packed else s.getvalue()
        for key, s in streams.items()
    }
    return Input("nifti", files, next(iter(files)), voxels, affine)


def _dicom(random: Random) -> Input:
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset

    kind, voxels = _voxels(random, random.choice(["u1", "i1", "u2", "i2"]))
    affine = _geometry(random)
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


def _enhanced(random: Random) -> Input:
    """Return a multi-frame CT: its groups shared or of each frame, its frames in any order."""
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset

    _, voxels = _voxels(random, "i2")
    affine = _geometry(random)
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


def _written(data: Any) -> bytes:
    import pydicom

    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


def _zip(random: Random) -> Input:
    made = _dicom(random)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as packed:
        for name, content in made.files.items():
            packed.writestr(f"DICOM/{name}", content)
    return Input("zip", {"a.zip": stream.getvalue()}, "a.zip", made.voxels_kji, made.lps_from_ijk)


def _mgh(random: Random) -> Input:
    nib: Any = importlib.import_module("nibabel")
    _, voxels = _voxels(random, str(random.choice(["u1", "i2", "i4", "f4"])))
    affine = _geometry(random)
    content = nib.MGHImage(np.asarray(voxels).T, np.diag([-1, -1, 1, 1]) @ affine).to_bytes()
    if random.random() < 0.5:
        return Input("mgh", {"a.mgz": gzip.compress(content, mtime=0)}, "a.mgz", voxels, affine)
    return Input("mgh", {"a.mgh": content}, "a.mgh", voxels, affine)


def _slice_list(random: Random) -> Input:
    """Return a MetaImage of which each slice is a file of its own."""
    made = _metaimage(random)
    voxels, affine = made.voxels_kji, made.lps_from_ijk
    assert voxels is not None
    assert affine is not None
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    names = [f"ü {k} 100%.raw" for k in range(len(voxels))]
    kind = voxels.dtype.str[1:]
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        f"TransformMatrix = {_exact((affine[:3, :3] / lengths).T)}\nOffset = {_exact(affine[:3, 3])}\n"
        f"ElementSpacing = {_exact(lengths)}\nDimSize = {' '.join(map(str, voxels.shape[::-1]))}\n"
        f"ElementType = MET_{_META_TYPES[kind]}\nElementDataFile = LIST\n" + "\n".join(names) + "\n"
    )
    slices = {name: voxels[k].astype("<" + kind).tobytes() for k, name in enumerate(names)}
    return Input("metaimage list", {"a.mhd": header.encode()} | slices, "a.mhd", voxels, affine)


def _grid(affine: FloatArray) -> Grid:
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    x, y, z = lengths.tolist()
    return Grid((9, 8, 7), (x, y, z), tuple(affine[:3, 3].tolist()), affine[:3, :3] / lengths)


def _other_transform(random: Random) -> Input:
    """Return a transform of another program: those of ITK by ITK itself, the others by our own writer."""
    import SimpleITK as sitk

    matrix = np.eye(4)
    matrix[:3, :3] = rotation_matrix(random.uniform(0.1, 1, 3), random.uniform(-180, 180))
    matrix[:3, 3] = random.uniform(-200, 200, 3)
    form = str(random.choice(["h5", "mat", "lta", "fsl", "matrix"]))
    ct, mri = (_grid(_geometry(random)) for _ in range(2))
    name = {"h5": "a.h5", "mat": "a.mat", "lta": "a.lta", "fsl": "a.mat", "matrix": "a.txt"}[form]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        if form in ("h5", "mat"):
            made = sitk.AffineTransform(3)
            made.SetMatrix(matrix[:3, :3].ravel().tolist())
            centre = random.uniform(-50, 50, 3)
            made.SetCenter(centre.tolist())
            made.SetTranslation((matrix[:3, 3] - centre + matrix[:3, :3] @ centre).tolist())
            sitk.WriteTransform(made, str(path))
        else:
            other: Any = form
            write_other_transform(RigidTransform(matrix), path, other, ct, mri)
        content = path.read_bytes()
    between = Between() if form == "matrix" else Between(ct, mri)
    return Input("transform", {name: content}, name, None, matrix, {"between": between})


def _transform(random: Random) -> Input:
    turn = rotation_matrix(random.uniform(0.1, 1, 3), random.uniform(-180, 180))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, random.uniform(-200, 200, 3)
    shift, centre = random.uniform(-50, 50, 3), random.uniform(-50, 50, 3)
    first = matrix[:3, 3] - centre + turn @ (centre - shift)
    text = (
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {_exact([*turn.ravel(), *first])}\nFixedParameters: {_exact(centre)}\n"
        "#Transform 1\nTransform: TranslationTransform_double_3_3\n"
        f"Parameters: {_exact(shift)}\nFixedParameters: \n"
    )
    return Input("transform", {"a.tfm": text.encode()}, "a.tfm", None, matrix)


def _picture(random: Random) -> Input:
    levels = random.integers(0, 256, random.integers(2, 40, 2)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, format=str(random.choice(["PNG", "BMP", "TIFF"])))
    return Input("picture", {"a.png": stream.getvalue()}, "a.png", levels, None)


_MAKERS = (
    _nrrd, _nrrd, _metaimage, _metaimage, _nifti, _nifti, _dicom, _transform, _picture,
    _enhanced, _zip, _mgh, _slice_list, _other_transform,
)  # fmt: skip


# ---------------------------------------------------------------- damaged


def _flipped(random: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.integers(1, 9)):
        # The header is where a flip does most; half of the flips go there.
        end = min(len(changed), 400) if random.random() < 0.5 else len(changed)
        changed[random.integers(end)] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _cut(random: Random, content: bytes) -> bytes:
    return content[: random.integers(1, len(content) + 1)]


def _moved(random: Random, content: bytes) -> bytes:
    start, end = sorted(random.integers(0, len(content) + 1, 2))
    return content[:start] + (content[end:] if random.random() < 0.5 else content[start:end] + content[start:])


def _other_number(random: Random, content: bytes) -> bytes:
    """Replace a number in the text of a header."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", content[:4000]))
    if not found:
        return _other_bytes(random, content)
    match = found[random.integers(len(found))]
    words = (b"0", b"-1", b"9" * 30, b"1e999", b"nan", b"99999", b"2147483647", b"", b"1 2 3 4", b"%n%s", b"1200")
    return content[: match.start()] + words[random.integers(len(words))] + content[match.end() :]


def _other_bytes(random: Random, content: bytes) -> bytes:
    """Replace two or four bytes by those of an extreme number: a length, a size, an offset."""
    width = int(random.choice([2, 4]))
    words = (
        b"\xff" * width,
        bytes(width),
        b"\xff" * (width - 1) + b"\x7f",
        b"\x7f" + b"\xff" * (width - 1),
        b"\x40\x06" * 2,
    )
    start = int(random.integers(min(len(content), 2000)))
    return content[:start] + words[random.integers(len(words))][:width] + content[start + width :]


def _long_field(random: Random, content: bytes) -> bytes:
    """Put thousands of letters into a line of the header."""
    start = int(random.integers(min(len(content), 800)))
    letters = (b"x", b"%d%n%s", b"(", b"1 ", b"\0", b"../", b"\n", b": ", b"9")
    return content[:start] + letters[random.integers(len(letters))] * int(10 ** random.uniform(1, 5)) + content[start:]


def _bomb(random: Random, content: bytes) -> bytes:
    """Put compressed zeros behind, or in the place of the voxels."""
    packed = (_ZEROS_GZIP, _ZEROS_ZLIB, bz2.compress(bytes(1 << 22)))[random.integers(3)]
    if random.random() < 0.5:
        return content + packed
    huge = re.sub(rb"(?im)^(sizes:|DimSize =).*", rb"\1 1200 1200 1200", content)
    at = max(huge.find(b"\n\n") + 2, huge.find(b"LOCAL\n") + 6)
    return (huge[:at] if at > 5 else content[: len(content) // 2]) + packed


def _other_word(random: Random, content: bytes) -> bytes:
    """Name another file, kind or format."""
    words = (b"/dev/zero", b"-", b"../a", b"LIST", b"%d%n 1 3 1", b"x" * 5000, b"", b"block", b"None", b"\xff\xfe")
    found = list(re.finditer(rb"(?m)(?<=[:=] )\S[^\n]*$", content[:4000]))
    if not found:
        return _flipped(random, content)
    match = found[random.integers(len(found))]
    return content[: match.start()] + words[random.integers(len(words))] + content[match.end() :]


_ZEROS_GZIP, _ZEROS_ZLIB = gzip.compress(bytes(1 << 26), 9, mtime=0), zlib.compress(bytes(1 << 26), 9)
_DAMAGES = (
    _flipped, _flipped, _cut, _moved, _other_number, _other_number, _other_bytes, _long_field, _bomb, _other_word,
)  # fmt: skip
