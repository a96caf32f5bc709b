"""The slices of a DICOM series, one or many to a file, and which of them make the volume.

What a hospital exports as one series holds more than one volume's slices: copies of files, scouts, screenshots, several
reconstructions. The largest group of slices that lie in one way decides what the series is; the few others are set
aside and counted. Where two groups are each large enough to be a volume, the user has to choose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.io.dicom_files import DicomFile, as_text, values_in
from BrainFusionLib.io.dicom_pixels import read_pixels, undecodable
from BrainFusionLib.io.reading import open_regular
from BrainFusionLib.io.text_headers import brief

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Rounded headers: cosines, and millimetres of pixel spacing.
_SAME_DIRECTION, _SAME_SPACING = 1e-3, 1e-4
# A group beside the largest that has so many slices, and this share of the largest's, may be what is wanted.
_LEAST_OF_A_VOLUME, _LEAST_SHARE = 4, 0.25
# Up to here two groups of slices differ by the gantry's tilt, not by their kind.
_TILT_DEG = 45
# Slices closer than this share of the usual distance are at one position.
_SAME_POSITION = 0.05
# What tells slices at one position from each other, by the attribute: of the file, or of a frame and its sequence.
_APART = (
    ("", "SeriesDescription"), ("", "ConvolutionKernel"), ("", "EchoTime"), ("", "ImageType"),
    ("", "AcquisitionNumber"), ("", "TemporalPositionIdentifier"), ("", "InversionTime"), ("", "ContentTime"),
    ("", "KVP"), ("", "FilterType"), ("", "SliceThickness"), ("", "FlipAngle"), ("", "RepetitionTime"),
    ("", "DiffusionBValue"), ("", "TriggerTime"), ("", "AcquisitionTime"), ("", "SeriesTime"), ("", "EchoNumbers"),
    ("", "ScanOptions"), ("", "SequenceName"), ("", "ProtocolName"), ("", "ContrastBolusAgent"),
    ("FrameContentSequence", "StackID"), ("FrameContentSequence", "TemporalPositionIndex"),
    ("MREchoSequence", "EffectiveEchoTime"), ("MRImageFrameTypeSequence", "FrameType"),
    ("MRImageFrameTypeSequence", "ComplexImageComponent"), ("CTImageFrameTypeSequence", "FrameType"),
    ("CTReconstructionSequence", "ConvolutionKernel"), ("MRDiffusionSequence", "DiffusionBValue"),
    ("MRDiffusionSequence/DiffusionGradientDirectionSequence", "DiffusionGradientOrientation"),
)  # fmt: skip
# What is not of a volume, for one and for many.
_COPY = ("identical copy", "identical copies")
_EXTRA = ("image at the place of a slice (a projection?)", "images at the places of slices (projections?)")
# Of these attributes together: echoes of several time points, each as magnitude and phase.
_MOST_TOGETHER = 3


@dataclass(frozen=True, eq=False)
class Plane:
    """One slice: a file, and which of its frames (counted from 0).

    Attributes
    ----------
    holders
        Where its attributes are looked for: the frame's functional groups, those shared by all frames, the file.
    position, orientation, spacing
        As DICOM gives them (3, 6 and 2 numbers, LPS mm); empty where they are missing.
    """

    file: DicomFile
    frame: int
    holders: tuple[Dataset, ...]
    position: FloatArray
    orientation: FloatArray
    spacing: FloatArray

    @property
    def is_placed(self) -> bool:
        """Whether its position in the patient is known."""
        return len(self.position) == 3 and len(self.orientation) == 6 and len(self.spacing) == 2

    @property
    def height_mm(self) -> float:
        """Position along the normal of the plane, mm."""
        return float(np.cross(self.orientation[:3], self.orientation[3:]) @ self.position)

    def value(self, sequence: str, keyword: str) -> str:
        """Return an attribute of the frame as text, by its sequence (with those around it); of the file without one."""
        if not sequence:
            return self.file.text(keyword)
        items = list(self.holders)
        for name in sequence.split("/"):
            items = [inner for item in items for inner in item.get(name, [])]
        return next((as_text(item.get(keyword)) for item in items if keyword in item), "")

    @property
    def frame_of_reference(self) -> str:
        """The UID of the coordinates that its position is in."""
        return self.file.text("FrameOfReferenceUID")


@dataclass(frozen=True, eq=False)
class Group:
    """Slices that may be one volume; `label` tells it from others of the series, `aside` says what is not in it."""

    planes: tuple[Plane, ...]
    label: str = ""
    aside: tuple[tuple[str, int], ...] = ()


def planes_of(file: DicomFile) -> list[Plane]:
    """Return the slices of a file.

    Raises
    ------
    ImageFileError
        The functional groups are damaged, or not as many as there are frames.
    """
    try:
        frames = list(file.dataset.get("PerFrameFunctionalGroupsSequence", []))
        shared = list(file.dataset.get("SharedFunctionalGroupsSequence", []))[:1]
        if file.frames != 1 and frames and len(frames) != file.frames:
            raise ImageFileError(
                f"{file.path}: the {file.frames} frames of this multi-frame DICOM file cannot be positioned reliably: "
                f"there are groups of attributes for {len(frames)}. Export it again as single-frame DICOM, or convert "
                "it to NIfTI with dcm2niix."
            )
        if file.frames != 1 and not frames:  # the one position that there may be is not that of all
            return [Plane(file, 0, (*shared, file.dataset), *(np.empty(0) for _ in range(3)))]
        count = len(frames) or 1
        return [_plane(file, n, (*frames[n : n + 1], *shared)) for n in range(count)]
    except ImageFileError:
        raise
    except Exception as error:  # pydicom parses sequences only here, and raises errors of many kinds
        raise undecodable(file.path) from error


def _plane(file: DicomFile, frame: int, groups: tuple[Dataset, ...]) -> Plane:
    def numbers(sequence: str, keyword: str, count: int) -> FloatArray:
        for holder in (*(item for group in groups for item in group.get(sequence, [])), file.dataset):
            values = values_in(holder, keyword)
            if len(values) == count:
                return np.array(values)
        return np.empty(0)

    return Plane(
        file,
        frame,
        (*groups, file.dataset),
        numbers("PlanePositionSequence", "ImagePositionPatient", 3),
        numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        numbers("PixelMeasuresSequence", "PixelSpacing", 2),
    )


def groups_of(files: Sequence[DicomFile]) -> list[Group]:
    """Return what of a series' files may be one volume each, the largest first; at least one group.

    Raises
    ------
    ImageFileError
        As `planes_of`.
    """
    copies, planes = _without_copies(files)
    aside = [_COPY] * copies
    gray = [plane for plane in planes if not plane.file.is_colour]
    if gray:
        aside += [("colour image (a screenshot?)", "colour images (screenshots?)")] * (len(planes) - len(gray))
        planes = gray
    scouts = [plane for plane in planes if "LOCALIZER" in plane.value("", "ImageType").split("/")]
    if 2 * len(scouts) < len(planes):
        aside += [("scout (LOCALIZER)", "scouts (LOCALIZER)")] * len(scouts)
        planes = [plane for plane in planes if plane not in scouts]
    placed = [plane for plane in planes if plane.is_placed]
    if not placed:
        return [Group(tuple(planes), aside=_counted(aside))]
    alike = sorted(_alike(placed), key=len, reverse=True)
    main = len(alike[0])
    large = [
        group for group in alike if len(group) >= max(_LEAST_OF_A_VOLUME, _LEAST_SHARE * main) or group is alike[0]
    ]
    small = [plane for group in alike[len(large) :] for plane in group]
    aside += [_lack_of_place(plane) for plane in planes if not plane.is_placed]
    aside += [_oddity(plane, alike[0][0]) for plane in small]
    found = []
    for group in large:
        parts, extra = _without_extra(_told_apart(group))
        others = list(aside) + [_EXTRA] * extra
        if len(parts) == 1:
            label, part = parts[0]
            kept = _without_repeats(part)
            parts = [(label, kept)]
            others = [_COPY] * (len(part) - len(kept)) + others
        for label, part in parts:
            described = _described(group[0], alike[0][0]) if len(large) > 1 else ""
            found.append(Group(tuple(part), ", ".join(filter(None, (described, label))), _counted(others)))
    return found


def _counted(kinds: Sequence[tuple[str, str]]) -> tuple[tuple[str, int], ...]:
    """Return kinds in words, singular or plural, with how often each came."""
    return tuple((one if count == 1 else many, count) for (one, many), count in Counter(kinds).items())


def _without_copies(files: Sequence[DicomFile]) -> tuple[int, list[Plane]]:
    """Return how many files are copies of another, and the slices of the others."""
    by_key: dict[tuple[Any, ...], list[DicomFile]] = {}
    kept: list[Plane] = []
    copies = 0
    for file in files:
        planes = planes_of(file)
        uid = file.text("SOPInstanceUID")
        key = (uid, file.size_ij, tuple(plane.position.tobytes() for plane in planes))
        before = by_key.setdefault(key, []) if uid else []
        if any(_same_pixels(file, other) for other in before):
            copies += 1
        else:
            before.append(file)
            kept += planes
    return copies, kept


def _same_pixels(a: DicomFile, b: DicomFile) -> bool:
    with open_regular(a.path) as left, open_regular(b.path) as right:
        while (piece := left.read(1 << 20)) == right.read(1 << 20):
            if not piece:
                return True
    # Written again by another program: other bytes, the same image.
    left_pixels, right_pixels = (read_pixels(file.path, file.dataset, file.pixels) for file in (a, b))
    return bool(np.array_equal(left_pixels, right_pixels))


def _without_repeats(planes: list[Plane]) -> list[Plane]:
    """Return planes without those that show the pixels of another at its position, if one for each position is left.

    An archive that sends a series twice gives its images new UIDs.
    """
    if _one_each(planes) or any(plane.file.frames > 1 for plane in planes):
        return planes
    by_position: dict[bytes, list[Plane]] = {}
    for plane in planes:
        before = by_position.setdefault(plane.position.tobytes(), [])
        if not any(_same_pixels(plane.file, other.file) for other in before):
            before.append(plane)
    kept = [plane for plane in planes if plane in by_position[plane.position.tobytes()]]
    return kept if _one_each(kept) else planes


def _alike(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Return planes by modality, size, frame of reference, spacing and direction."""
    stated = Counter(plane.frame_of_reference for plane in planes if plane.frame_of_reference)
    # Some de-identification gives each slice one of its own, which says nothing; nor does an empty one.
    are_shared = bool(stated) and 2 * len(stated) <= len({plane.position.tobytes() for plane in planes})
    usual = max(stated, key=stated.__getitem__, default="")
    groups: list[list[Plane]] = []
    keys: list[tuple[Any, ...]] = []
    numbers: npt.NDArray[np.float64] = np.empty((0, 8))
    limits = np.array([_SAME_SPACING] * 2 + [_SAME_DIRECTION] * 6)
    for plane in planes:
        key = (
            plane.file.text("Modality"),
            plane.file.size_ij,
            (plane.frame_of_reference or usual) if are_shared else "",
        )
        row = np.concatenate([plane.spacing, plane.orientation])
        close = np.flatnonzero((np.abs(numbers - row) <= limits).all(axis=1))
        match = next((n for n in close if keys[n] == key), None)
        if match is None:
            groups.append([plane])
            keys.append(key)
            numbers = np.vstack([numbers, row])
        else:
            groups[match].append(plane)
    return groups


