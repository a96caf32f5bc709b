"""The measures of fusion, on what is in files: one picture, folders of them, or a volume slice by slice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from BrainFusionLib import intensity
from BrainFusionLib.errors import GeometryError, ImageContentError
from BrainFusionLib.io import PICTURES, read_volume
from BrainFusionLib.io.pictures import pair_names, read_alike
from BrainFusionLib.metrics import gates, measure, slices_with_head
from BrainFusionLib.volume import Volume, VoxelArray, axial_stack

# Voxels of two grids may lie this far apart, of their size, and still be taken for the same.
SAME_GRID = 0.01


@dataclass(frozen=True)
class Measured:
    """The measures of each slice, by its name and the measure's; and the names that not all folders had."""

    slices: dict[str, dict[str, float | None]]
    unpaired: tuple[str, ...] = ()

    @property
    def mean(self) -> dict[str, float | None]:
        """The mean of every measure over the slices that have it."""
        names = next(iter(self.slices.values()), {})
        found = {name: [v for row in self.slices.values() if (v := row[name]) is not None] for name in names}
        return {name: float(np.mean(values)) if values else None for name, values in found.items()}


def measure_files(fused: str | Path, ct: str | Path, mri: str | Path) -> Measured:
    """Measure a fused image in files against its sources, by `metrics.measure` and `metrics.gates`.

    Parameters
    ----------
    fused, ct, mri
        Three 8-bit pictures, three folders of pictures of the same names, or three volumes on one grid, the CT in
        Hounsfield units (``ct_in_mri`` of `brainfusion fuse`). Volumes are brought to the unit scale, on which level
        255 is the end of dense bone (2000 HU), and measured in axial slices.

    Raises
    ------
    ImageFileError, ImageContentError, GeometryError
        A file cannot be read; slices are not of one size, or smaller than 16x16; volumes lie on different grids.
    """
    paths = [Path(path) for path in (fused, ct, mri)]
    if all(path.suffix.lower() in PICTURES for path in paths):
        return Measured({paths[0].name: _measured(paths[0].name, *read_alike(paths))})
    if all(path.is_dir() for path in paths):
        pairs, unpaired = pair_names(*paths)
        return Measured({name: _measured(name, *read_alike(files)) for name, files in pairs.items()}, unpaired)
    return Measured(dict(_slices_of(*(read_volume(path) for path in paths))))


def _slices_of(fused: Volume, ct: Volume, mri: Volume) -> Iterator[tuple[str, dict[str, float | None]]]:
    for volume in (fused, ct):
        if not volume.grid.same_as(mri.grid, SAME_GRID * min(mri.grid.spacing_ijk_mm)):
            raise GeometryError(
                f"{volume.name} does not lie on the grid of the MRI {mri.name}. Measure what `brainfusion fuse` wrote: "
                "fused and ct_in_mri lie on the MRI's grid."
            )
    for volume in (fused, ct, mri):
        if not np.isfinite(volume.array_kji).all():
            raise ImageContentError(f"{volume.name}: has voxels that are NaN or infinite. Replace them first.")
    low, high = intensity.mri_scale(mri.array_kji)
    weight = intensity.bone_weight(ct.array_kji) * intensity.ct_head_mask(ct)
    on_unit_scale = [(v.array_kji - np.float32(low)) / np.float32(high - low) for v in (fused, mri)]
    arrays = (on_unit_scale[0], intensity.ct_to_unit(ct.array_kji), on_unit_scale[1], weight)
    f, c, m, bone = (axial_stack(array, mri.grid)[0] for array in arrays)
    white = 255 / intensity.CT_KNOTS_UNIT[-2]
    for number in np.flatnonzero(slices_with_head(c, m)).tolist():
        name = f"axial slice {number}"
        yield name, _measured(name, f[number] * white, c[number] * white, m[number] * white, bone[number])


def _measured(
    name: str, fused: VoxelArray, ct: VoxelArray, mri: VoxelArray, bone: VoxelArray | None = None
) -> dict[str, float | None]:
    try:
        return {**measure(fused, ct, mri), **asdict(gates(fused, ct, mri, bone))}
    except ValueError as error:
        raise ImageContentError(f"{name}: {error}") from error
