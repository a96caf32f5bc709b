"""The header of an NRRD file, read line by line: which fields it gives, and what they say of the axes.

Source: "Definition of NRRD File Format" (teem.sourceforge.net/nrrd/format.html). teem itself never sees a file: it
copies names and lines of any length into arrays of fixed ones, and hands names to the C library as patterns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from BrainFusionLib.errors import GeometryError, ImageFileError
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.io.reading import COPY_AGAIN, open_regular, three_sizes, what_helps
from BrainFusionLib.io.text_headers import (
    LONGEST_HEADER,
    LONGEST_LINE,
    MILLIMETRES,
    MOST_LINES,
    NO_AXES,
    NO_PLACE,
    NO_SPACING,
    brief,
    numbers,
    whole_numbers,
)

FIELDS = frozenset({
    "axismaxs", "axismins", "blocksize", "byteskip", "centerings", "centers", "content", "datafile", "dimension",
    "encoding", "endian", "kinds", "labels", "lineskip", "max", "measurementframe", "min", "number", "oldmax", "oldmin",
    "sampleunits", "sizes", "space", "spacedimension", "spacedirections", "spaceorigin", "spaceunits", "spacings",
    "thicknesses", "type", "units",
})  # fmt: skip
_NEEDED = ("type", "dimension", "sizes", "encoding")
_FIELD = re.compile(r"([A-Za-z ]+):(?!=)[ \t]*(.*)")
# What an LPS point is in each space; those with time have a fourth number, which is the volume's own.
_LPS_FROM = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
_RIGHT_HANDED = "3d-right-handed"
SPACES_WITHOUT_BODY = ("scanner-xyz", "3d-left-handed")
_ENDS_UNREAD = "the ends of the axes (axis mins) were not read: the first voxel was put at the world's origin."
_TIMED = {"lpst": "lps", "rast": "ras", "last": "las"}
_NONE = "none"
# Kinds of axes along which there are several numbers of one voxel.
_IN_ONE_VOXEL = re.compile(
    r"(\d-?d?-?(color|vector|gradient|normal|masked|symmetric|matrix|quaternion|tensor).*)|vector|covariant-vector|normal|"
    r"complex|quaternion|stub|(rgb|hsv|xyz|rgba)-color|[234]-(color|vector|gradient|normal)|scalar|point"
)
_NOT_SPACE = ("list", "time")
_VERSIONS = re.compile(rb"NRRD(00\.01|000[1-5])")
_MOST_AXES = 16


@dataclass(frozen=True)
class NrrdHeader:
    """The fields of a header by name, in lower case and without spaces.

    Attributes
    ----------
    path
        The file.
    fields
        Name and value.
    end
        Where the voxels begin, if they are in the same file (bytes).
    names_after
        Lines after ``data file: LIST``.
    """

    path: Path
    fields: dict[str, str]
    end: int
    names_after: tuple[str, ...]

    @property
    def is_detached(self) -> bool:
        """Whether the voxels are in another file."""
        return "datafile" in self.fields


@dataclass(frozen=True)
class NrrdAxes:
    """What the header says of the three axes of space.

    Attributes
    ----------
    size_ijk
        Voxels along each.
    vectors_lps_mm
        3x3, its columns from one voxel to the next along i, j and k, LPS mm.
    origin_lps_mm
        Centre of the first voxel, LPS mm, shape (3,).
    notes
        What was assumed.
    """

    size_ijk: tuple[int, int, int]
    vectors_lps_mm: FloatArray
    origin_lps_mm: FloatArray
    notes: tuple[str, ...]


def read_header(path: Path) -> NrrdHeader:
    """Read the header of an ``.nrrd`` or ``.nhdr`` file.

    Raises
    ------
    ImageFileError
        It is not NRRD, or cut short.
    ValueError
        A line is neither field, comment nor key and value; a field is missing or stands twice; a line or the whole is
        longer than any program writes.
    """
    with open_regular(path) as stream:
        text = stream.read(LONGEST_HEADER)
    if not text.startswith(b"NRRD"):
        raise ImageFileError(f"{path}: is not an NRRD file: it has the wrong name, or is damaged. {what_helps(text)}")
    fields: dict[str, str] = {}
    position, count = 0, 0
    names: list[str] | None = None
    while position < len(text):
        stop = text.find(b"\n", position)
        line = text[position : stop if stop >= 0 else len(text)].removesuffix(b"\r")
        if stop < 0 and len(text) == LONGEST_HEADER:
            raise ValueError(f"it is longer than {LONGEST_HEADER} bytes")
        position, count = stop + 1 if stop >= 0 else len(text), count + 1
        if count > MOST_LINES or len(line) > LONGEST_LINE:
            raise ValueError(f"line {count} is one more or longer than any program writes")
        if count == 1:
            if not _VERSIONS.fullmatch(line):
                version = brief(line.decode("latin-1"))
                raise ImageFileError(f"{path}: is of an NRRD version that is not read ({version}). Save it as NRRD 5.")
        elif names is not None:
            names += [line.decode("latin-1").strip()] if line.strip() else []
        elif not line:
            break
        elif not line.startswith(b"#"):
            _add(fields, line.decode("latin-1"), count)
            if fields.get("datafile", "").upper().split()[:1] == ["LIST"]:
                names = []
    else:
        if "datafile" not in fields:
            raise ImageFileError(f"{path}: its header is cut short: no empty line ends it. {COPY_AGAIN}")
    for name in _NEEDED:
        if name not in fields:
            raise ValueError(f"the field '{name}' is missing")
    return NrrdHeader(path, fields, position, tuple(names or ()))


def _add(fields: dict[str, str], line: str, number: int) -> None:
    match = _FIELD.fullmatch(line)
    name = match.group(1).lower().replace(" ", "") if match else ""
    if match and name in FIELDS:
        if name in fields:
            raise ValueError(f"the field '{name}' stands there twice")
        fields[name] = match.group(2).strip()
    elif ":=" not in line:
        raise ValueError(f"line {number}, {brief(line)}, is neither a field nor a key with a value")


def read_sizes(header: NrrdHeader) -> tuple[list[int], list[bool]]:
    """Return the sizes of all axes, and for each whether it is an axis of space.

    Raises
    ------
    ImageFileError
        Several numbers a voxel.
    GeometryError
        One of three axes has no direction.
    ValueError
        The fields do not fit to each other.
    """
    fields = header.fields
    sizes = whole_numbers(fields["sizes"])
    if whole_numbers(fields["dimension"]) != [len(sizes)] or not 1 <= len(sizes) <= _MOST_AXES:
        raise ValueError(f"it says {brief(fields['dimension'])} axes, and gives {len(sizes)} sizes")
    if min(sizes) < 1:
        raise ValueError(f"the sizes are {brief(fields['sizes'])}")
    kinds = _per_axis(fields, "kinds", len(sizes))
    directions = _directions(fields, len(sizes))
    of_space = [True] * len(sizes)
    for axis, size in enumerate(sizes):
        kind = kinds[axis].lower() if kinds else ""
        in_voxel = bool(_IN_ONE_VOXEL.fullmatch(kind))
        has_direction = directions is not None and directions[axis] is not None
        if in_voxel and size > 1:
            raise ImageFileError(
                f"{header.path}: one number per voxel is needed, but the file holds vectors, colours or complex "
                f"numbers ({size} x {kind}). Convert it to gray values first."
            )
        of_space[axis] = has_direction if directions is not None else not in_voxel and kind not in _NOT_SPACE
        if directions is not None and not has_direction and size > 1 and len(sizes) <= 3:
            raise GeometryError("an axis has no direction in space, so this is not a 3D volume. Convert the file.")
    # Further axes of one element, where nothing says which ones are those of space.
    for axis in reversed(range(len(sizes))):
        if sum(of_space) > 3 and sizes[axis] == 1 and of_space[axis]:
            of_space[axis] = False
    return sizes, of_space


def size_of(header: NrrdHeader) -> tuple[int, int, int]:
    """Return the size (i, j, k).

    Raises
    ------
    ImageFileError
        It is not a 3D volume of gray values.
    """
    sizes, of_space = read_sizes(header)
    in_space = [n for n, space in zip(sizes, of_space, strict=True) if space]
    others = [n for n, space in zip(sizes, of_space, strict=True) if not space]
    return three_sizes(header.path, [*in_space, *(n for n in others if n > 1 or len(in_space) < 3)])


def read_axes(header: NrrdHeader) -> NrrdAxes:
    """Return size, directions and position, in LPS mm.

    Raises
    ------
    ImageFileError, GeometryError, ValueError
        It is not a 3D volume, its position in the body is unknown, lengths are in other units than mm, or fields do not
        fit to each other.
    """
    size = size_of(header)
    fields = header.fields
    sizes, of_space = read_sizes(header)
    axes = [axis for axis, space in enumerate(of_space) if space]
    notes = [_units(header, "spaceunits" if "spacedirections" in fields else "units")]
    if "oldmin" in fields or "oldmax" in fields:
        notes.append("the header says that the values were rescaled when they were stored; they are as stored.")
    directions = _directions(fields, len(sizes))
    spacings = _per_axis(fields, "spacings", len(sizes))
    if directions is None:
        if spacings is None:
            notes.append(NO_SPACING)
        lengths = [float(word) for word in spacings] if spacings else [1.0] * len(sizes)
        notes += [NO_AXES, _ENDS_UNREAD if "axismins" in fields else NO_PLACE]
        return NrrdAxes(size, np.diag([lengths[axis] for axis in axes]), np.zeros(3), _said(notes))
    flip, note = _space(header)
    notes.append(note)
    vectors = np.array([directions[axis] for axis in axes], dtype=np.float64).T
    if vectors[3:].any():
        raise GeometryError("an axis of space runs along time, too, so this is not a 3D volume. Convert the file.")
    if spacings and not all(
        np.isclose(given, np.linalg.norm(vectors[:, n]), rtol=1e-3)
        for n, axis in enumerate(axes)
        if np.isfinite(given := float(spacings[axis]))
    ):
        raise ValueError("spacings and space directions contradict each other")
    origin = np.zeros(3)
    if "spaceorigin" in fields:
        (vector,) = _vectors(fields["spaceorigin"], 1)
        if vector is None or len(vector) != len(vectors):
            raise ValueError(f"the space origin is {brief(fields['spaceorigin'])}")
        origin = np.array(vector[:3])
    else:
        notes.append(NO_PLACE)
    return NrrdAxes(size, flip[:, None] * vectors[:3], flip * origin, _said(notes))


def _said(notes: list[str | None] | list[str]) -> tuple[str, ...]:
    return tuple(note for note in notes if note)


def _space(header: NrrdHeader) -> tuple[FloatArray, str]:
    """Return what turns the space of the header into LPS, and a note if that was assumed."""
    name = header.fields.get("space", "").lower()
    name = _TIMED.get(name, name.removesuffix("-time"))
    if name in _LPS_FROM:
        return np.array(_LPS_FROM[name], dtype=np.float64), ""
    if name in SPACES_WITHOUT_BODY:
        raise GeometryError(
            f"the header gives positions in the space '{name}', which says nothing of the patient's left and right. "
            "Convert the original DICOM images again."
        )
    if name not in ("", _RIGHT_HANDED):
        raise ValueError(f"the space {brief(name)} is unknown")
    return np.ones(3), (
        "the header gives no orientation: it does not say in which space its directions are. Assumed that x is left, y "
        "back and z head (LPS)."
    )


def _directions(fields: dict[str, str], count: int) -> list[list[float] | None] | None:
    if "spacedirections" not in fields:
        return None
    vectors = _vectors(fields["spacedirections"], count)
    lengths = {len(vector) for vector in vectors if vector is not None}
    dimension = whole_numbers(fields.get("spacedimension", " ".join(map(str, lengths))))
    if len(lengths) != 1 or dimension != list(lengths) or not lengths <= {2, 3, 4}:
        raise ValueError(f"the space directions are {brief(fields['spacedirections'])}")
    return [None if vector is None else [*vector, *[0.0] * (3 - len(vector))] for vector in vectors]


def _vectors(text: str, count: int) -> list[list[float] | None]:
    words = re.findall(r"none|\([^()]*\)", text)
    if len(words) != count or re.sub(r"none|\([^()]*\)|\s", "", text):
        raise ValueError(f"{count} vectors are needed, but it gives {brief(text)}")
    return [None if word == _NONE else numbers(word.strip("()")) for word in words]


def _per_axis(fields: dict[str, str], name: str, count: int) -> list[str] | None:
    """Return the words of a field with one for each axis, in quotes or not; ``None`` where it is not given."""
    if name not in fields:
        return None
    words = [quoted if quote else bare for quote, quoted, bare in re.findall(r'(")([^"]*)"|([^\s"]+)', fields[name])]
    if len(words) != count:
        raise ValueError(f"{name} has {len(words)} words, but there are {count} axes")
    return words


def _units(header: NrrdHeader, name: str) -> str:
    """Return a note where the units of length are empty, and refuse other ones than mm."""
    fields = header.fields
    if name not in fields:
        return ""
    words = re.findall(r'"([^"]*)"|([^\s"]+)', fields[name])
    units = {(quoted or bare).strip().lower() for quoted, bare in words}
    if units - {*MILLIMETRES, "", "none", "???", "s", "ms"}:
        raise GeometryError(
            f"lengths must be in mm, but the header's units are {brief(fields[name])}. Convert the file."
        )
    return "" if units & {*MILLIMETRES} else "the header's units are empty: mm were assumed."
