"""What goes to the worker process and what comes back: voxels in files of one folder, all else as JSON.

Nothing is pickled. Imports no slicer, so that the worker, which is a plain Python, can read it, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib import errors
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.settings import FusionSettings, RegistrationSettings, SearchPass, Settings
from BrainFusionLib.transform import AffineTransform, RigidTransform, Transform
from BrainFusionLib.verdict.judge import Verdict
from BrainFusionLib.volume import Modality, Volume

if TYPE_CHECKING:
    from BrainFusionLib.case.run import FusionResult  # brings SimpleITK, which loading the module must not

# Voxels are written in pieces of this many bytes, so that the window stays alive between them.
PIECE_BYTES = 16_000_000


@dataclass(frozen=True, eq=False)
class RawVolume:
    """A volume as a node holds it: voxels of any number type, maybe a view of the node's own memory.

    ``array_kji`` has the shape ``grid.shape_kji``; the grid is in world LPS mm.
    """

    array_kji: npt.NDArray[Any]
    grid: Grid
    modality: Modality | None
    name: str

    def copied(self) -> Volume:
        """Return a library volume with float32 voxels of its own."""
        return Volume(np.array(self.array_kji, dtype=np.float32), self.grid, self.modality, self.name)


@dataclass(frozen=True, eq=False)
class Job:
    """One fusion: all that `BrainFusionLib.fuse` needs, without a node in it."""

    ct: RawVolume
    mri: RawVolume
    settings: Settings
    start: RigidTransform | None = None
    transform: Transform | None = None
    mri_mask: RawVolume | None = None

    def volumes(self) -> dict[str, RawVolume]:
        """Return the volumes by their role."""
        found = {"ct": self.ct, "mri": self.mri, "mri_mask": self.mri_mask}
        return {role: volume for role, volume in found.items() if volume is not None}


def write_job(job: Job, folder: Path) -> Iterator[dict[str, Any]]:
    """Write the voxels of a job piece by piece, and at last yield the message that describes it.

    Every step takes a few milliseconds; those before the last yield an empty message.
    """
    volumes = {}
    for role, volume in job.volumes().items():
        array = volume.array_kji
        slices = max(1, PIECE_BYTES // max(1, array[:1].nbytes))
        with (folder / f"{role}.raw").open("wb") as file:
            for first in range(0, len(array), slices):
                file.write(np.ascontiguousarray(array[first : first + slices]).data)
                yield {}
        volumes[role] = {
            "dtype": array.dtype.str,
            "grid": _grid_to_plain(volume.grid),
            "modality": volume.modality,
            "name": volume.name,
        }
    yield {
        "folder": str(folder),
        "volumes": volumes,
        "settings": asdict(job.settings) | {"fusion": _plain_fusion(job.settings.fusion)},
        "start": None if job.start is None else _transform_to_plain(job.start),
        "transform": None if job.transform is None else _transform_to_plain(job.transform),
    }


def read_job(message: dict[str, Any]) -> tuple[dict[str, Volume], Settings, dict[str, Any]]:
    """Return the volumes by role, the settings and the other arguments of `BrainFusionLib.fuse`."""
    volumes = {}
    for role, told in message["volumes"].items():
        grid = _grid_from_plain(told["grid"])
        array = np.fromfile(Path(message["folder"]) / f"{role}.raw", dtype=told["dtype"]).reshape(grid.shape_kji)
        volumes[role] = Volume(array.astype(np.float32), grid, told["modality"], told["name"])
    arguments = {
        name: _transform_from_plain(message[name]) for name in ("start", "transform") if message[name] is not None
    }
    if "mri_mask" in volumes:
        arguments["mri_mask"] = volumes.pop("mri_mask")
    return volumes, settings_from_plain(message["settings"]), arguments


def settings_from_plain(plain: dict[str, Any]) -> Settings:
    """Return the settings that `dataclasses.asdict` made plain."""
    registration = dict(plain["registration"])
    looks = tuple(SearchPass(**look) for look in registration.pop("passes"))
    return Settings(
        registration=RegistrationSettings(passes=looks, **registration),
        fusion=FusionSettings(**plain["fusion"]),
        device=plain["device"],
        threads=plain["threads"],
    )


def write_result(result: FusionResult, folder: Path) -> dict[str, Any]:
    """Write the voxels of a result, and return the message that describes it."""
    volumes = {}
    for role in ("fused", "ct_in_mri", "alpha"):
        volume = getattr(result, role)
        if volume is not None:
            volume.array_kji.tofile(folder / f"{role}.raw")
            volumes[role] = {"grid": _grid_to_plain(volume.grid), "modality": volume.modality, "name": volume.name}
    return {
        "volumes": volumes,
        "transform": _transform_to_plain(result.transform),
        "rigid": _transform_to_plain(result.rigid),
        "verdict": result.verdict.to_dict(),
        "details": result.details,
    }


def read_result(message: dict[str, Any], folder: Path) -> FusionResult:
    """Return the result that a worker wrote; its voxels are read from their files as they are looked at."""
    from BrainFusionLib.case.run import FusionResult

    volumes: dict[str, Volume | None] = {"alpha": None}
    for role, told in message["volumes"].items():
        grid = _grid_from_plain(told["grid"])
        array = np.memmap(folder / f"{role}.raw", dtype=np.float32, mode="r", shape=grid.shape_kji)
        volumes[role] = Volume(array, grid, told["modality"], told["name"])
    verdict = dict(message["verdict"])
    verdict["reasons"] = tuple(verdict["reasons"])
    if verdict.get("interval_mm") is not None:
        verdict["interval_mm"] = tuple(verdict["interval_mm"])
    fused, ct_in_mri = volumes["fused"], volumes["ct_in_mri"]
    assert fused is not None
    assert ct_in_mri is not None
    return FusionResult(
        fused=fused,
        ct_in_mri=ct_in_mri,
        transform=_transform_from_plain(message["transform"]),
        rigid=_rigid_from_plain(message["rigid"]),
        verdict=Verdict(**verdict),
        alpha=volumes["alpha"],
        details=message["details"],
    )


def error_to_plain(error: BaseException) -> dict[str, str]:
    """Return the class and the text of an error; one that the library does not know is a fault of the program."""
    if isinstance(error, BrainFusionError):
        return {"class": type(error).__name__, "text": str(error)}
    return {
        "class": "BrainFusionError",
        "text": f"a fault of the program ({type(error).__name__}: {error}). The log has all of it; please report it.",
    }


def error_from_plain(plain: dict[str, str]) -> BrainFusionError:
    """Return the error that `error_to_plain` made plain."""
    error: BrainFusionError = getattr(errors, plain["class"], BrainFusionError)(plain["text"])
    return error


def with_device(settings: Settings, device: Any) -> Settings:
    """Return the same settings for another device."""
    return replace(settings, device=device)


def _plain_fusion(fusion: FusionSettings) -> dict[str, Any]:
    return {**asdict(fusion), "weights": None if fusion.weights is None else str(fusion.weights)}


def _grid_to_plain(grid: Grid) -> dict[str, Any]:
    return {"size_ijk": list(grid.size_ijk), "lps_from_ijk": grid.lps_from_ijk.tolist()}


def _grid_from_plain(plain: dict[str, Any]) -> Grid:
    i, j, k = plain["size_ijk"]
    return Grid.from_lps_from_ijk(np.array(plain["lps_from_ijk"]), (i, j, k))


def _transform_to_plain(transform: Transform) -> dict[str, Any]:
    return {"rigid": isinstance(transform, RigidTransform), "matrix": transform.moving_from_fixed_lps.tolist()}


def _transform_from_plain(plain: dict[str, Any]) -> Transform:
    return _rigid_from_plain(plain) if plain["rigid"] else AffineTransform(np.array(plain["matrix"]))


def _rigid_from_plain(plain: dict[str, Any]) -> RigidTransform:
    return RigidTransform(np.array(plain["matrix"]))
