"""No result is written over what it is made from: the check of all outputs against all inputs, before the work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from BrainFusionLib.errors import BrainFusionError, ImageFileError, Remedy
from BrainFusionLib.io.dicom_series import is_dicom
from BrainFusionLib.io.formats import files_of, format_of
from BrainFusionLib.io.transforms import transform_files

# The device and the number of a file: equal for all names of one file, through links and in either case of letters.
_Identity = tuple[int, int]


@dataclass(frozen=True)
class Given:
    """One input: what it is, in words ("the CT"), its file or folder, and the series of a DICOM folder."""

    role: str
    path: Path
    series: str | None = None


class InputFiles:
    """All files that some inputs are read from.

    Parameters
    ----------
    given
        Files and folders; those that are missing do not count.
    """

    def __init__(self, given: Iterable[Given]) -> None:
        self._given = list(given)
        self._single: dict[_Identity, Given] | None = None
        self._folders: dict[_Identity, list[Given]] = {}
        self._of_folder: dict[Given, set[_Identity]] = {}

    def refuse_to_overwrite(self, outputs: Iterable[Path], remedy: Remedy = Remedy.OTHER_OUTPUT_FOLDER) -> None:
        """Check that nothing that is written or removed is an input.

        Parameters
        ----------
        outputs
            Files; or folders, of which everything in them is removed. Only those that exist can be inputs.

        Raises
        ------
        ImageFileError
            One of them is an input; the message names both.
        """
        for path in (path for output in outputs for path in _at(output)):
            given = self._given_at(path)
            if given is not None:
                whose = "" if str(given.path) == str(path) else f": {given.path}"
                raise ImageFileError(
                    f"{path}: is one of the inputs ({given.role}{whose}), and would be overwritten or removed.",
                    remedy=remedy,
                )

    def _given_at(self, path: Path) -> Given | None:
        """Return the input that reads a file."""
        identity = _identity(path)
        if identity is None:
            return None
        if self._single is None:
            self._single = self._read()
        if identity in self._single:
            return self._single[identity]
        # The files of a folder are looked through only where one of them can be meant: below it, or DICOM elsewhere.
        around = {_identity(parent) for place in (path.absolute(), path.resolve()) for parent in place.parents}
        near = [given for folder, several in self._folders.items() if folder in around for given in several]
        if not near and self._folders and _is_dicom(path):
            near = [given for several in self._folders.values() for given in several]
        for given in near:
            if given not in self._of_folder:
                self._of_folder[given] = set(_identities(_files_in(given)))
            if identity in self._of_folder[given]:
                return given
        return None

    def _read(self) -> dict[_Identity, Given]:
        single: dict[_Identity, Given] = {}
        for given in self._given:
            is_folder = given.path.is_dir()
            place = _identity(given.path if is_folder else given.path.absolute().parent)
            if place is not None and (is_folder or _is_dicom(given.path)):
                self._folders.setdefault(place, []).append(given)
            if not is_folder:
                single |= dict.fromkeys(_identities(_files_read(given.path)), given)
        return single


def _at(output: Path) -> Iterator[Path]:
    """Yield the files that are at an output now."""
    with suppress(OSError):
        yield from ([output, *files_of(output)] if output.is_dir() else files_of(output))


def _files_read(path: Path) -> set[Path]:
    """Return the files that are read with one that is not DICOM: voxels beside it, other transforms that it names."""
    found = {path}

    def named(path: Path) -> list[Path]:
        form = format_of(path)
        return [] if form.files is None or form.slices else form.files(path)

    finders: tuple[Callable[[Path], list[Path]], ...] = (files_of, named, transform_files)
    for find in finders:
        with suppress(BrainFusionError, OSError):
            found |= set(find(path))
    return found


def _files_in(given: Given) -> list[Path]:
    """Return the files of the series that is read; without a series, all files of a folder, such as pictures."""
    try:
        form = format_of(given.path)
        return [] if form.files is None else form.files(given.path, series=given.series)
    except (BrainFusionError, OSError):
        return files_of(given.path)


def _is_dicom(path: Path) -> bool:
    with suppress(BrainFusionError, OSError):
        return path.is_file() and is_dicom(path)
    return False


def _identities(paths: Iterable[Path]) -> list[_Identity]:
    return [identity for path in paths if (identity := _identity(path)) is not None]


def _identity(path: Path) -> _Identity | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
