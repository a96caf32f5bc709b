"""Score networks and classical rules on held-out heads or on slice pairs: all measures, and the fidelity gates.

``python -m training.evaluate NETWORK --config FILE --output FOLDER`` judges a run's folder, a checkpoint (``.pt``) or a
weights file (``.npz``) on the configuration's held-out heads; with ``--pairs FOLDER`` instead of ``--config`` on the
8-bit pictures in FOLDER/CT and FOLDER/MRI. The output folder gets ``slices.csv``, ``means.csv``, ``means.md``,
``means.json`` (the network's) and ``sheet.png``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from BrainFusionLib.errors import BrainFusionError, SettingsError
from BrainFusionLib.fusion.method import Fuser
from BrainFusionLib.fusion.methods import METHODS
from BrainFusionLib.fusion.methods import prepare as prepare_method
from BrainFusionLib.fusion.network import build_network
from BrainFusionLib.fusion.networks import NetworkFuser
from BrainFusionLib.intensity import CT_KNOTS_UNIT, Stacks
from BrainFusionLib.io import atomic_output, write_json, write_text
from BrainFusionLib.io.tables import Cell, format_csv, markdown_table
from BrainFusionLib.metrics import gates, measure
from BrainFusionLib.settings import FusionSettings
from BrainFusionLib.volume import VoxelArray
from training.cache import open_store, prepare
from training.checkpoint import load_checkpoint
from training.config import RULES, Config, DataConfig, LabelConfig
from training.config_file import config_from, read_config
from training.data import split
from training.labels import make_labels
from training.sources import source_of

logger = logging.getLogger("training")

# Gives the fused slices of stacks.
Fuse = Callable[[Stacks], VoxelArray]

SHEET_ROWS = 6


@dataclass(frozen=True, eq=False)
class JudgedSlice:
    """A slice to judge by: (rows, columns) each, unit scale."""

    name: str
    ct: VoxelArray
    mri: VoxelArray
    bone: VoxelArray

    @property
    def stacks(self) -> Stacks:
        """The slice as a stack of one."""
        return Stacks(self.ct[None], self.mri[None], self.bone[None])

    @property
    def levels(self) -> float:
        """Grey levels a unit, such that 255 shows all bone of a CT in HU, or all there is of an 8-bit picture."""
        return 255 / CT_KNOTS_UNIT[-2] if self.ct.max() > 1.001 else 255.0


def evaluate(fusers: Mapping[str, Fuse], slices: Sequence[JudgedSlice], output: Path) -> dict[str, dict[str, float]]:
    """Measure every fuser on every slice, write tables and a picture sheet, and return the means by fuser and measure.

    Raises
    ------
    ImageFileError
        The folder cannot be written to.
    """
    output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Cell]] = []
    shown = set(range(0, len(slices), max(1, len(slices) // SHEET_ROWS))[:SHEET_ROWS])
    sheet: list[list[VoxelArray]] = []
    for number, judged in enumerate(slices):
        pictures = [judged.ct, judged.mri]
        for name, fuse in fusers.items():
            fused = fuse(judged.stacks)[0]
            pictures.append(fused)
            rows.append({"method": name, "slice": judged.name, **_measured(fused, judged)})
        if number in shown:
            sheet.append([np.clip(picture * judged.levels, 0, 255) for picture in pictures])
    means = {name: _means([row for row in rows if row["method"] == name]) for name in fusers}
    write_text(format_csv(rows), output / "slices.csv")
    write_text(format_csv([{"method": name, **values} for name, values in means.items()]), output / "means.csv")
    write_text(_markdown(means, len(slices)), output / "means.md")
    write_json(means[next(iter(fusers))], output / "means.json")
    _write_sheet(sheet, ["CT", "MRI", *fusers], output / "sheet.png")
    return means


def _measured(fused: VoxelArray, judged: JudgedSlice) -> dict[str, float | None]:
    fused8, ct, mri = (np.asarray(image, np.float64) * judged.levels for image in (fused, judged.ct, judged.mri))
    return {**measure(fused8, ct, mri), **asdict(gates(fused8, ct, mri, judged.bone))}


def _means(rows: Sequence[Mapping[str, Cell]]) -> dict[str, float]:
    names = [name for name in rows[0] if name not in ("method", "slice")]
    found = {name: [float(v) for row in rows if isinstance(v := row[name], int | float)] for name in names}
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def _markdown(means: Mapping[str, Mapping[str, float]], count: int) -> str:
    names = list(dict.fromkeys(name for values in means.values() for name in values))
    rows = [
        [method, *(f"{values[name]:.3f}" if name in values else "–" for name in names)]
        for method, values in means.items()
    ]
    table = markdown_table(["method", *names], rows)
    return f"Means over {count} slices; errors and overshoot in grey levels of 255.\n\n{table}\n"


def _write_sheet(rows: Sequence[Sequence[VoxelArray]], titles: Sequence[str], path: Path) -> None:
    """Write slices side by side, one row a slice, titles on top."""
    height, width = rows[0][0].shape
    picture = Image.new("L", (width * len(titles), height * len(rows) + 16))
    draw = ImageDraw.Draw(picture)
    for column, title in enumerate(titles):
        draw.text((column * width + 4, 2), title, fill=255)
        for row, images in enumerate(rows):
            tile = Image.fromarray(np.rint(images[column]).astype(np.uint8))
            picture.paste(tile, (column * width, row * height + 16))
    with atomic_output(path) as temporary:
        picture.save(temporary, format="PNG")


def network_fuser(path: Path, device: torch.device) -> Fuser:
    """Return the network of a run's folder, a checkpoint or a weights file, ready to fuse.

    Raises
    ------
    WeightsError
        There is none, or it is damaged.
    """
    if path.suffix in (".npz", ".json"):
        return prepare_method(FusionSettings(weights=path), str(device))
    content = load_checkpoint(path / "best.pt" if path.is_dir() else path)
    network = build_network(config_from(content["config"]).network)
    network.load_state_dict(content["network"])
    return NetworkFuser(network, str(device))


def heldout_slices(config: Config, device: torch.device, most: int) -> Iterator[JudgedSlice]:
    """Yield up to `most` slices of a configuration's held-out heads, spread evenly over all of them."""
    source = source_of(config, device)
    _, heads = split(config, source)
    prepare(config, heads, source, device)
    store = open_store(config, heads, source)
    for index in np.unique(np.linspace(0, len(store) - 1, min(most, len(store))).round().astype(int)).tolist():
        batch = store.batch([index])
        ct, mri, bone = (image[0, 0].numpy() for image in (batch.ct, batch.mri, batch.bone))
        yield JudgedSlice(f"{heads[store.head_of(index)]}-{index}", ct, mri, bone)


