"""Where heads come from: phantoms, simulated scans, volumes in files, PNG pairs. All end on the unit scale."""

from __future__ import annotations

import fnmatch
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from BrainFusionLib.case import register
from BrainFusionLib.errors import BrainFusionError, ImageContentError, ImageFileError, SettingsError
from BrainFusionLib.intensity import bone_weight, check_pair, ct_to_unit, mri_scale, picture_stacks, unit_pair
from BrainFusionLib.io import atomic_output, read_grey, read_volume
from BrainFusionLib.io.formats import files_of, volumes_in
from BrainFusionLib.io.reading import at_home
from BrainFusionLib.io.tables import parse_csv
from BrainFusionLib.phantom import head_grid, make_phantom
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.volume import Volume, VoxelArray
from simulation.heads import Head, detailed_phantom
from simulation.label_maps import centred_grid, read_detailed_head
from simulation.scans import draw_scan
from simulation.slices_torch import render
from training.config import Config

RENDER_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Slices:
    """Registered slices of one head: (N, rows, columns) each, float32, unit scale.

    `bone` is the bone weight, 0 to 1, without the head holder; `fused` the data set's own label, if it has one.
    """

    ct: VoxelArray
    mri: VoxelArray
    bone: VoxelArray
    fused: VoxelArray | None = None


class HeadSource(Protocol):
    """A set of heads with names."""

    def names(self, patterns: Sequence[str]) -> list[str]:
        """Return the names of the heads that the patterns of `DataConfig` choose; `SettingsError` for one without."""

    def files(self, head: str) -> list[Path]:
        """Return the files that a head is read from."""

    def slices(self, head: str) -> Iterator[Slices]:
        """Read or make a head, one stack of slices after the other."""


def source_of(config: Config, device: torch.device) -> HeadSource:
    """Return the source that a configuration names.

    Raises
    ------
    SettingsError, ImageFileError
        The folder or manifest is missing or not what it should be.
    """
    kind = config.data.source
    if kind == "phantom":
        return PhantomHeads(config)
    if kind == "simulated":
        return SimulatedHeads(config, device)
    if kind == "png":
        return PngPairs(config)
    return VolumePairs(config, device)


class PhantomHeads:
    """Heads of `BrainFusionLib.phantom` in every contrast of the configuration; their names are their seeds."""

    def __init__(self, config: Config) -> None:
        self._data = config.data

    def names(self, patterns: Sequence[str]) -> list[str]:
        """See `HeadSource`."""
        return _phantom_names(patterns, "")

    def files(self, head: str) -> list[Path]:
        """See `HeadSource`."""
        return []

    def slices(self, head: str) -> Iterator[Slices]:
        """See `HeadSource`."""
        spacing = self._data.spacing_mm
        grid = head_grid(spacing).with_spacing((spacing, spacing, self._data.slice_spacing_mm))
        phantom = make_phantom(int(head))
        hu = phantom.ct(grid).array_kji
        for contrast in self._data.contrasts:
            yield Slices(ct_to_unit(hu), _mri_unit(phantom.mri(contrast, grid).array_kji), bone_weight(hu))


class SimulatedHeads:
    """Simulated scans of tissue maps: label maps of a folder by their file's name, and phantoms as ``phantom-7``."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self._config = config
        self._device = device
        self._maps = _label_maps(config.data.path) if config.data.path else {}

    def names(self, patterns: Sequence[str]) -> list[str]:
        """See `HeadSource`."""
        phantoms = _phantom_names([p for p in patterns if p.startswith("phantom-")], "phantom-")
        return phantoms + _matching(
            [p for p in patterns if not p.startswith("phantom-")], list(self._maps), "label map"
        )

    def files(self, head: str) -> list[Path]:
        """See `HeadSource`."""
        return [self._maps[head]] if head in self._maps else []

    def model(self, head: str) -> Head:
        """Make the tissue map of a head, or read it from the cache, where it is kept: a label map takes 20 s."""
        data = self._config.data
        spacing_mm = max(1.0, data.spacing_mm / 2)  # of phantoms; label maps have their own
        files = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in _existing(self.files(head))]
        key = zlib.crc32(repr((1, head, files, spacing_mm)).encode())
        kept = at_home(data.cache) / f"tissue-{head}-{key:08x}.npz"
        if not kept.exists():
            seed = head.removeprefix("phantom-")
            made = read_detailed_head(self._maps[head]) if files else detailed_phantom(int(seed), spacing_mm)
            kept.parent.mkdir(parents=True, exist_ok=True)
            with atomic_output(kept) as temporary:
                np.savez_compressed(temporary, tissue=made.tissue_kji, spacing=made.spacing_kji_mm)
        with np.load(kept) as archive:
            k, j, i = archive["spacing"].tolist()
            return Head(head, archive["tissue"], centred_grid(archive["tissue"].shape, (k, j, i)))

    def slices(self, head: str) -> Iterator[Slices]:
        """See `HeadSource`."""
        data, model = self._config.data, self.model(head)
        tissue = torch.from_numpy(model.tissue_kji).to(self._device)
        half_mm = (model.tissue_kji.shape[0] - 1) / 2 * model.spacing_kji_mm[0]
        heights = np.arange(-half_mm, half_mm, data.slice_spacing_mm).tolist()
        for number in range(data.scans):
            scan = draw_scan(model, self._config.simulation, (zlib.crc32(head.encode()), number))
            parts = [
                render(model, tissue, scan, heights[n : n + RENDER_AT_ONCE], _size(data.size), data.spacing_mm)
                for n in range(0, len(heights), RENDER_AT_ONCE)
            ]
            ct, mri, bone = (torch.cat(images)[:, 0].cpu().numpy() for images in zip(*parts, strict=True))
            yield Slices(ct, mri, bone)


@dataclass(frozen=True)
class VolumePair:
    """Files of one CT and one MRI; `fused` is their fused volume, on the MRI's grid."""

    ct: Path
    mri: Path
    fused: Path | None
    registered: bool


