"""Folders of registered 8-bit CT and MRI slices, fused into pictures of the same names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from BrainFusionLib.device import pick_device, use_threads
from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.fusion.methods import prepare
from BrainFusionLib.intensity import picture_stacks
from BrainFusionLib.intensity.pictures import WHITE
from BrainFusionLib.io import write_grey
from BrainFusionLib.io.ownership import refuse_to_replace_others
from BrainFusionLib.io.pictures import pair_names, read_alike
from BrainFusionLib.progress import Cancel, Progress, stop_if
from BrainFusionLib.settings import Settings
from BrainFusionLib.volume import VoxelArray

STAGE = "fusing"
# Pictures read at once: unpacking is most of the time, and lets other threads work.
READERS = 4


@dataclass(frozen=True)
class FusedPictures:
    """What `fuse_folders` wrote (`fused`; `alpha`, maybe empty), and the names that only one folder had."""

    fused: tuple[Path, ...]
    alpha: tuple[Path, ...]
    unpaired: tuple[str, ...]


def fuse_folders(
    ct_folder: str | Path,
    mri_folder: str | Path,
    output: str | Path,
    settings: Settings | None = None,
    *,
    save_alpha: bool = False,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> FusedPictures:
    """Fuse every pair of pictures of one name into ``OUTPUT/NAME.png``.

    Parameters
    ----------
    ct_folder, mri_folder
        8-bit greyscale slices, registered, pairs of one size; the CT through a window that ends above soft tissue.
    save_alpha
        Also write the weight of the CT, 255 for 1, to ``OUTPUT/alpha/NAME.png``, where the network gives one.

    Raises
    ------
    ImageFileError, ImageContentError
        A picture cannot be read or written, a pair is not of one size, no name is in both folders, or the output is
        one of the inputs, or was not written by this.
    SettingsError, WeightsError, MissingDependencyError, Cancelled
        As `methods.prepare` and `device.pick_device`; `cancel` said yes.
    """
    settings, output = settings or Settings(), Path(output)
    pairs, unpaired = pair_names(Path(ct_folder), Path(mri_folder))
    for folder in (Path(ct_folder), Path(mri_folder)):
        if os.path.realpath(folder) in (os.path.realpath(output), os.path.realpath(output / "alpha")):
            raise ImageFileError(
                f"{output}: is one of the inputs, and they would be written over. Name another folder."
            )
    names = [f"{name}.png" for name in pairs]
    refuse_to_replace_others(output, [*names, *(f"alpha/{name}" for name in names if save_alpha)])
    with use_threads(settings.threads):
        fuser = prepare(settings.fusion, pick_device(settings.device))
        # All are read once before any is written: a bad pair at the end must not cost the user half a folder of
        # results.
        with ThreadPoolExecutor(READERS) as readers:
            read = dict(zip(pairs, readers.map(read_alike, pairs.values()), strict=True))
        fused: list[Path] = []
        alpha: list[Path] = []
        # Pictures are written while the next ones are fused, and no more than one batch waits for that.
        with ThreadPoolExecutor(1) as writer:
            writing: Future[None] | None = None
            for names in _batches({name: ct.shape for name, (ct, _) in read.items()}, settings.fusion.batch_size):
                stop_if(cancel)
                stacks = picture_stacks(*(np.stack([read[name][source] for name in names]) for source in (0, 1)))
                made = fuser.fuse(stacks, cancel=cancel)
                results = {output / f"{name}.png": picture for name, picture in zip(names, made.fused, strict=True)}
                fused += results
                if made.alpha is not None and save_alpha:
                    maps = {output / "alpha" / f"{name}.png": one for name, one in zip(names, made.alpha, strict=True)}
                    alpha += maps
                    results |= maps
                if writing is not None:
                    writing.result()
                writing = writer.submit(_write_all, results)
                if progress is not None:
                    progress(STAGE, len(fused) / len(pairs))
            if writing is not None:
                writing.result()
    return FusedPictures(tuple(fused), tuple(alpha), unpaired)


def _batches(shapes: Mapping[str, tuple[int, ...]], most: int) -> Iterator[list[str]]:
    """Yield the names in their order, up to `most` of one shape together."""
    for _, names in groupby(shapes, key=lambda name: shapes[name]):
        rest = list(names)
        for first in range(0, len(rest), most):
            yield rest[first : first + most]


def _write_all(results: Mapping[Path, VoxelArray]) -> None:
    for path, picture in results.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_grey(picture * np.float32(WHITE), path)
