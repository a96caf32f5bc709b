"""Files for `benchmarks.attack`: sound ones whose content is known, in every format, and damaged ones made of them.

Everything follows from one random generator, so that a number names an input.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.attack_damages import DAMAGES, TEXT_DAMAGES
from benchmarks.attack_dicom import dicom, enhanced, export, rare, zipped
from benchmarks.attack_parts import Input, Random, exact, geometry, voxels_of
from benchmarks.attack_texts import MAKERS as TEXT_MAKERS
from BrainFusionLib.geometry import RAS_FROM_LPS, FloatArray, Grid, rotation_matrix
from BrainFusionLib.io.other_transforms import Between
from BrainFusionLib.io.transform_writing import write_other_transform
from BrainFusionLib.transform import RigidTransform

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


def sound_input(random: Random) -> Input:
    """Return a sound input of a random format."""
    return _MAKERS[random.integers(len(_MAKERS))](random)


def damaged_input(random: Random) -> Input:
    """Return a sound input that was damaged in one of its files; what must come out of it is not known."""
    made = sound_input(random)
    name = list(made.files)[random.integers(len(made.files))]
    content = made.files[name]
    damages = DAMAGES if made.read is None else (*DAMAGES, *TEXT_DAMAGES)
    for _ in range(random.integers(1, 3)):
        if content:
            content = damages[random.integers(len(damages))](random, content)
    return Input(made.name, made.files | {name: content}, made.entry, options=made.options, read=made.read)


def _nrrd(random: Random) -> Input:
    kind, voxels = voxels_of(random)
    affine, order = geometry(random), random.choice(["<", ">"])
    space = random.choice(list(_SIGNS_FROM_LPS))
    signed = np.array(_SIGNS_FROM_LPS[space])[:, None] * affine[:3]
    encoding = random.choice(["raw", "gzip", "gz", "bzip2", "hex", "ascii"])
    data = voxels.astype(order + kind).tobytes()
    packers: dict[str, Callable[[], bytes]] = {
        "raw": lambda: data, "hex": lambda: data.hex().encode(), "bzip2": lambda: bz2.compress(data),
        "ascii": lambda: " ".join(map(str, voxels.ravel().tolist())).encode(),
    }  # fmt: skip
    packed = packers.get(encoding, lambda: gzip.compress(data, mtime=0))()
    vectors = " ".join(f"({exact(signed[:, n], ',')})" for n in range(3))
    header = (
        f"NRRD000{random.integers(4, 6)}\n# made\ntype: {_NRRD_TYPES[kind]}\ndimension: 3\nspace: {space}\n"
        f"sizes: {' '.join(map(str, voxels.shape[::-1]))}\nspace directions: {vectors}\nkinds: domain domain domain\n"
        f"endian: {'little' if order == '<' else 'big'}\nencoding: {encoding}\n"
        f"space origin: ({exact(signed[:, 3], ',')})\nkey:=value\n"
    )
    if random.random() < 0.7:
        return Input("nrrd", {"a.nrrd": header.encode() + b"\n" + packed}, "a.nrrd", voxels, affine)
    skip = int(random.integers(0, 9)) if encoding == "raw" else 0
    header += f"byte skip: {skip}\ndata file: a.bin\n"
    return Input("nrrd", {"a.nhdr": header.encode(), "a.bin": bytes(skip) + packed}, "a.nhdr", voxels, affine)


def _metaimage(random: Random) -> Input:
    kind, voxels = voxels_of(random)
    affine, order = geometry(random), random.choice(["<", ">"])
    packed, detached = random.random() < 0.5, random.random() < 0.3
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    data = voxels.astype(order + kind).tobytes()
    data = zlib.compress(data) if packed else data
    # ITK reads no compressed voxels without their size; other programs write none.
    size = f"CompressedDataSize = {len(data)}\n" if packed and random.random() < 0.7 else ""
    header = (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = {order == '>'}\n"
        f"CompressedData = {packed}\n{size}TransformMatrix = {exact((affine[:3, :3] / lengths).T)}\n"
        f"Offset = {exact(affine[:3, 3])}\nElementSpacing = {exact(lengths)}\n"
        f"DimSize = {' '.join(map(str, voxels.shape[::-1]))}\nElementType = MET_{_META_TYPES[kind]}\n"
        f"ElementDataFile = {'a.raw' if detached else 'LOCAL'}\n"
    ).encode()
    files = {"a.mhd": header, "a.raw": data} if detached else {"a.mha": header + data}
    return Input("metaimage", files, next(iter(files)), voxels, affine)


def _nifti(random: Random) -> Input:
    nib: Any = importlib.import_module("nibabel")  # untyped
    kind, voxels = voxels_of(random)
    affine = geometry(random)
    pair, packed, form = random.random() < 0.3, random.random() < 0.5, random.choice(["sform", "qform", "both"])
    ras = np.diag([-1, -1, 1, 1]) @ affine
    made = nib.Nifti1Pair if pair else nib.Nifti1Image
    header = made.header_class(endianness=random.choice(["<", ">"]))
    header.set_data_dtype(kind)
    header["xyzt_units"] = random.choice([0, 2])
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


def _sheared(random: Random) -> Input:
    """Return a tilted CT as dcm2niix writes it: each slice a whole pixel further, so that straightening it is exact."""
    nib: Any = importlib.import_module("nibabel")
    kind, voxels = voxels_of(random, str(random.choice(["i2", "f4", "u1"])))
    count, rows, columns = voxels.shape
    straight, step = geometry(random), int(random.choice([-1, 1]))
    lengths = np.linalg.norm(straight[:3, :3], axis=0)
    straight[:3, 2] *= lengths[1] / np.tan(np.deg2rad(random.uniform(3, 30))) / lengths[2]
    sheared, first = straight.copy(), min(0, step * (count - 1))
    sheared[:3, 2] += step * straight[:3, 1]
    image = nib.Nifti1Image(np.asarray(voxels).T, np.diag([-1, -1, 1, 1]) @ sheared)
    image.set_qform(None, 0)
    canvas = np.full((count, rows + count - 1, columns), voxels.min(), kind)
    for k in range(count):
        start = k * step - first
        canvas[k, start : start + rows] = voxels[k]
    straight[:3, 3] += first * straight[:3, 1]
    return Input("sheared nifti", {"a.nii": image.to_bytes()}, "a.nii", canvas, straight)


def _mgh(random: Random) -> Input:
    nib: Any = importlib.import_module("nibabel")
    _, voxels = voxels_of(random, str(random.choice(["u1", "i2", "i4", "f4"])))
    affine = geometry(random)
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
        f"TransformMatrix = {exact((affine[:3, :3] / lengths).T)}\nOffset = {exact(affine[:3, 3])}\n"
        f"ElementSpacing = {exact(lengths)}\nDimSize = {' '.join(map(str, voxels.shape[::-1]))}\n"
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
    ct, mri = (_grid(geometry(random)) for _ in range(2))
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


def _elastix(random: Random) -> Input:
    turn, shift, centre = rotation_matrix((1, 0, 0), angle := random.uniform(-90, 90)), *random.uniform(-50, 50, (2, 3))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, shift + centre - turn @ centre
    end = random.choice(["\n", "\r\n"])
    lines = [
        '(Transform "EulerTransform")', "(NumberOfParameters 6)", "// made",
        f"(TransformParameters {exact([np.deg2rad(angle), 0, 0, *shift])})",
        f"(CenterOfRotationPoint {exact(centre)})", '(InitialTransformParametersFileName "NoInitialTransform")',
        '(UseDirectionCosines "true")', "(FixedImageDimension 3)", "(MovingImageDimension 3)",
    ]  # fmt: skip
    options = {"between": Between(maps="mri-to-ct")}
    return Input("transform", {"a.txt": end.join(lines).encode()}, "a.txt", None, matrix, options)


def _mni(random: Random) -> Input:
    """Return a linear transform of the MNI's programs, in RAS, from the points of the MRI to those of the CT."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_matrix(random.uniform(0.1, 1, 3), random.uniform(-180, 180))
    matrix[:3, 3] = random.uniform(-200, 200, 3)
    rows = "\n".join(f" {exact(row)}" for row in (RAS_FROM_LPS @ matrix @ RAS_FROM_LPS)[:3])
    text = f"MNI Transform File\n%made\n\nTransform_Type = Linear;\nLinear_Transform =\n{rows};\n"
    return Input("transform", {"a.xfm": text.encode()}, "a.xfm", None, matrix, {"between": Between(maps="mri-to-ct")})


