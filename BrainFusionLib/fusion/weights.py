"""Weights files: arrays in ``NAME.npz``, and beside it ``NAME.json``, the manifest that says what they are.

A weights file is data and nothing else: numpy arrays, read with pickling switched off, so that opening one that came
from somewhere cannot run code. The manifest holds the sha256 of the arrays' file, so damage and mix-ups are noticed.
"""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib import intensity
from BrainFusionLib.errors import WeightsError
from BrainFusionLib.fusion.method import WeightsIdentity
from BrainFusionLib.io import atomic_output, write_json
from BrainFusionLib.io.hashing import sha256_of_bytes
from BrainFusionLib.version import __version__

Arrays = dict[str, npt.NDArray[Any]]
# The name of a network in `network.ARCHITECTURES`, and the arguments that it is built with.
Architecture = Mapping[str, str | int | float]
Normalisation = dict[str, str | list[float]]

# What ships with the library, by name: files in the folder `TRAINED`. The first is the default.
# Far more than any network of this library has.
_MOST_BYTES = 1 << 30

TRAINED = Path(__file__).parent / "trained"
SHIPPED: dict[str, str] = {
    "fusion_net_alpha": "this project's network, which predicts the weight of the CT",
    "fusion_net": "the reference network, trained on the optimised label",
    "fusion_net_wavelet": "the reference network, trained on the wavelet rule, as in the original project",
}
DEFAULT_WEIGHTS = next(iter(SHIPPED))

# Names and numbers of the unit scale that the slices are on when they reach the network (see `intensity`).
UNIT_SCALE: Normalisation = {
    "ct": "piecewise-linear, Hounsfield units to unit scale",
    "ct_knots_hu": list(intensity.CT_KNOTS_HU),
    "ct_knots_unit": list(intensity.CT_KNOTS_UNIT),
    "mri": "0 = 0.5th percentile of the volume, 1 = 99th percentile inside the head",
}


@dataclass(frozen=True)
class Manifest:
    """What a weights file holds, how it was made and what it may be used for.

    Parameters
    ----------
    architecture
        ``name`` in `network.ARCHITECTURES`, and the arguments that it is built with.
    licence
        Under which the weights may be used.
    training_data
        What the network was trained on, and under which terms that data came.
    input_normalisation
        The scale that the network expects its input on, names and numbers.
    library_version, created
        Version of this library, and UTC time (ISO 8601), when the file was written.
    sha256
        Of the ``.npz`` file; filled in by `save_weights`.
    details
        Anything else worth keeping: label rule, measures on held-out heads, configuration.
    """

    architecture: Architecture
    licence: str
    training_data: str
    input_normalisation: Normalisation = field(default_factory=UNIT_SCALE.copy)
    library_version: str = __version__
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    sha256: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Weights:
    """A network's tensors as numpy arrays by name, their manifest, and the ``.npz`` file that they came from."""

    arrays: Arrays
    manifest: Manifest
    path: Path

    @property
    def identity(self) -> WeightsIdentity:
        """Which weights these are, without the folder that they are in."""
        return WeightsIdentity(self.path.name, self.manifest.sha256)


def find_weights(name: str | Path | None = None) -> Path:
    """Return the file of weights that ship with the library (see `SHIPPED`; by default the first), or a file as named.

    Raises
    ------
    WeightsError
        The name is neither one of those that ship nor that of a weights file.
    """
    name = DEFAULT_WEIGHTS if name is None else name
    if str(name) in SHIPPED:
        return TRAINED / f"{name}.npz"
    if Path(name).suffix not in (".npz", ".json"):
        raise WeightsError(
            f"there are no weights called {str(name)!r}: name a weights file (NAME.npz), or one of those that ship: "
            f"{', '.join(SHIPPED)}"
        )
    if not Path(name).is_file():
        raise WeightsError(
            f"{name}: there is no such file. Give the path of a weights file (NAME.npz, with NAME.json beside it), or "
            f"one of those that ship: {', '.join(SHIPPED)}"
        )
    return Path(name)


def save_weights(path: str | Path, arrays: Mapping[str, npt.NDArray[Any]], manifest: Manifest) -> Weights:
    """Write ``NAME.npz`` and ``NAME.json``; `path` names either of the two.

    Each file appears whole or not at all. Killed between the two, the old manifest refuses the new arrays.

    Raises
    ------
    WeightsError
        An array is not of numbers, or holds NaN or infinity; `path` ends in neither ``.npz`` nor ``.json``.
    ImageFileError
        The folder cannot be written to.
    """
    arrays_path, manifest_path = _pair_of(path)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise WeightsError(f"the tensor {name!r} must hold numbers; its type is {array.dtype}")
        if not np.isfinite(array).all():
            raise WeightsError(f"the tensor {name!r} holds NaN or infinity: the training failed, and is not exported")
    with atomic_output(arrays_path) as temporary:
        # Through an open file, because np.savez adds ".npz" to a name that does not end so.
        with temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        complete = replace(manifest, sha256=sha256_of_bytes(temporary.read_bytes()))
    write_json(asdict(complete), manifest_path)
    return Weights(dict(arrays), complete, arrays_path)