class VolumePairs:
    """Volumes in files: the original layout (a folder a head), or a manifest. What is not registered is, first."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self._config = config
        self._device = device
        path = at_home(config.data.path)
        self._pairs = _original_layout(path) if config.data.source == "original" else _manifest(path)

    def names(self, patterns: Sequence[str]) -> list[str]:
        """See `HeadSource`."""
        return _matching(patterns, list(self._pairs), "head")

    def files(self, head: str) -> list[Path]:
        """See `HeadSource`."""
        named = [path for pair in self._pairs[head] for path in (pair.ct, pair.mri, pair.fused) if path is not None]
        return [file for path in named for file in files_of(path)]

    def slices(self, head: str) -> Iterator[Slices]:
        """See `HeadSource`."""
        for pair in self._pairs[head]:
            yield self._slices_of(pair)

    def _slices_of(self, pair: VolumePair) -> Slices:
        ct, mri = read_volume(pair.ct, modality="CT"), read_volume(pair.mri, modality="MR")
        try:
            check_pair(ct, mri)
        except ImageContentError as error:
            raise ImageContentError(f"{pair.ct} and {pair.mri}: {error}") from error
        transform = None
        if not pair.registered:
            try:
                transform = register(ct, mri, device=str(self._device)).transform
            except BrainFusionError as error:
                raise type(error)(f"{pair.ct} and {pair.mri}: {error}") from error
        ct = resample_onto(ct, mri.grid, transform, device=str(self._device))
        unit = unit_pair(ct, mri)
        stacks, _ = unit.stacks()
        fused = unit.stack(self._given(pair, mri)) if self._config.label.kind == "given" else None
        return Slices(stacks.ct_unit, stacks.mri_unit, stacks.bone_weight, fused)

    def _given(self, pair: VolumePair, mri: Volume) -> VoxelArray:
        if pair.fused is None:
            raise SettingsError(
                f"{pair.mri}: label.kind is given, but this pair has no fused volume. Add it, or choose another label."
            )
        fused = read_volume(pair.fused)
        if fused.array_kji.shape != mri.array_kji.shape:
            raise ImageContentError(
                f"{pair.fused}: must have the MRI's {mri.grid.size_ijk} voxels; it has {fused.grid.size_ijk}"
            )
        if not np.isfinite(fused.array_kji).all():
            raise ImageContentError(f"{pair.fused}: has voxels that are NaN or infinite. Replace them and try again.")
        return _mri_unit(fused.array_kji, mri.array_kji if self._config.label.given_scale == "mri" else None)


class PngPairs:
    """Registered 8-bit slices of the same names in the folders ``CT`` and ``MRI``; 255 is 1 on the unit scale."""

    def __init__(self, config: Config) -> None:
        self._folder = at_home(config.data.path)
        self._slices: dict[str, list[str]] = {}
        pattern = re.compile(config.data.head_pattern)
        for path in sorted(_folder(self._folder / "CT").glob("*.png")):
            found = pattern.fullmatch(path.stem)
            if path.stem not in config.data.exclude:
                self._slices.setdefault(found.group(1) if found else path.stem, []).append(path.name)
        if not self._slices:
            raise ImageFileError(f"{self._folder / 'CT'}: holds no PNG files. Put CT and MRI slices of one name there.")

    def names(self, patterns: Sequence[str]) -> list[str]:
        """See `HeadSource`."""
        return _matching(patterns, list(self._slices), "head")

    def files(self, head: str) -> list[Path]:
        """See `HeadSource`."""
        return [self._folder / kind / name for name in self._slices[head] for kind in ("CT", "MRI")]

    def slices(self, head: str) -> Iterator[Slices]:
        """See `HeadSource`."""
        for name in self._slices[head]:
            ct, mri = (read_grey(self._folder / kind / name) for kind in ("CT", "MRI"))
            if ct.shape != mri.shape:
                raise ImageContentError(f"{self._folder}: CT/{name} has {ct.shape} pixels, but MRI/{name} {mri.shape}")
            stacks = picture_stacks(ct[None], mri[None])
            yield Slices(stacks.ct_unit, stacks.mri_unit, stacks.bone_weight)


def describe(config: Config, source: HeadSource, head: str) -> dict[str, Any]:
    """Return all that a head's slices depend on, as plain data, with each file's size and time of change."""
    data = asdict(config.data)
    for name in ("train_heads", "heldout_heads", "cache", "terms", "shippable", "flip", "crop", "on_the_fly", "path"):
        data.pop(name)
    files = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in _existing(source.files(head))]
    given = {"given": config.label.given_scale} if config.label.kind == "given" else {}
    simulation = {"simulation": asdict(config.simulation)} if config.data.source == "simulated" else {}
    return {"version": 1, "head": head, "data": data, "files": files, **simulation, **given}


def _existing(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise ImageFileError(f"{path}: is missing. Put it there, or leave its head out.")
        yield path


def _mri_unit(values: VoxelArray, scaled_as: VoxelArray | None = None) -> VoxelArray:
    low, high = mri_scale(values if scaled_as is None else scaled_as)
    return (values - np.float32(low)) / np.float32(high - low)


def _size(size: Sequence[int]) -> tuple[int, int]:
    return size[0], size[1]


def _phantom_names(patterns: Sequence[str], prefix: str) -> list[str]:
    names: list[str] = []
    for pattern in patterns:
        found = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", pattern.removeprefix(prefix))
        if not found:
            raise SettingsError(
                f"data: {pattern!r} names no phantom; a seed or a range is wanted, {prefix}7 or {prefix}1..40"
            )
        first, last = int(found.group(1)), int(found.group(2) or found.group(1))
        names += [f"{prefix}{seed}" for seed in range(first, last + 1)]
    return list(dict.fromkeys(names))


def _matching(patterns: Sequence[str], known: list[str], what: str) -> list[str]:
    names: list[str] = []
    for pattern in patterns:
        found = fnmatch.filter(known, pattern)
        if not found:
            raise SettingsError(f"data: there is no {what} {pattern!r}; there are {', '.join(known[:12]) or 'none'}")
        names += found
    return list(dict.fromkeys(names))


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise ImageFileError(
            f"{path}: is not a folder. Name the folder of the data with data.path (see docs/training.md)."
        )
    return path


def _label_maps(path: str) -> dict[str, Path]:
    return {file.name.partition(".")[0]: file for file in volumes_in(_folder(at_home(path)))}


def _original_layout(folder: Path) -> dict[str, list[VolumePair]]:
    """Find HEAD/ct.img, HEAD/mri.img and HEAD/fused.img in the folder; names in any case."""
    pairs: dict[str, list[VolumePair]] = {}
    for head in sorted(path for path in _folder(folder).iterdir() if path.is_dir()):
        found = {path.stem.lower(): path for path in sorted(head.glob("*.[iI][mM][gG]"))}
        mri = found.get("mri", found.get("mr"))
        if "ct" not in found or mri is None:
            raise ImageFileError(
                f"{head}: must hold ct.img/.hdr and mri.img/.hdr (and fused.img/.hdr, if there is one); it has "
                f"{', '.join(sorted(path.name for path in found.values())) or 'no .img files'}"
            )
        pairs[head.name] = [VolumePair(found["ct"], mri, found.get("fused"), registered=False)]
    return pairs


def _manifest(path: Path) -> dict[str, list[VolumePair]]:
    """Read a table of pairs: columns head, ct, mri, and, if need be, fused and registered (yes or no)."""
    try:
        rows = parse_csv(path.read_text(encoding="utf-8")).rows
    except (OSError, ValueError) as error:
        raise ImageFileError(f"{path}: cannot be read as a manifest ({error})") from error
    pairs: dict[str, list[VolumePair]] = {}
    for number, row in enumerate(rows, start=2):
        if not all(row.get(column) for column in ("head", "ct", "mri")):
            raise SettingsError(f"{path}, line {number}: head, ct and mri are needed; got {dict(row)}")
        registered = (row.get("registered") or "no").lower()
        if registered not in ("yes", "no"):
            raise SettingsError(f"{path}, line {number}: registered must be yes or no; got {registered!r}")
        fused = path.parent / at_home(row["fused"]) if row.get("fused") else None
        pair = VolumePair(
            path.parent / at_home(row["ct"]), path.parent / at_home(row["mri"]), fused, registered == "yes"
        )
        pairs.setdefault(row["head"], []).append(pair)
    return pairs
