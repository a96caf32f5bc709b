"""Make the thumbnail of the sample in Slicer's Sample Data: ``python -m tools.sample_picture``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from BrainFusionLib.phantom import make_pair

PICTURE = Path(__file__).resolve().parents[1] / "BrainFusion" / "Resources" / "Icons" / "BrainFusionSample.png"
SIDE = 128


def main() -> None:
    """Draw the CT's middle slice beside the MRI's, each in its own pose."""
    pair = make_pair(seed=7, spacing_mm=1.5, rotation_deg=25.0, translation_mm=35.0)
    halves = []
    for volume, (low, high) in ((pair.ct, (-200.0, 1200.0)), (pair.mri, np.percentile(pair.mri.array_kji, (1, 99.5)))):
        middle = np.clip((volume.array_kji[volume.grid.shape_kji[0] // 2] - low) / (high - low), 0, 1)
        picture = Image.fromarray((255 * middle).astype(np.uint8))
        picture.thumbnail((SIDE, SIDE))
        square = Image.new("L", (SIDE, SIDE))
        square.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
        halves.append(np.asarray(square))
    Image.fromarray(np.hstack(halves)).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
