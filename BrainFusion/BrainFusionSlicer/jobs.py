"""What goes to the worker process and what comes back: voxels in files of one folder, all else as one line of JSON.

The messages are frozen dataclasses, and `BrainFusionLib.case.codec` writes and reads them without loss. Nothing is
pickled. Imports no slicer, so that the worker, which is a plain Python, can read it, too.
"""

# No `from __future__ import annotations`: types as text would be looked up in `sys.modules`, where after Slicer's
# Reload there are other classes of the same names.

import json
import os
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from BrainFusionLib import errors
from BrainFusionLib.acquisition import Acquisition, with_patient
from BrainFusionLib.case import Inputs, Request, Result, from_document, to_document
from BrainFusionLib.case.decision import Standing
from BrainFusionLib.errors import BrainFusionError, RegistrationError, Remedy
from BrainFusionLib.geometry import FloatArray, Grid
from BrainFusionLib.io.dicom_attributes import Doubt
from BrainFusionLib.settings import Side
from BrainFusionLib.tilt import placed
from BrainFusionLib.transform import Transform
from BrainFusionLib.volume import Modality, Volume, VoxelArray

# Voxels are written in pieces of this many bytes, so that the window stays alive between them.
PIECE_BYTES = 16_000_000


class MadeOnUse(Protocol):
    """What stands for an array whose voxels take a while to make: `warped.WarpedVoxels`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """The number of voxels."""

    @property
    def nbytes(self) -> int:
        """The number of bytes."""

    def pieces(self) -> Iterator[npt.NDArray[Any]]:
        """Yield all voxels in their order, a few milliseconds' worth at a time."""

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return all voxels."""

    def __getitem__(self, slices: slice) -> npt.NDArray[Any]:
        """Return some slices."""


@dataclass(frozen=True, eq=False)
class RawVolume:
    """A volume as a node holds it: voxels of any number type, maybe a view of the node's own memory, or made on use.

    ``array_kji`` has the shape (k, j, i); ``lps_from_ijk`` is its 4x4 affine to world LPS mm, sheared where the gantry
    was tilted.
    """

    array_kji: "npt.NDArray[Any] | MadeOnUse"
    lps_from_ijk: FloatArray
    modality: Modality | None
    name: str
    acquisition: Acquisition | None = None

    def copied(self) -> Volume:
        """Return a library volume with float32 voxels of its own; a gantry tilt is straightened."""
        array = np.array(self.array_kji, dtype=np.float32)
        volume = placed(array, self.lps_from_ijk, modality=self.modality, name=self.name)
        return replace(volume, acquisition=self.acquisition)


@dataclass(frozen=True, eq=False)
class RawInputs:
    """The volumes of a request as their nodes hold them: what `case.Inputs` is, before it is copied."""

    ct: RawVolume
    mri: RawVolume
    mri_mask: RawVolume | None = None

    def copied(self) -> Inputs:
        """Return library volumes with voxels of their own."""
        return _copied(self.by_role())

    def by_role(self) -> dict[str, RawVolume]:
        """Return the volumes that are there, by the name of their field."""
        found = {"ct": self.ct, "mri": self.mri, "mri_mask": self.mri_mask}
        return {role: volume for role, volume in found.items() if volume is not None}


def _copied(raw: dict[str, RawVolume]) -> Inputs:
    mask = raw.get("mri_mask")
    return Inputs(raw["ct"].copied(), raw["mri"].copied(), None if mask is None else mask.copied())


@dataclass(frozen=True, eq=False)
class ExportOrder:
    """What to export as DICOM series, and where to.

    target - A folder that holds nothing called ``fused``, ``ct_in_mri`` or ``mri_in_ct``.
    mri_files, ct_files - The files of the two series; none if that one is not DICOM.
    moved_from_fixed - From points of the fused volume to points of the one that was moved, and is written, too (the CT,
        or with the CT as reference the MRI), LPS mm; None if it is on the fused volume's grid.
    window - Lowest and highest value that the fused volume is shown with.
    pose - The same between the frames of the two series, for the registration object; None without one.
    place - The reference's own grid, if the fused volume is on another one.
    doubt - What each object says of itself, or None.
    reference - Whose patient, study and position the results get.
    bone_rule - How the bone was found, for people.
    """

    target: Path
    mri_files: tuple[str, ...]
    ct_files: tuple[str, ...]
    moved_from_fixed: Transform | None
    window: tuple[float, float] | None
    pose: Transform | None = None
    place: Grid | None = None
    doubt: Doubt | None = None
    reference: Side = "mri"
    bone_rule: str = ""


@dataclass(frozen=True, eq=False)
class ReportOrder:
    """A report to be written: of what result, and where to.

    path - The page.
    result - The record of the result, without voxels.
    standings - The decisions about it, with whether they hold.
    ct_from_mri - From points of the fused volume to points of the CT, LPS mm; None if the CT is on its grid.
    """

    path: Path
    result: Result
    standings: tuple[Standing, ...]
    ct_from_mri: Transform | None


@dataclass(frozen=True)
class ShapesOrder:
    """Skull and brain to be found in a CT and an MRI, to be shown in 3D (`shapes`)."""


@dataclass(frozen=True, eq=False)
class Shapes:
    """What is shown in 3D, in the frame that the CT and the MRI were given in, LPS mm.

    head_lps_mm - The corners of a box around the head, along the CT's axes, shape (8, 3).
    bone - 1 in the bone, on a grid of the CT's; None if there is none.
    brain - 1 in the brain, on a grid of the MRI's; None if it was not found.
    """

    head_lps_mm: FloatArray
    bone: Volume | None
    brain: Volume | None


WritingOrder = ExportOrder | ReportOrder | ShapesOrder


# ---- the messages ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class RawHeader:
    """A `RawVolume` without its voxels; those are in the job's folder, under the volume's role.

    ``patient`` tells the patients of one job apart, and is made for the job: the digest of the ID stays in Slicer.
    """

    lps_from_ijk: FloatArray
    modality: Modality | None
    name: str
    acquisition: Acquisition | None = None
    patient: str | None = None


@dataclass(frozen=True, eq=False)
class JobMessage:
    """To the worker: fuse what is in a folder, and write the volumes of the result there."""

    folder: Path
    request: Request
    volumes: dict[str, RawHeader]


@dataclass(frozen=True, eq=False)
class ExportMessage:
    """To the worker: write DICOM series, or the report, of what is in a folder, or find what to show of it in 3D."""

    folder: Path
    order: WritingOrder
    volumes: dict[str, RawHeader]


Order = JobMessage | ExportMessage


@dataclass(frozen=True, eq=False)
class Sent:
    """To the worker."""

    order: Order


@dataclass(frozen=True)
class Ready:
    """The worker has started; ``pid`` is its process id, which may not be that of the command that was started."""

    pid: int


@dataclass(frozen=True)
class Stage:
    """How far a stage of the job is, 0 to 1."""

    name: str
    fraction: float


@dataclass(frozen=True)
class Notice:
    """Something that the user may want to know, and that ends nothing."""

    text: str


@dataclass(frozen=True)
class Failure:
    """The job ended with an error: its class, and what it holds. ``remedy`` is the name of a `Remedy`."""

    kind: str
    problem: str
    remedy: str | None = None
    details: str = ""
    best_transform: Transform | None = None


@dataclass(frozen=True, eq=False)
class Done:
    """The job is done; the voxels of the result are in the job's folder."""

    result: Result


