"""Reading NRRD: spaces, axes, encodings and data files against truth made by hand, and headers that used to kill."""

from __future__ import annotations

import bz2
import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest

from BrainFusionLib.errors import BrainFusionError, GeometryError, ImageFileError
from BrainFusionLib.geometry import RAS_FROM_LPS, rotation_matrix
from BrainFusionLib.io import read_volume
from BrainFusionLib.io.formats import size_ijk

SIZE = (4, 5, 6)
VOXELS = np.random.default_rng(3).integers(-900, 1200, SIZE[::-1]).astype(np.int16)
SPACES = {
    "left-posterior-superior": (1, 1, 1), "LPS": (1, 1, 1), "Left-Posterior-Superior": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1), "RAS": (-1, -1, 1), "right-anterior-superior-time": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "LAS": (1, -1, 1), "LAST": (1, -1, 1),
}  # fmt: skip
ORIENTATIONS = [
    np.array([np.eye(3)[axis] * sign for axis, sign in zip(axes, signs, strict=True)])
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
] + [rotation_matrix((1, 2, 3), 33)]
SPACING, ORIGIN = (0.8, 1.1, 2.5), (-31.5, 12.25, 7.125)


def lps_affine(direction):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = direction * np.asarray(SPACING), ORIGIN
    return matrix


def vector(numbers):
    return "(" + ",".join(repr(float(n)) for n in numbers) + ")"


def header(affine=None, signs=(1, 1, 1), extra="", **changes):
    """Return a header's text; a change of ``None`` leaves the field out, underscores in names are spaces."""
    affine = lps_affine(np.eye(3)) if affine is None else affine
    fields = {
        "type": "short", "dimension": 3, "space": "LPS", "sizes": " ".join(map(str, SIZE)),
        "space directions": " ".join(vector(np.array(signs) * affine[:3, n]) for n in range(3)),
        "kinds": "domain domain domain", "endian": "little", "encoding": "raw",
        "space origin": vector(np.array(signs) * affine[:3, 3]),
    }  # fmt: skip
    fields |= {name.replace("_", " "): value for name, value in changes.items()}
    return "NRRD0005\n" + "".join(f"{k}: {v}\n" for k, v in fields.items() if v is not None) + extra


def save(path, text=None, data=None):
    path.write_bytes(
        (header() if text is None else text).encode() + b"\n" + (VOXELS.tobytes() if data is None else data)
    )
    return path


def assert_is_whole(volume, affine=None):
    np.testing.assert_allclose(volume.grid.lps_from_ijk, lps_affine(np.eye(3)) if affine is None else affine, atol=1e-9)
    np.testing.assert_array_equal(volume.array_kji, VOXELS)


# ---------------------------------------------------------------- spaces and axes


@pytest.mark.parametrize("space", SPACES)
def test_space_is_converted_in_every_orientation(tmp_path, space):
    for direction in ORIENTATIONS:
        affine = lps_affine(direction)
        volume = read_volume(save(tmp_path / "a.nrrd", header(affine, SPACES[space], space=space)))
        assert_is_whole(volume, affine)
        assert volume.notes == ()
        assert nib.aff2axcodes(RAS_FROM_LPS @ volume.grid.lps_from_ijk) == nib.aff2axcodes(RAS_FROM_LPS @ affine)


@pytest.mark.parametrize("space", ["scanner-xyz", "3D-left-handed", "scanner-xyz-time"])
def test_space_that_does_not_say_left_and_right_is_refused(tmp_path, space):
    with pytest.raises(GeometryError, match="says nothing of the patient's left and right"):
        read_volume(save(tmp_path / "a.nrrd", header(space=space)))


@pytest.mark.parametrize("changes", [{"space": "3D-right-handed"}, {"space": None, "space_dimension": 3}])
def test_unnamed_space_is_read_as_lps_with_a_note(tmp_path, changes):
    volume = read_volume(save(tmp_path / "a.nrrd", header(**changes)))
    assert_is_whole(volume)
    assert any("does not say in which space" in note for note in volume.notes)
    assert not volume.is_oriented


def test_unknown_space_is_refused(tmp_path):
    with pytest.raises(ImageFileError, match="space 'up-down' is unknown"):
        read_volume(save(tmp_path / "a.nrrd", header(space="up-down")))


DIRECTIONS = " ".join(vector(lps_affine(np.eye(3))[:3, n]) for n in range(3))


@pytest.mark.parametrize(
    "changes",
    [
        {"sizes": "1 4 5 6", "kinds": "list domain domain domain", "space_directions": f"none {DIRECTIONS}"},
        {"sizes": "4 5 6 1", "kinds": "domain domain domain time", "space_directions": f"{DIRECTIONS} none"},
        {"sizes": "1 4 5 6", "kinds": "vector domain domain domain", "space_directions": f"none {DIRECTIONS}"},
        {"sizes": "4 1 5 6", "kinds": None, "space_directions": DIRECTIONS.replace(" ", " none ", 1)},
    ],
)
def test_axis_of_one_element_outside_space_is_dropped(tmp_path, changes):
    path = save(tmp_path / "a.nrrd", header(dimension=4, **changes))
    assert_is_whole(read_volume(path))
    assert size_ijk(path) == SIZE