def load_weights(path: str | Path, sha256: str | None = None) -> Weights:
    """Read ``NAME.npz`` and ``NAME.json``; `path` names either of the two.

    Parameters
    ----------
    sha256
        What the arrays' file must have, where exactly these weights are wanted.

    Raises
    ------
    WeightsError
        A file is missing, damaged, not what the manifest says (sha256), not the one that is wanted, holds anything but
        arrays of numbers, or was made for inputs on another scale than this version's.
    """
    arrays_path, manifest_path = _pair_of(path)
    manifest = _read_manifest(manifest_path)
    content = _read_bytes(arrays_path)
    found = sha256_of_bytes(content)
    if found != manifest.sha256:
        raise WeightsError(
            f"{arrays_path}: its sha256 is {found}, but {manifest_path.name} says {manifest.sha256}. "
            "The file is damaged, or the two do not belong together. Get both again."
        )
    if sha256 not in (None, manifest.sha256):
        raise WeightsError(
            f"{arrays_path}: its sha256 is {manifest.sha256}, but the weights asked for have {sha256}. The file was "
            "replaced by other weights; name the file of the weights asked for."
        )
    return Weights(_read_arrays(content, arrays_path), manifest, arrays_path)


def _pair_of(path: str | Path) -> tuple[Path, Path]:
    path = Path(path)
    if path.suffix not in (".npz", ".json"):
        raise WeightsError(f"{path}: weights are a pair of files, NAME.npz and NAME.json. Name one of them.")
    return path.with_suffix(".npz"), path.with_suffix(".json")


def _read_bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is not a file")  # a pipe would block for ever
        with path.open("rb") as stream:
            content = stream.read(2 * _MOST_BYTES + 1)
        if len(content) > 2 * _MOST_BYTES:
            raise OSError(errno.EFBIG, "it is larger than any weights")
        return content
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read ({error.strerror}). Weights are a pair of files, NAME.npz and NAME.json, "
            "side by side; put both there, or use a classical rule, which needs no weights."
        ) from error


def _read_manifest(path: Path) -> Manifest:
    content = _read_bytes(path)
    try:
        entries = json.loads(content)
        manifest = Manifest(**entries)
    except (ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path}: is not a manifest of weights ({error}). Get the pair of files again.") from error
    for entry in fields(Manifest):
        wanted = dict if entry.name in ("architecture", "input_normalisation", "details") else str
        if not isinstance(getattr(manifest, entry.name), wanted):
            raise WeightsError(f"{path}: the entry {entry.name!r} must be a {wanted.__name__}. Get the files again.")
    if manifest.input_normalisation != UNIT_SCALE:
        raise WeightsError(
            f"{path}: the network was trained on inputs scaled as {manifest.input_normalisation}; this version scales "
            f"them as {UNIT_SCALE}. Use weights made for this version ({__version__}; these are from "
            f"{manifest.library_version})."
        )
    return manifest


def _read_arrays(content: bytes, path: Path) -> Arrays:
    arrays: Arrays = {}
    try:
        # Reads the bytes that were checked, not the file again, which could have been replaced in between.
        archive = np.load(io.BytesIO(content), allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a single array, not an .npz archive")
        unpacked = sum(member.file_size for member in archive.zip.infolist()) if archive.zip else 0
        if unpacked > _MOST_BYTES:
            raise ValueError(f"it unpacks to {unpacked} bytes, and no weights are larger than {_MOST_BYTES}")
        for name in archive.files:
            arrays[name] = archive[name]
    except Exception as error:  # numpy's and zipfile's parsers raise a dozen kinds, down to those of Python's tokenizer
        raise WeightsError(
            f"{path}: holds something else than plain arrays ({error}). Nothing in it was run. Get the file again."
        ) from error
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" or not _fits_float32(array):
            raise WeightsError(f"{path}: the tensor {name!r} must hold finite numbers (it is {array.dtype}).")
    return arrays


def _fits_float32(array: npt.NDArray[Any]) -> bool:
    """Return whether all numbers are finite as the networks hold them."""
    return bool((np.abs(array.astype(np.float64)) <= np.finfo(np.float32).max).all())