def _lack_of_place(plane: Plane) -> tuple[str, str]:
    """Say, for one and for many, why the position of a plane is not known."""
    if plane.file.frames > 1:
        return (
            "frame without its position, orientation or pixel spacing (a slice that is missing)",
            "frames without their position, orientation or pixel spacing (slices that are missing)",
        )
    if len(plane.position) == 3 and len(plane.orientation) == 6:
        return (
            "image without its pixel spacing (a damaged slice?)",
            "images without their pixel spacing (damaged slices?)",
        )
    return ("image without a position (a screenshot?)", "images without a position (screenshots?)")


def _oddity(plane: Plane, usual: Plane) -> tuple[str, str]:
    """Say, for one and for many, why a plane is not of the volume."""
    if plane.file.text("Modality") != usual.file.text("Modality"):
        word = plane.file.modality or "unknown"
        return (f"image of modality {word}", f"images of modality {word}")
    if np.abs(plane.orientation - usual.orientation).max() > _SAME_DIRECTION:
        return ("image that points in another direction (a scout?)", "images that point in other directions (scouts?)")
    if plane.file.size_ij == usual.file.size_ij and np.abs(plane.spacing - usual.spacing).max() <= _SAME_SPACING:
        return (
            "image in another frame of reference (a reformatted one?)",
            "images in another frame of reference (reformatted ones?)",
        )
    return ("image of another size or pixel spacing", "images of another size or pixel spacing")