@pytest.mark.parametrize(
    ("sizes", "kind", "words"),
    [
        ("2 4 5 3", "vector", "one number per voxel"),
        ("3 4 5 2", "RGB-color", "one number"),
        ("4 5 3 2", "time", "is 4D"),
    ],
)
def test_several_values_a_voxel_are_refused(tmp_path, sizes, kind, words):
    kinds, directions = f"{kind} domain domain domain", f"none {DIRECTIONS}"
    if kind == "time":
        kinds, directions = f"domain domain domain {kind}", f"{DIRECTIONS} none"
    text = header(dimension=4, sizes=sizes, kinds=kinds, space_directions=directions)
    with pytest.raises(ImageFileError, match=words):
        read_volume(save(tmp_path / "a.nrrd", text))


def test_spacings_without_directions_are_read_with_a_note(tmp_path):
    text = header(space=None, space_directions=None, space_origin=None, spacings="1 2 3", units='"mm" "mm" "mm"')
    volume = read_volume(save(tmp_path / "a.nrrd", text))
    assert volume.grid.spacing_ijk_mm == (1, 2, 3)
    assert any("no orientation" in note for note in volume.notes)
    assert not volume.is_oriented


def test_missing_origin_is_noted(tmp_path):
    assert any(
        "no position" in note for note in read_volume(save(tmp_path / "a.nrrd", header(space_origin=None))).notes
    )


@pytest.mark.parametrize("units", ['"m" "m" "m"', "um um um", '"in" "in" "in"'])
def test_other_units_than_mm_are_refused(tmp_path, units):
    with pytest.raises(GeometryError, match=r"a\.nrrd: lengths must be in mm"):
        read_volume(save(tmp_path / "a.nrrd", header(space_units=units)))


@pytest.mark.parametrize(("units", "notes"), [("mm mm mm", 0), ('"mm" "mm" "mm"', 0), ('"" "" ""', 1)])
def test_millimetres_and_empty_units_are_read(tmp_path, units, notes):
    assert len(read_volume(save(tmp_path / "a.nrrd", header(space_units=units))).notes) == notes


def test_keys_and_comments_are_not_fields(tmp_path):
    extra = "space:=RAS\nunits:=HU\nDICOM_0008_103e:=space: RAS\n# space: RAS\ncontent: a: b\n"
    assert_is_whole(read_volume(save(tmp_path / "a.nrrd", header(extra=extra))))


def test_lines_may_end_in_carriage_return(tmp_path):
    path = tmp_path / "a.nrrd"
    path.write_bytes(header().replace("\n", "\r\n").encode() + b"\r\n" + VOXELS.tobytes())
    assert_is_whole(read_volume(path))


# ---------------------------------------------------------------- voxels

ENCODINGS = {
    "raw": bytes, "gzip": gzip.compress, "gz": gzip.compress, "bzip2": bz2.compress, "bz2": bz2.compress,
    "hex": lambda data: data.hex("\n", 30).encode(),
}  # fmt: skip


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize(
    ("name", "kind"),
    [("uchar", "u1"), ("int8", "i1"), ("short", "i2"), ("uint16_t", "u2"), ("int", "i4"), ("unsigned int", "u4"),
     ("long long", "i8"), ("ulonglong", "u8"), ("float", "f4"), ("double", "f8")],
)  # fmt: skip
def test_types_orders_and_encodings_are_read(tmp_path, encoding, endian, name, kind):
    voxels = (VOXELS.astype(np.int64) % 100).astype((">" if endian == "big" else "<") + kind)
    data = ENCODINGS[encoding](voxels.tobytes())
    path = save(tmp_path / "a.nrrd", header(type=name, endian=endian, encoding=encoding), data)
    np.testing.assert_array_equal(read_volume(path).array_kji, voxels)


def test_text_is_read(tmp_path):
    data = " ".join(map(str, VOXELS.ravel())).encode()
    assert_is_whole(read_volume(save(tmp_path / "a.nrrd", header(encoding="ascii", endian=None), data)))


@pytest.mark.parametrize("odd", ["99999", "1.5", "-40000", "nan"])
def test_text_must_be_of_the_type_that_the_header_names(tmp_path, odd):
    data = " ".join([odd, *map(str, VOXELS.ravel()[1:])]).encode()
    with pytest.raises(ImageFileError, match="that are no short"):
        read_volume(save(tmp_path / "a.nrrd", header(encoding="ascii", endian=None), data))