def _transform(random: Random) -> Input:
    turn = rotation_matrix(random.uniform(0.1, 1, 3), random.uniform(-180, 180))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, random.uniform(-200, 200, 3)
    shift, centre = random.uniform(-50, 50, 3), random.uniform(-50, 50, 3)
    first = matrix[:3, 3] - centre + turn @ (centre - shift)
    text = (
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {exact([*turn.ravel(), *first])}\nFixedParameters: {exact(centre)}\n"
        "#Transform 1\nTransform: TranslationTransform_double_3_3\n"
        f"Parameters: {exact(shift)}\nFixedParameters: \n"
    )
    mark = random.choice([b"", b"\xef\xbb\xbf"])
    return Input("transform", {"a.tfm": mark + text.encode()}, "a.tfm", None, matrix)


def _picture(random: Random) -> Input:
    levels = random.integers(0, 256, random.integers(2, 40, 2)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, format=str(random.choice(["PNG", "BMP", "TIFF"])))
    return Input("picture", {"a.png": stream.getvalue()}, "a.png", levels, None)


_MAKERS = (
    _nrrd, _nrrd, _metaimage, _metaimage, _nifti, _nifti, dicom, _transform, _picture,
    enhanced, zipped, _mgh, _slice_list, _other_transform, _sheared, export,
    _elastix, _mni, rare, *TEXT_MAKERS,
)  # fmt: skip
