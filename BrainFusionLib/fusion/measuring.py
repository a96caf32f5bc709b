"""The measures of fusion, on what is in files: one picture, folders of them, or a volume slice by slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import GeometryError, ImageContentError
from BrainFusionLib.intensity import CT_KNOTS_UNIT, unit_pair, windowed_bone_weight
from BrainFusionLib.intensity.pictures import head_in_pictures
from BrainFusionLib.io import PICTURES, read_volume
from BrainFusionLib.io.pictures import pair_names, read_alike
from BrainFusionLib.io.reading import is_folder
from BrainFusionLib.metrics import gates, measure, slices_with_head
from BrainFusionLib.volume import BoolArray, Volume

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
        Hounsfield units (the ``ct_in_mri`` of a fusion). Volumes are brought to the unit scale, on which level
        255 is the end of dense bone (2000 HU), and measured in axial slices.

    Raises
    ------
    ImageFileError, ImageContentError, GeometryError
        A file cannot be read; slices are not of one size, or smaller than 16x16; volumes are on different grids.
    """
    paths = [Path(path) for path in (fused, ct, mri)]
    if all(path.suffix.lower() in PICTURES for path in paths):
        return Measured({paths[0].name: _measured_pictures(paths[0].name, paths)})
    if all(is_folder(path) for path in paths):
        pairs, unpaired = pair_names(*paths)
        return Measured({name: _measured_pictures(name, files) for name, files in pairs.items()}, unpaired)
    return Measured(dict(_slices_of(*(read_volume(path) for path in paths))))


def _slices_of(fused: Volume, ct: Volume, mri: Volume) -> Iterator[tuple[str, dict[str, float | None]]]:
    for volume in (fused, ct):
        if not volume.grid.same_as(mri.grid, SAME_GRID * min(mri.grid.spacing_ijk_mm)):
            raise GeometryError(
                f"{volume.name} is not on the grid of the MRI {mri.name}. Measure the volumes that a fusion "
                "wrote: fused and ct_in_mri are on the MRI's grid."
            )
    for volume in (fused, ct, mri):
        if not np.isfinite(volume.array_kji).all():
            raise ImageContentError(f"{volume.name}: has voxels that are NaN or infinite. Replace them first.")
    pair = unit_pair(ct, mri)
    stacks, _ = pair.stacks()
    f, c, m = pair.stack(pair.on_unit_scale(fused.array_kji)), stacks.ct_unit, stacks.mri_unit
    white = 255 / CT_KNOTS_UNIT[-2]
    for number in np.flatnonzero(slices_with_head(c, m)).tolist():
        name = f"axial slice {number}"
        yield name, _measured(name, f[number] * white, c[number] * white, m[number] * white, stacks.bone_weight[number])


def _measured_pictures(name: str, paths: Sequence[Path]) -> dict[str, float | None]:
    fused, ct, mri = read_alike(paths)
    head = head_in_pictures(ct, mri)
    return _measured(name, fused, ct, mri, windowed_bone_weight(ct) * head, head)


def _measured(
    name: str,
    fused: npt.ArrayLike,
    ct: npt.ArrayLike,
    mri: npt.ArrayLike,
    bone: npt.ArrayLike,
    head: BoolArray | None = None,
) -> dict[str, float | None]:
    try:
        return {**measure(fused, ct, mri), **asdict(gates(fused, ct, mri, bone, head))}
    except ValueError as error:
        raise ImageContentError(f"{name}: {error}") from error