@dataclass(frozen=True)
class Exported:
    """The export is done; these files were written."""

    files: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Found:
    """Skull and brain were found; their voxels are in the job's folder."""

    shapes: Shapes


Said = Ready | Stage | Notice | Failure | Done | Exported | Found


@dataclass(frozen=True, eq=False)
class Message:
    """From the worker."""

    said: Said


class VoxelFiles(MutableMapping[str, VoxelArray]):
    """The arrays of one folder, each in an .npy file under its key; read as they are looked at (memory maps)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __setitem__(self, key: str, array: VoxelArray) -> None:
        with self._opened(key) as file:
            np.save(file, array, allow_pickle=False)

    def __getitem__(self, key: str) -> VoxelArray:
        try:
            array: VoxelArray = np.load(self._path(key), mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise KeyError(key) from None
        return array

    def __delitem__(self, key: str) -> None:
        try:
            self._path(key).unlink()
        except FileNotFoundError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in sorted(self._folder.glob("*.npy")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def set_in_pieces(self, key: str, array_kji: npt.NDArray[Any] | MadeOnUse) -> Iterator[int]:
        """Write an array of any number type, a few milliseconds at a time; yield how many bytes were written."""
        header = {
            "descr": np.lib.format.dtype_to_descr(array_kji.dtype),
            "fortran_order": False,
            "shape": array_kji.shape,
        }
        with self._opened(key) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for piece in _pieces(array_kji):
                file.write(np.ascontiguousarray(piece).data)
                yield piece.nbytes

    def _opened(self, key: str) -> IO[bytes]:
        """Open a new file that nobody else can read: it holds a patient's data."""
        return open(self._path(key), "wb", opener=lambda path, flags: os.open(path, flags, 0o600))

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.npy"


