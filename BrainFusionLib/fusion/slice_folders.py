"""Folders of registered 8-bit CT and MRI slices, fused into pictures of the same names."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from BrainFusionLib.device import pick_device
from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.fusion.fusing import fuse_stacks, weights_for
from BrainFusionLib.io import write_grey
from BrainFusionLib.io.pictures import pair_names, read_alike
from BrainFusionLib.metrics import windowed_bone_weight
from BrainFusionLib.progress import Cancel, Progress, stop_if
from BrainFusionLib.settings import Settings
from BrainFusionLib.volume import VoxelArray

STAGE = "fusing"
WHITE = np.float32(255)
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
        one of the inputs.
    SettingsError, WeightsError, MissingDependencyError, Cancelled
        As `pipeline.fuse`.
    """
    settings, output = settings or Settings(), Path(output)
    weights, device = weights_for(settings.fusion), pick_device(settings.device)
    pairs, unpaired = pair_names(Path(ct_folder), Path(mri_folder))
    for folder in (Path(ct_folder), Path(mri_folder)):
        if folder.resolve() in (output.resolve(), (output / "alpha").resolve()):
            raise ImageFileError(
                f"{output}: is one of the inputs, and they would be written over. Name another folder."
            )
    # All are read once before any is written: a bad pair at the end must not cost the user half a folder of results.
    with ThreadPoolExecutor(READERS) as readers:
        read = dict(zip(pairs, readers.map(read_alike, pairs.values()), strict=True))
    written: dict[str, list[Path]] = {"fused": [], "alpha": []}
    # A picture is written while the next one is fused, and no more than one waits for that.
    with ThreadPoolExecutor(1) as writer:
        writing: Future[None] | None = None
        for number, (name, (ct, mri)) in enumerate(read.items()):
            stop_if(cancel)
            bone = windowed_bone_weight(ct).astype(np.float32)
            fused, alpha = fuse_stacks(
                ct[None] / WHITE, mri[None] / WHITE, bone[None], settings.fusion, weights, device=device, cancel=cancel
            )
            results = {output / f"{name}.png": fused[0]}
            if alpha is not None and save_alpha:
                results[output / "alpha" / f"{name}.png"] = alpha[0]
            if writing is not None:
                writing.result()
            writing = writer.submit(_write_all, results)
            for path in results:
                written["fused" if path.parent == output else "alpha"].append(path)
            if progress is not None:
                progress(STAGE, (number + 1) / len(pairs))
        if writing is not None:
            writing.result()
    return FusedPictures(tuple(written["fused"]), tuple(written["alpha"]), unpaired)


def _write_all(results: Mapping[Path, VoxelArray]) -> None:
    for path, picture in results.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_grey(picture * WHITE, path)
