"""Whether both backends give the same: ``python -m benchmarks.backends -o docs/backends --heads FOLDER``.

Fuses one simulated pair of each kind by the loops in C and by torch, and writes how far poses, measures and fused
voxels are apart. A row is kept in OUT/records.csv as soon as it is measured, so that the same command resumes a stopped
run. Torch computes on ``--device``; on the CPU (the default) it stands for a card.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from unittest.mock import patch

import numpy as np

from benchmarks.registration.run import heads_from
from BrainFusionLib import Settings, fuse
from BrainFusionLib.backend.on_torch import OnTorch
from BrainFusionLib.device import pick_device, require_torch
from BrainFusionLib.errors import RegistrationError
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.fusion.network import network_from_weights, ready
from BrainFusionLib.fusion.rim import RimNetwork
from BrainFusionLib.fusion.weights import find_weights, load_weights
from BrainFusionLib.intensity import mri_scale
from BrainFusionLib.io import write_text
from BrainFusionLib.io.tables import Cell, format_csv, markdown_table, parse_csv
from BrainFusionLib.metrics import target_registration_errors_mm
from BrainFusionLib.settings import Device
from BrainFusionLib.transform import Transform
from BrainFusionLib.verdict.table import CRITERIA
from BrainFusionLib.volume import VoxelArray
from simulation.physics.case import PhysicsCase, make_physics_case
from simulation.physics.kinds import KINDS as BY_HAND
from simulation.physics.kinds import draw_kind

logger = logging.getLogger("benchmarks")

KINDS = (*BY_HAND, "clinic", "mix")
SEED = 11
# How far results may be apart: poses, and voxels as a share of the MRI's range; and how close to a limit a finding may
# differ.
MOST_MM, MOST_FUSED, NEAR = 0.005, 1e-3, 0.01
COLUMNS = ("kind", "pose_mm", "colours", "measures_percent", "findings", "fused", "ppm", "agrees")


@dataclass(frozen=True)
class Outcome:
    """What fusing a pair gives: pose, colour, evidence and fused voxels; only the pose if it was refused."""

    transform: Transform
    colour: str
    evidence: Evidence | None = None
    levels: frozenset[tuple[str, str]] = frozenset()
    fused: VoxelArray | None = None


def outcome(case: PhysicsCase, device: str) -> Outcome:
    """Fuse a pair, or keep the pose that was refused."""
    try:
        result = fuse(case.ct, case.mri, Settings(device=cast(Device, device)))
    except RegistrationError as error:
        if error.best_transform is None:
            raise
        return Outcome(error.best_transform, "refused")
    assert result.volumes is not None
    levels = frozenset((finding.code, finding.level) for finding in result.verdict.findings)
    fused = result.volumes.fused.array_kji
    return Outcome(result.pose.transform, result.verdict.colour, result.evidence, levels, fused)


@contextmanager
def torch_on_the_cpu() -> Iterator[None]:
    """Let torch do on the CPU all that it would do on a card."""

    def run(network: RimNetwork, device: str) -> object:
        import torch

        return ready(network_from_weights(load_weights(find_weights())), torch.device("cpu"))

    with ExitStack() as patched:
        for module in ("registration.register", "resample"):
            patched.enter_context(patch(f"BrainFusionLib.{module}.backend_of", OnTorch))
        patched.enter_context(patch.object(RimNetwork, "runner", run))
        yield


def through_torch(case: PhysicsCase, device: str) -> Outcome:
    """Fuse a pair by torch on a device."""
    if device != "cpu":
        return outcome(case, device)
    with torch_on_the_cpu():
        return outcome(case, device)


def row_of(kind: str, case: PhysicsCase, device: str) -> dict[str, Cell]:
    """Return the row of a pair: how far the backends are apart."""
    ours, theirs = outcome(case, "cpu"), through_torch(case, device)
    points = case.mri.grid.centre_lps_mm + np.random.default_rng(0).uniform(-70, 70, (500, 3))
    apart = float(target_registration_errors_mm(theirs.transform, ours.transform, points).max())
    row: dict[str, Cell] = {"kind": kind, "pose_mm": f"{apart:.6f}", "colours": f"{ours.colour}, {theirs.colour}"}
    agrees = apart <= MOST_MM and ours.colour == theirs.colour
    if ours.evidence is not None and theirs.evidence is not None:
        most, differing, far = findings_apart(ours, theirs)
        assert ours.fused is not None
        assert theirs.fused is not None
        low, high = mri_scale(case.mri.array_kji)
        off = np.abs(ours.fused - theirs.fused) / (high - low)
        row |= {"measures_percent": f"{100 * most:.4f}", "findings": "; ".join(differing), "fused": f"{off.max():.6f}"}
        row["ppm"] = f"{1e6 * (off > MOST_FUSED).mean():.1f}"
        agrees = agrees and not far and float(off.max()) <= MOST_FUSED
    return row | {"agrees": "yes" if agrees else "no"}


def findings_apart(ours: Outcome, theirs: Outcome) -> tuple[float, list[str], bool]:
    """Return the largest difference of a measure, as a share of its limit, what findings differ, and if one may not."""
    assert ours.evidence is not None
    assert theirs.evidence is not None
    most, differing, far = 0.0, [], False
    odd = {code for code, _ in ours.levels ^ theirs.levels}
    for criterion in CRITERIA:
        both = criterion.measure(ours.evidence), criterion.measure(theirs.evidence)
        limits = [each for each in (criterion.green, criterion.amber, criterion.red) if each]
        limits = [abs(limit) * criterion.scale(ours.evidence) for limit in limits]
        share = float("inf")
        if limits and None not in both:
            first, second = cast(tuple[float, float], both)
            most = max(most, abs(first - second) / min(limits))
            share = min(abs(abs(first) / limit - 1) for limit in limits)
        if criterion.code in odd:
            differing.append(f"{criterion.code} {both[0]} and {both[1]}, limits {limits}")
            far = far or share > NEAR
    return most, differing, far


def table(rows: Sequence[dict[str, str]], where: str) -> str:
    """Return the page of the table."""
    agreeing = sum(row["agrees"] == "yes" for row in rows)
    return "\n".join(
        [
            "# Both backends give the same",
            "",
            f"The loops in C against {where}, a simulated pair of each kind (`python -m benchmarks.backends`): "
            f"{agreeing} of {len(rows)} agree. They do if poses are at most {MOST_MM:g} mm apart anywhere in the head, "
            f"fused voxels at most {MOST_FUSED:g} of the MRI's range, and colours and findings are the same wherever "
            f"the measure is more than {100 * NEAR:g} % from its limit.",
            "",
            markdown_table(
                ["kind", "poses apart, mm", "verdicts", "measures apart, % of the limit", "findings that differ",
                 "voxels apart, of the range", "above .001, ppm", "agree"],
                [[row[name] or "–" for name in COLUMNS] for row in rows],
            ),
            "",
        ]
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 1 if a kind does not agree."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backends", description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    parser.add_argument("--device", default="cpu", help="of the backend in torch (default: cpu)")
    parser.add_argument("--heads", type=Path, metavar="FOLDER", help="label maps of heads; otherwise a phantom")
    parser.add_argument("--kinds", nargs="+", default=KINDS, metavar="KIND", help="kinds of pairs to simulate")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device, torch = pick_device(arguments.device), require_torch("this benchmark")
    where = f"torch {torch.__version__} on {'the CPU' if device == 'cpu' else torch.cuda.get_device_name(device)}"
    arguments.output.mkdir(parents=True, exist_ok=True)
    records = arguments.output / "records.csv"
    if not records.exists():
        write_text(format_csv([], COLUMNS), records)
    done = {row["kind"] for row in parse_csv(records.read_text(encoding="utf-8")).rows}
    heads = heads_from(arguments.heads)
    for kind in arguments.kinds:
        if kind not in done:
            case = make_physics_case(heads[0](), draw_kind(kind, SEED), SEED)
            row = row_of(kind, case, device)
            with records.open("a", newline="\n", encoding="utf-8") as file:
                file.write(format_csv([row], COLUMNS, header=False))
            logger.info("%s", row)
    rows = parse_csv(records.read_text(encoding="utf-8")).rows
    text = table(rows, where)
    write_text(text, arguments.output / "table.md")
    logger.info("%s", text)
    return 0 if all(row["agrees"] == "yes" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
