"""How far Qabf can be raised at all on registered slice pairs, and what that costs in truth.

``python -m benchmarks.fusion.bound PAIRS -o FOLDER`` searches, for each pair of PAIRS/CT and PAIRS/MRI and with no
network, the weight of the CT at every pixel that gives the greatest Qabf, once for each price that leaving the CT in
bone and the MRI in soft tissue has. FOLDER gets ``bound.md``, a line a price.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.intensity import windowed_bone_weight
from BrainFusionLib.intensity.pictures import head_in_pictures
from BrainFusionLib.io import write_text
from BrainFusionLib.io.pictures import pair_names, read_alike
from BrainFusionLib.io.tables import markdown_head, markdown_row
from BrainFusionLib.metrics import gates
from BrainFusionLib.metrics.fusion import qabf
from training.config import LabelConfig
from training.labels import best_alpha

logger = logging.getLogger("benchmarks")

# Prices of an error in bone and in soft tissue, against 1 - Qabf; see `training.labels.best_alpha`.
PRICES = ((5.0, 5.0), (5.0, 3.5), (5.0, 2.0), (5.0, 1.0), (0.3, 1.0))
STEPS = 80
COLUMNS = (
    "price in bone",
    "price in soft tissue",
    "Qabf",
    "Qabf, head alone",
    "bone error",
    "soft-tissue error",
    "correlation",
)


def bound(pairs: Path) -> str:
    """Return the table, as Markdown.

    Raises
    ------
    ImageFileError, ImageContentError
        The folders hold no pairs, or a picture cannot be read.
    """
    named, _ = pair_names(pairs / "CT", pairs / "MRI")
    read = [[picture.astype(np.float64) for picture in read_alike(paths)] for paths in named.values()]
    lines = [
        "# How far Qabf can be raised",
        "",
        f"{len(read)} slice pairs; `python -m benchmarks.fusion.bound PAIRS -o docs/fusion`. No network: the weight of "
        f"the CT is searched at every pixel ({STEPS} steps of Adam), with a price for leaving the CT in bone and the "
        "MRI in soft tissue, and nothing but bone much darker than the MRI (no black ring). Errors in grey levels of "
        "255. *Head alone*: without the arcs of the head holder. Only rows with errors of at most 0.5 and a "
        "correlation of at least 0.995 show the truth about both sources.",
        "",
        markdown_head(COLUMNS),
    ]
    for bone_price, soft_price in PRICES:
        config = LabelConfig(kind="optimum", steps=STEPS, bone=bone_price, soft=soft_price)
        rows = []
        for ct, mri in read:
            bone, head = windowed_bone_weight(ct, mri), head_in_pictures(ct, mri)
            a, b, weight = (torch.from_numpy(x.astype(np.float32))[None, None] for x in (ct / 255, mri / 255, bone))
            alpha = best_alpha(a, b, weight, config)[0, 0].numpy()
            fused = np.rint(alpha * ct + (1 - alpha) * mri)
            gate = gates(fused, ct, mri, bone, head)
            scores = (qabf(fused, ct, mri), qabf(np.where(head, fused, mri), ct * head, mri))
            rows.append((*scores, gate.bone_error, gate.soft_tissue_error, gate.soft_tissue_correlation))
        means = np.nanmean(np.array(rows, dtype=np.float64), axis=0)
        shown = [f"{value:.{digits}f}" for value, digits in zip(means, (4, 4, 3, 3, 4), strict=True)]
        lines.append(markdown_row([f"{bone_price:g}", f"{soft_price:g}", *shown]))
        logger.info("%s", lines[-1])
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fusion.bound", description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path, metavar="PAIRS", help="folder with CT/ and MRI/")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        write_text(bound(options.pairs), options.output / "bound.md")
    except (BrainFusionError, OSError) as error:
        logger.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