def _described(plane: Plane, usual: Plane) -> str:
    size = " x ".join(str(n) for n in plane.file.size_ij)
    normal = np.abs(np.cross(plane.orientation[:3], plane.orientation[3:]))
    cosine = float(
        np.cross(plane.orientation[:3], plane.orientation[3:]) @ np.cross(usual.orientation[:3], usual.orientation[3:])
    )
    turned = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    words = f", turned by {turned:.2f} degrees against the first" if 0 < turned < _TILT_DEG else ""
    if np.abs(plane.spacing - usual.spacing).max() > _SAME_SPACING:
        words += f", {plane.spacing[1]:.6g} x {plane.spacing[0]:.6g} mm apart"
    if plane.frame_of_reference != usual.frame_of_reference:
        words += ", in another frame of reference than the first"
    return f"{('sagittal', 'coronal', 'axial')[int(np.argmax(normal))]} slices of {size} pixels{words}"


def _told_apart(planes: Sequence[Plane]) -> list[tuple[str, list[Plane]]]:
    """Return planes by what tells those at one position apart: one attribute or a few together; all where none does."""
    if _one_each(planes):
        return [("", list(planes))]
    most = max(2, len(planes) // 2)
    known = [(keyword, [plane.value(sequence, keyword) for plane in planes]) for sequence, keyword in _APART]
    for found in (known, _dimensions(planes)):
        differing = [(keyword, values) for keyword, values in found if 1 < len(set(values)) <= most]
        for chosen in (some for count in range(1, _MOST_TOGETHER + 1) for some in combinations(differing, count)):
            parts: dict[tuple[str, ...], list[Plane]] = {}
            for values, plane in zip(zip(*(values for _, values in chosen), strict=True), planes, strict=True):
                parts.setdefault(values, []).append(plane)
            if len(parts) <= most and all(_one_each(part) for part in parts.values()):
                return [
                    (", ".join(_valued(name, value) for (name, _), value in zip(chosen, values, strict=True)), part)
                    for values, part in parts.items()
                ]
    return [("", list(planes))]


def _without_extra(parts: list[tuple[str, list[Plane]]]) -> tuple[list[tuple[str, list[Plane]]], int]:
    """Return parts without those of a few images at places that the largest part has, too; and how many they are."""
    main = max((part for _, part in parts), key=len)
    places = {plane.position.tobytes() for plane in main}
    least = max(_LEAST_OF_A_VOLUME, _LEAST_SHARE * len(main))

    def is_extra(part: list[Plane]) -> bool:
        return len(part) < least <= len(main) and all(plane.position.tobytes() in places for plane in part)

    kept = [(label, part) for label, part in parts if not is_extra(part)]
    extra = sum(len(part) for _, part in parts) - sum(len(part) for _, part in kept)
    return (kept if len(kept) > 1 or not extra else [("", main)]), extra


def _valued(keyword: str, value: str) -> str:
    return f"{keyword} {brief(value) if value else '(none)'}"


def _dimensions(planes: Sequence[Plane]) -> list[tuple[str, list[str]]]:
    """Return each of the frames' Dimension Index Values, which number them where nothing known tells them apart."""
    rows = [plane.value("FrameContentSequence", "DimensionIndexValues").split("/") for plane in planes]
    if len({len(row) for row in rows}) > 1:
        return []
    return [(f"dimension {n}", list(column)) for n, column in enumerate(zip(*rows, strict=True), 1)]


def _one_each(planes: Sequence[Plane]) -> bool:
    """Return whether no two planes are at one position."""
    heights = np.sort([plane.height_mm for plane in planes])
    gaps = np.diff(heights)
    return not len(gaps) or bool(gaps.min() >= max(0.01, _SAME_POSITION * float(np.median(gaps))))