def _pieces(array_kji: npt.NDArray[Any] | MadeOnUse) -> Iterator[npt.NDArray[Any]]:
    if isinstance(array_kji, np.ndarray):
        slices = max(1, PIECE_BYTES // max(1, array_kji[:1].nbytes))
        return (array_kji[first : first + slices] for first in range(0, len(array_kji), slices))
    return array_kji.pieces()


def write_job(request: Request | WritingOrder, volumes: dict[str, RawVolume], folder: Path) -> Iterator[Order | float]:
    """Write the voxels of a job piece by piece, and at last yield the message that describes it.

    Every step takes a few milliseconds; those before the last yield what fraction is written.
    """
    files = VoxelFiles(folder)
    written, total = 0, sum(volume.array_kji.nbytes for volume in volumes.values())
    for role, volume in volumes.items():
        for nbytes in files.set_in_pieces(role, volume.array_kji):
            written += nbytes
            yield written / total
    digests = {role: None if v.acquisition is None else v.acquisition.patient for role, v in volumes.items()}
    known = sorted({digest for digest in digests.values() if digest is not None})
    numbered = {digest: f"patient {n}" for n, digest in enumerate(known, 1)}
    headers = {
        role: RawHeader(v.lps_from_ijk, v.modality, v.name, v.acquisition, numbered.get(digests[role] or ""))
        for role, v in volumes.items()
    }
    if isinstance(request, Request):
        yield JobMessage(folder, request, headers)
    else:
        yield ExportMessage(folder, request, headers)


def read_raw(job: Order) -> dict[str, RawVolume]:
    """Return the volumes of a job by their roles, as they were sent."""
    files = VoxelFiles(job.folder)
    return {
        role: RawVolume(files[role], h.lps_from_ijk, h.modality, h.name, _acquisition_of(h))
        for role, h in job.volumes.items()
    }


def _acquisition_of(header: RawHeader) -> Acquisition | None:
    return None if header.acquisition is None else with_patient(header.acquisition, {header.patient})


def read_inputs(job: JobMessage) -> Inputs:
    """Return the volumes of a job, float32."""
    return _copied(read_raw(job))


def job_to_line(job: Order) -> bytes:
    """Return a job as the line that the worker reads."""
    return _line(Sent(job), None)


def job_from_line(line: str | bytes) -> Order:
    """Return what `job_to_line` wrote."""
    return from_document(json.loads(line), Sent).order


def said_to_line(said: Said, folder: Path | None = None) -> bytes:
    """Return what the worker says as a line; the voxels of a result go into `folder`."""
    return _line(Message(said), None if folder is None else VoxelFiles(folder))


def said_from_line(line: str | bytes, folder: Path | None = None) -> Said:
    """Return what `said_to_line` wrote; the voxels of a result are those in `folder`."""
    return from_document(json.loads(line), Message, None if folder is None else VoxelFiles(folder)).said


def _line(message: Sent | Message, voxels: VoxelFiles | None) -> bytes:
    return json.dumps(to_document(message, voxels)).encode() + b"\n"


def failure_of(error: BaseException) -> Failure:
    """Return an error as a message; one that the library does not know is a fault of the program."""
    if not isinstance(error, BrainFusionError):
        return Failure(
            "BrainFusionError",
            f"a fault of the program ({type(error).__name__}: {error}). The log has all of it; please report it.",
        )
    best = error.best_transform if isinstance(error, RegistrationError) else None
    remedy = None if error.remedy is None else error.remedy.name
    return Failure(type(error).__name__, error.problem, remedy, error.details, best)


def error_of(failure: Failure) -> BrainFusionError:
    """Return the error that `failure_of` made a message of."""
    kind = getattr(errors, failure.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, BrainFusionError)):
        kind = BrainFusionError
    remedy = None if failure.remedy is None else Remedy[failure.remedy]
    error = kind(failure.problem, remedy=remedy, details=failure.details)
    if isinstance(error, RegistrationError):
        error.best_transform = failure.best_transform
    return error
