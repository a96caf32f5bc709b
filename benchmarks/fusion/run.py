"""Fuse registered 8-bit slice pairs, and measure them in one run with what other methods made of the same pairs.

``python -m benchmarks.fusion PAIRS PEERS -o FOLDER`` takes PAIRS/CT, PAIRS/MRI and one folder of fused pictures a
method in PEERS, all of the same names. Ours are made as ``brainfusion slices`` makes them, 8-bit PNGs as theirs are.
Only the names that every peer has are used. All is measured twice: on whole pictures, and on the head alone, every
picture and the CT without what is outside. FOLDER gets ``table.md``, ``means.csv``, ``slices.csv`` and ``sheet.png``.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.fusion.sheet import write_sheet
from BrainFusionLib import __version__
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.fusion.measuring import Measured, measure_files
from BrainFusionLib.fusion.methods import METHODS
from BrainFusionLib.fusion.slice_folders import fuse_folders
from BrainFusionLib.fusion.weights import SHIPPED
from BrainFusionLib.intensity import picture_stacks
from BrainFusionLib.intensity.pictures import head_in_pictures
from BrainFusionLib.io import list_pictures, read_grey, write_grey, write_text
from BrainFusionLib.io.pictures import pair_names
from BrainFusionLib.io.tables import format_csv, markdown_table
from BrainFusionLib.settings import FusionSettings, Settings

logger = logging.getLogger("benchmarks")

OURS = "ours"
# What the table and the sheet call the weights that ship, beside the default ones.
TITLES = {"fusion_net": "reference (ours)", "fusion_net_wavelet": "reference, wavelet (ours)"}
LABEL = "ours, the label itself"
# What a result has to reach at once: a score counts only with all gates passed.
AIMS = {"Qabf": 0.650, "VIF": 0.36, "NMI": 1.15, "Qy": 0.975}
LEAST_CORRELATION = 0.995
LIMITS = {"bone_error": 0.5, "soft_tissue_error": 0.5, "overshoot": 0.0, "dark_rim_60": 0.0, "dark_rim_30": 2.0}
# What is measured on the head alone, too, and how it is called then.
OF_HEAD = {name: f"{name}, head alone" for name in AIMS}
REPORTED = ("SSIM", "SCD", "EN", "SD", "SF", "AG")


def methods_of_ours() -> dict[str, FusionSettings]:
    """Return the settings of everything that ships, by the name in the table; the default first."""
    found: dict[str, FusionSettings] = {}
    for method in METHODS.values():
        if method.needs_weights:
            found |= {TITLES.get(name, OURS): FusionSettings(method.name, name) for name in SHIPPED}
        else:
            found[f"{method.name} (rule)"] = FusionSettings(method.name)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fusion", description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path, metavar="PAIRS", help="folder with CT/ and MRI/")
    parser.add_argument("peers", type=Path, metavar="PEERS", help="folder with a folder of fused pictures a method")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--optimum", action="store_true", help="also what the default network's training aims at")
    parser.add_argument("--sheet", nargs="+", metavar="NAME", help="slices of the sheet (three, spread evenly)")
    parser.add_argument("--show", nargs="+", metavar="PEER", help="peers on the sheet (the three best by Qabf)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        compare(arguments.pairs, arguments.peers, arguments.output, arguments.optimum, arguments.sheet, arguments.show)
    except (BrainFusionError, OSError) as error:
        logger.error("%s", error)
        return 2
    logger.info("%s", (arguments.output / "table.md").read_text(encoding="utf-8"))
    return 0


def compare(
    pairs: Path,
    peers: Path,
    output: Path,
    optimum: bool = False,
    sheet: Sequence[str] | None = None,
    show: Sequence[str] | None = None,
) -> dict[str, Measured]:
    """Measure every method, write the tables and the sheet, and return the measures by method.

    Raises
    ------
    ImageFileError, ImageContentError
        A folder or picture is missing, cannot be read or does not fit; the output cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    folders = {folder.name: folder for folder in sorted(peers.iterdir()) if folder.is_dir()}
    shared, _ = pair_names(pairs / "CT", pairs / "MRI", *folders.values())
    with tempfile.TemporaryDirectory() as temporary:
        ct, mri = (_only(pairs / kind, list(shared), Path(temporary) / kind) for kind in ("CT", "MRI"))
        for title, fusion in methods_of_ours().items():
            folders[title] = Path(temporary) / "fused" / title
            fuse_folders(ct, mri, folders[title], Settings(fusion=fusion, device="cpu"))
        if optimum:
            folders[LABEL] = _optimum(ct, mri, list(shared), Path(temporary) / "optimum")
        measured = {title: measure_files(folder, ct, mri) for title, folder in folders.items()}
        ct_of_head = _of_head(ct, ct, mri, Path(temporary) / "head" / "CT")
        for title, folder in folders.items():
            of_head = measure_files(_of_head(folder, ct, mri, Path(temporary) / "head" / title), ct_of_head, mri)
            for name, values in measured[title].slices.items():
                values.update({OF_HEAD[measure]: of_head.slices[name][measure] for measure in OF_HEAD})
        write_text(_table(measured, len(shared)), output / "table.md")
        write_text(
            format_csv([{"method": title, **found.mean} for title, found in measured.items()]), output / "means.csv"
        )
        rows = [
            {"method": title, "slice": name, **values}
            for title, found in measured.items()
            for name, values in found.slices.items()
        ]
        write_text(format_csv(rows), output / "slices.csv")
        names = list(shared)
        chosen = list(sheet or names[:: max(1, len(names) // 3)][:3])
        best = sorted((name for name in folders if (peers / name).is_dir()), key=lambda n: -_score(measured[n]))
        titles = {"CT": ct, "MRI": mri, "ours": folders[OURS]}
        titles |= {title.removesuffix(" (ours)"): folders[title] for title in folders if title.endswith("(ours)")}
        titles |= {name: folders[name] for name in (show or best[:3])}
        write_sheet(titles, chosen, output / "sheet.png")
    return measured


def _only(folder: Path, names: Sequence[str], into: Path) -> Path:
    """Return a folder that has the pictures of these names, and no others."""
    into.mkdir(parents=True)
    pictures = list_pictures(folder)
    for name in names:
        write_grey(read_grey(pictures[name]), into / f"{name}.png")
    return into


def _optimum(ct: Path, mri: Path, names: Sequence[str], into: Path) -> Path:
    """Write the optimised label of every pair: what `training/configs/default.toml`'s loss is least for."""
    import torch

    from training.config import LabelConfig
    from training.labels import make_labels

    into.mkdir(parents=True)
    for name in names:
        levels = [read_grey(folder / f"{name}.png") for folder in (ct, mri)]
        stacks = picture_stacks(*(picture[None] for picture in levels))
        label = make_labels(
            stacks.ct_unit, stacks.mri_unit, stacks.bone_weight, LabelConfig(kind="optimum"), torch.device("cpu")
        )
        write_grey(label[0] * 255, into / f"{name}.png")
    return into


def _of_head(pictures: Path, ct: Path, mri: Path, into: Path) -> Path:
    """Return a folder of the pictures that CT and MRI have, with the head alone: outside it the MRI, or 0 in the CT."""
    into.mkdir(parents=True)
    found = list_pictures(pictures)
    for name, path in list_pictures(ct).items():
        levels, c, m = (read_grey(file) for file in (found[name], path, mri / path.name))
        write_grey(np.where(head_in_pictures(c, m), levels, 0 if pictures == ct else m), into / path.name)
    return into


def _score(measured: Measured) -> float:
    return measured.mean["Qabf"] or 0.0


def fails(mean: Mapping[str, float | None]) -> list[str]:
    """Return the gates (`LIMITS`, and the correlation) that a method's means do not pass."""
    high = [name for name, limit in LIMITS.items() if (value := mean[name]) is not None and value > limit]
    correlation = mean["soft_tissue_correlation"]
    low = correlation is not None and correlation < LEAST_CORRELATION
    return [*high, *(["soft_tissue_correlation"] if low else [])]


def _table(measured: Mapping[str, Measured], count: int) -> str:
    """Return a Markdown table, best Qabf of the head first; bold is what reaches the aim, with all gates passed."""
    scores = [name for measure in AIMS for name in (measure, OF_HEAD[measure])]
    columns = [*scores, *LIMITS, "soft_tissue_correlation", *REPORTED]
    titles = [name.replace("_", " ") for name in columns]
    lines = [
        "# Fusion: measured beside other methods",
        "",
        f"Means over {count} registered 8-bit slice pairs, each method's 8-bit pictures; errors and overshoot in grey "
        "levels of 255. Sorted by Qabf of the head alone. A score counts only where the picture tells the truth about "
        f"both sources: bone error and soft-tissue error at most {LIMITS['bone_error']:g}, correlation at least "
        f"{LEAST_CORRELATION:g}, no overshoot, no black ring (of the pixels that touch bone and are bright in the MRI, "
        f"{LIMITS['dark_rim_60']:g} % darker than it by more than 60 levels and at most {LIMITS['dark_rim_30']:g} % by "
        "more than 30); where all of that holds, *true* says yes. **Bold**: "
        + ", ".join(f"{name} ≥ {AIMS[name]:.3g}" for name in AIMS)
        + " and true. EN, SD, SF and AG are reported only: noise raises them.",
        "",
        "*Head alone*: measured on copies of the CT and of every method's pictures without what is outside the head "
        "(one mask for all, of CT and MRI), where most methods show the arcs of the head holder and ours does not. On "
        "whole pictures these arcs count as edges to keep.",
        "",
        f"BrainFusion {__version__}; `python -m benchmarks.fusion PAIRS PEERS -o docs/fusion --optimum`. The default "
        "weights were never trained on these pairs.",
        "",
    ]
    rows = []
    for title, found in sorted(measured.items(), key=lambda item: -(item[1].mean[OF_HEAD["Qabf"]] or 0.0)):
        mean = found.mean
        true = not fails(mean)
        rows.append([title, "yes" if true else "no", *(_cell(name, mean[name], true) for name in columns)])
    lines.append(markdown_table(["method", "true", *titles], rows))
    return "\n".join(lines) + "\n"


def _cell(name: str, value: float | None, true: bool) -> str:
    if value is None:
        return "–"
    aim = AIMS.get(name.partition(",")[0])
    if aim is None:
        return f"{value:.3f}"
    return f"**{value:.4f}**" if true and value >= aim else f"{value:.4f}"