def test_voxels_of_several_bytes_need_their_order(tmp_path):
    with pytest.raises(ImageFileError, match="order of bytes"):
        read_volume(save(tmp_path / "a.nrrd", header(endian=None)))


@pytest.mark.parametrize(("packed", "skip"), [(False, 7), (False, -1), (True, 7)])
def test_lines_and_bytes_are_skipped(tmp_path, packed, skip):
    data = b"7 bytes" + VOXELS.tobytes()
    text = header(byte_skip=skip, line_skip=2, encoding="gzip" if packed else "raw", data_file="a.bin")
    (tmp_path / "a.bin").write_bytes(b"one\ntwo\n" + (gzip.compress(data) if packed else data))
    assert_is_whole(read_volume(save(tmp_path / "a.nhdr", text, b"")))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("a.raw", ["a.raw"]),
        ("./mit Umlaut \u00fc.raw", ["mit Umlaut \u00fc.raw"]),
        ("100%.raw", ["100%.raw"]),
        ("s%03d.raw 1 6 1", [f"s{n:03d}.raw" for n in range(1, 7)]),
        ("s%d.raw 12 2 -2", [f"s{n}.raw" for n in range(12, 0, -2)]),
        ("s%02d.raw 0 1 1 3", ["s00.raw", "s01.raw"]),
        ("LIST\n" + "\n".join("fedcba"), list("fedcba")),
        ("LIST 3\nfirst\nsecond", ["first", "second"]),
    ],
)
def test_voxels_in_files_beside_the_header_are_read(tmp_path, source, names):
    for name, part in zip(names, np.split(VOXELS, len(names)), strict=True):
        (tmp_path / name).write_bytes(part.tobytes())
    path = tmp_path / "a.nhdr"
    path.write_text(header(data_file=source), encoding="utf-8")
    assert_is_whole(read_volume(path))


def test_members_of_gzip_that_follow_each_other_are_one_stream(tmp_path):
    data = VOXELS.tobytes()
    members = gzip.compress(data[:100]) + gzip.compress(data[100:]) + gzip.compress(b"")
    assert_is_whole(read_volume(save(tmp_path / "a.nrrd", header(encoding="gzip"), members)))


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    "source",
    ["%d%n.raw 1 3 1 2", "%d-%x-%lx.raw 1 3 1 2", "%20000d.raw 1 3 1", "%s.raw 1 6 1", "x" * 3000,
     "y" * 3000 + "%d 1 6 1", "%d.raw 1 999999999 1", "%d.raw 1 6 0", "-", "LIST\n" + "z" * 5000, "LIST 9", "LIST"],
)  # fmt: skip
def test_hostile_names_of_data_files_are_refused(tmp_path, source):
    with pytest.raises(ImageFileError, match=r"a\.nhdr: ") as refusal:
        read_volume(save(tmp_path / "a.nhdr", header(data_file=source), b""))
    assert len(str(refusal.value)) < 4000


@pytest.mark.parametrize("length", [100, 2_000, 80_000, 2_000_000])
def test_long_lines_are_refused(tmp_path, length):
    for line in (
        "j" * length,
        "(" * length,
        f"content: {'c' * length}",
        "k:=" + "v" * length,
        "sizes: " + "9" * length,
    ):
        with pytest.raises(ImageFileError, match=r"header is damaged|cut short") as refusal:
            read_volume(save(tmp_path / "a.nrrd", header(sizes=None, extra=line + "\n")))
        assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dimension": 99999999}, "axes"),
        ({"dimension": 4}, "gives 3 sizes"),
        ({"sizes": "4 5 -6"}, "sizes are"),
        ({"sizes": "4 5 6.5"}, "not a whole number"),
        ({"type": "block"}, "type 'block'"),
        ({"type": None}, "'type' is missing"),
        ({"encoding": "zrl"}, "encoding 'zrl' is not read"),
        ({"kinds": "domain domain"}, "kinds has 2 words"),
        ({"space_directions": "(1,0,0) (0,1,0)"}, "3 vectors are needed"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0)"}, "space directions are"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,nan)"}, "not a number"),
        ({"space_origin": "(1,2)"}, "space origin is"),
        ({"spacings": "9 9 9"}, "contradict"),
        ({"extra": "endian: big\n"}, "twice"),
        ({"extra": "colour: red\n"}, "neither a field"),
        ({"byte_skip": -2}, "cannot be skipped"),
        ({"line_skip": 400}, "lines to skip"),
    ],
)  # fmt: skip
def test_damaged_fields_are_refused(tmp_path, changes, words):
    with pytest.raises(ImageFileError, match=words):
        read_volume(save(tmp_path / "a.nrrd", header(**changes)))


def test_header_cut_anywhere_is_refused(tmp_path):
    whole = header().encode()
    for length in range(1, len(whole)):
        (tmp_path / "a.nrrd").write_bytes(whole[:length])
        with pytest.raises(BrainFusionError):
            read_volume(tmp_path / "a.nrrd")