def picture_slices(folder: Path, most: int) -> list[JudgedSlice]:
    """Read slice pairs of one name in FOLDER/CT and FOLDER/MRI, at most `most` of them."""
    # Of these, every one is judged on; the lists are there because a configuration needs both.
    data = DataConfig("png", ["*"], ["*"], path=str(folder), head_pattern="(.+)")
    source = source_of(Config(data), torch.device("cpu"))
    found = []
    for name in source.names(["*"])[:most]:
        for stack in source.slices(name):
            found.append(JudgedSlice(name, stack.ct[0], stack.mri[0], stack.bone[0]))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description="Score a fusion network.")
    parser.add_argument("network", type=Path, help="run folder, checkpoint (.pt) or weights (.npz)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="judge on its held-out heads")
    parser.add_argument("--pairs", type=Path, metavar="FOLDER", help="judge on the PNG slices in FOLDER/CT, FOLDER/MRI")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--slices", type=int, default=200, metavar="N", help="judge on at most N slices (200)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--alone", action="store_true", help="without the rules for comparison")
    parser.add_argument("--optimum", action="store_true", help="also the optimised label (slow on a CPU)")
    arguments, overrides = parser.parse_known_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if (arguments.config is None) == (arguments.pairs is None) or arguments.slices < 1:
            raise SettingsError("give either --config FILE or --pairs FOLDER, and --slices of 1 or more")
        device = torch.device(arguments.device)
        label = LabelConfig()
        if arguments.config is not None:
            config = read_config(arguments.config, overrides)
            label = config.label
            slices = list(heldout_slices(config, device, arguments.slices))
        else:
            slices = picture_slices(arguments.pairs, arguments.slices)
        fusers = {"network": _fused_by(network_fuser(arguments.network, device))}
        fusers |= {
            rule: _fused_by(prepare_method(FusionSettings(rule), str(device)))
            for rule in RULES
            if _is_ready(rule) and not arguments.alone
        }
        if arguments.optimum:
            fusers["optimum"] = _optimum(replace(label, kind="optimum"), device)
        evaluate(fusers, slices, arguments.output)
    except (BrainFusionError, OSError) as error:
        logger.error("%s", error)
        return 2
    logger.info("%s", (arguments.output / "means.md").read_text(encoding="utf-8"))
    return 0


def _is_ready(rule: str) -> bool:
    package = METHODS[rule].package
    return package is None or package.is_installed


def _fused_by(fuser: Fuser) -> Fuse:
    return lambda stacks: fuser.fuse(stacks).fused


def _optimum(label: LabelConfig, device: torch.device) -> Fuse:
    return lambda stacks: make_labels(stacks.ct_unit, stacks.mri_unit, stacks.bone_weight, label, device)


if __name__ == "__main__":
    sys.exit(main())
