"""Makes the cases and keeps a row of each: truth, and all evidence. The dear part, which is done once."""

from __future__ import annotations

import itertools
import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.realism import measuring, truth
from benchmarks.realism.plan import A_GROUP, Group, Task, plan
from benchmarks.realism.row import columns, row_of, short
from benchmarks.registration.run import heads_from
from BrainFusionLib.cohort.running import worker_pool
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.io import write_text
from BrainFusionLib.io.tables import Cell, format_csv, parse_csv
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume
from simulation.physics.case import PhysicsCase, make_physics_case
from simulation.physics.draw import draw_site
from simulation.physics.kinds import draw_kind

logger = logging.getLogger("benchmarks")

Row = dict[str, Cell]
OF_TASK = ("group", "made", "kind", "seed", "site", "head", "half", "effects")
CPU = ("simulation_cpu_s", "register_cpu_s", "evidence_cpu_s")
COLUMNS = (*OF_TASK, *truth.OF_CASE, *truth.OF_POSE, "wrong", "rejected", *CPU, *columns())


def collect(folder: Path | None, path: Path, cases: int, workers: int) -> None:
    """Make what is not in the table yet, so many groups at once, and append the rows of each."""
    groups = plan(cases, len(heads_from(folder)))
    done = {int(row["group"]) for row in completed(path)}
    left = [group for group in groups if group.number not in done]
    seeds = [task.seed for group in groups for task in group.tasks]
    logger.info("seeds %d to %d, %d of %d groups left", min(seeds), max(seeds), len(left), len(groups))
    if not path.exists():
        write_text(format_csv([], COLUMNS), path)
    # Fresh processes, because torch's threads do not survive a fork; they stay warm from group to group.
    with worker_pool(workers) as pool:
        for group, rows in zip(left, pool.map(_rows_or_failure, itertools.repeat(folder), left), strict=True):
            if isinstance(rows, str):
                logger.error("group %d failed, and is tried again the next time:\n%s", group.number, rows)
                continue
            with path.open("a", newline="\n", encoding="utf-8") as file:
                file.write(format_csv(rows, COLUMNS, header=False))
            for row in rows:
                shown = ("made", "kind", "seed", "effects", "anatomy_median_mm", "anatomy_p95_mm", "wrong", "rejected")
                cpu = sum(float(row[name] or 0) for name in CPU)
                logger.info("%s %.1f s", " ".join(str(row[name]) for name in shown if row[name] != ""), cpu)


def completed(path: Path) -> list[dict[str, str]]:
    """Return the rows of all groups that are complete, and drop the others from the file.

    Raises
    ------
    ValueError
        The table was made with other columns: with other evidence, for example.
    """
    if not path.exists():
        return []
    table = parse_csv(path.read_text(encoding="utf-8"))
    if table.columns != COLUMNS:
        odd = sorted(set(table.columns) ^ set(COLUMNS))
        raise ValueError(
            f"{path} was made with other evidence ({', '.join(odd[:5]) or 'in another order'}); move it away to start "
            "anew, or add --table-only"
        )
    counts = Counter(row["group"] for row in table.rows)
    whole = [row for row in table.rows if counts[row["group"]] == A_GROUP]
    if len(whole) < len(table.rows):
        write_text(format_csv(whole, COLUMNS), path)
    return whole


def _rows_or_failure(folder: Path | None, group: Group) -> list[Row] | str:
    """Return the rows of a group, or how it failed: one group is not to end a run of an hour."""
    try:
        return rows_of(folder, group)
    except Exception:
        return traceback.format_exc()


def rows_of(folder: Path | None, group: Group) -> list[Row]:
    """Simulate the pairs of a group, measure them and the wrong case made of them, and return their rows."""
    import torch

    torch.set_num_threads(1)
    heads = heads_from(folder)
    rows: list[Row] = []
    made: list[tuple[PhysicsCase, measuring.Measured | None]] = []
    for task in group.tasks:
        started = time.process_time()
        head = heads[task.head]()
        case = make_physics_case(head, draw_kind(task.kind, task.seed, draw_site(task.site)), task.seed)
        row = _start(group, task, case) | truth.truth_of_case(case, head)
        row["simulation_cpu_s"] = time.process_time() - started
        found: measuring.Measured | None = None
        try:
            found = measuring.measured(case.ct, case.mri)
        except BrainFusionError as error:
            row["rejected"] = str(error)
        else:
            row |= _pose(case, found)
        rows.append(_finished(row))
        made.append((case, found))
    rows.append(_wrong_case(group, rows, made))
    return rows


def wrong_pair(
    group: Group, case: PhysicsCase, other: Callable[[], PhysicsCase]
) -> tuple[Volume, Volume, RigidTransform | None]:
    """Return CT, MRI and given pose of the wrong case of a group; `other` gives the pair of another head."""
    if group.made == "pose off":
        random = np.random.default_rng((group.number, 41))
        return case.ct, case.mri, measuring.pose_off(case.transform, case.points_lps_mm, random)
    if group.made == "mirrored":
        return case.ct, measuring.mirrored(case.mri), None
    return other().ct, case.mri, None


def _wrong_case(
    group: Group, rows: Sequence[Row], made: Sequence[tuple[PhysicsCase, measuring.Measured | None]]
) -> Row:
    """Return the row of the wrong case made of one or two pairs of a group."""
    # In turn the pairs of the mix and the others.
    first = group.number // 2 % len(made)
    case, found = made[first]
    row: Row = {name: rows[first][name] for name in (*OF_TASK, *truth.OF_CASE)}
    row["made"] = group.made
    ct, mri, given = wrong_pair(group, case, lambda: made[first - 1][0])
    try:
        if given is None:
            row |= _evidence(measuring.measured(ct, mri))
        else:
            row |= _pose(case, measuring.measured_given(ct, mri, given, found or measuring.measured(ct, mri)))
    except BrainFusionError as error:
        row["rejected"] = str(error)
    return _finished(row)


def _start(group: Group, task: Task, case: PhysicsCase) -> Row:
    return {
        "group": group.number, "made": "", "kind": task.kind, "seed": task.seed, "site": task.site, "head": task.head,
        "half": task.half, "effects": "+".join(case.strengths.effects),
    }  # fmt: skip


def _pose(case: PhysicsCase, found: measuring.Measured) -> Row:
    return truth.truth_of_pose(case, found.transform) | _evidence(found)


def _evidence(found: measuring.Measured) -> Row:
    cpu: Row = {"register_cpu_s": found.register_cpu_s, "evidence_cpu_s": found.evidence_cpu_s}
    return cpu | row_of(found.evidence)


def _finished(row: Row) -> Row:
    """Return a row with all its columns, as it is written."""
    whole: Row = {name: row.get(name, "") for name in COLUMNS}
    whole["wrong"] = truth.why_wrong(whole)
    return {name: short(value) if value != "" else "" for name, value in whole.items()}
