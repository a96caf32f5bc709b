"""worst.png: the cases on which the verdict is most wrong, made again and drawn, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.realism import measuring
from benchmarks.realism.collect import wrong_pair
from benchmarks.realism.judging import Judged
from benchmarks.realism.plan import Group, Task, plan
from benchmarks.realism.sheet import axial_and_sagittal, grey, plane_of
from benchmarks.realism.tables import RIGHT_MM, is_wrong_green
from benchmarks.realism.truth import WRONG_MM
from benchmarks.registration.run import heads_from
from BrainFusionLib.errors import RegistrationError
from BrainFusionLib.transform import RigidTransform, Transform
from simulation.physics.case import PhysicsCase, make_physics_case
from simulation.physics.draw import draw_site
from simulation.physics.kinds import draw_kind

# So many of each sort.
EACH = 4
BONE_HU = 250.0
# Of the pictures, and of the strip above them in pixels.
LARGER, CAPTION = 1.6, 48


def worst_of(cases: Sequence[Judged]) -> list[tuple[str, Judged]]:
    """Return the worst cases, each with why: wrong greens, right ones that are red or refused, errors beyond bounds."""
    greens = sorted((c for c in cases if is_wrong_green(c, WRONG_MM)), key=lambda c: -c.mm("anatomy_p95_mm"))
    reds = [
        c for c in cases
        if c.is_simulated and c.mm("anatomy_p95_mm") < RIGHT_MM and c.colour in ("red", "refused", "rejected")
    ]  # fmt: skip
    stated = [c for c in cases if c.is_accurate and c.bound_mm is not None]
    stated.sort(key=lambda c: -c.mm("anatomy_median_mm") / (c.bound_mm or 1))
    chosen: list[tuple[str, Judged]] = [("wrong green", c) for c in greens[:EACH]]
    chosen += [("false red", c) for c in reds[:EACH]]
    known = [c for _, c in chosen]
    return chosen + [("beyond bound", c) for c in stated if not any(c is k for k in known)][:EACH]


def write_worst(cases: Sequence[Judged], folder: Path | None, path: Path) -> None:
    """Draw a row for each: MRI with the CT's bone outlined, and the CT, in an axial and a sagittal plane."""
    rows = [np.asarray(_row(why, case, folder)) for why, case in worst_of(cases)]
    if rows:
        Image.fromarray(np.concatenate(rows)).quantize(64).save(path, optimize=True)


def _row(why: str, judged: Judged, folder: Path | None) -> Image.Image:
    heads = heads_from(folder)
    group = plan(4 * (int(judged.row["group"]) + 1), len(heads))[-1]
    case, ct, mri, pose = _again(judged, group, folder)
    tiles = []
    for grid in axial_and_sagittal(case.points_lps_mm.mean(axis=0)):
        below, above = plane_of(mri, grid, None), plane_of(ct, grid, pose)
        seen = np.repeat(grey(below, 0, float(np.percentile(mri.array_kji, 99.3)))[..., None], 3, axis=2)
        bone = above > BONE_HU
        inner = bone[1:-1, 1:-1] & bone[:-2, 1:-1] & bone[2:, 1:-1] & bone[1:-1, :-2] & bone[1:-1, 2:]
        rim = bone.copy()
        rim[1:-1, 1:-1] &= ~inner
        seen[rim] = (255, 160, 0)
        tiles += [seen, np.repeat(grey(above, -20.0, 100.0)[..., None], 3, axis=2)]
    shown = Image.fromarray(np.concatenate(tiles, axis=1))
    shown = shown.resize((round(LARGER * shown.width), round(LARGER * shown.height)), Image.Resampling.LANCZOS)
    row = Image.new("RGB", (shown.width, shown.height + CAPTION))
    row.paste(shown, (0, CAPTION))
    said = ", ".join(sorted(judged.codes)) or judged.reason or "nothing"
    words = (
        f"{why}: {judged.name} {judged.row['effects']}\n"
        f"{judged.colour}: {said}\n"
        f"anatomy {judged.row['anatomy_median_mm'] or '-'} (p95 {judged.row['anatomy_p95_mm'] or '-'}), pose "
        f"{judged.row['pose_median_mm'] or '-'}, shift p95 {judged.row['shift_p95_mm']} mm; expected "
        f"{judged.expected_mm or 0:.2f}, bound {judged.bound_mm or 0:.2f}"
    )
    ImageDraw.Draw(row).multiline_text((3, 1), words, fill=(255, 255, 0))
    return row


def _again(judged: Judged, group: Group, folder: Path | None):  # type: ignore[no-untyped-def]
    """Return the case, the two volumes and the pose that a row is of."""
    places = [n for n, task in enumerate(group.tasks) if str(task.seed) == judged.row["seed"]]
    case = _made(group.tasks[places[0]], folder)
    if judged.is_simulated:
        ct, mri = case.ct, case.mri
    else:
        ct, mri, given = wrong_pair(group, case, lambda: _made(group.tasks[places[0] - 1], folder))
        if given is not None:
            return case, ct, mri, given
    return case, ct, mri, _registered(ct, mri)


def _registered(ct, mri) -> Transform:  # type: ignore[no-untyped-def]
    try:
        return measuring.measured(ct, mri).transform
    except RegistrationError as error:
        return error.best_transform or RigidTransform.identity()


def _made(task: Task, folder: Path | None) -> PhysicsCase:
    head = heads_from(folder)[task.head]()
    return make_physics_case(head, draw_kind(task.kind, task.seed, draw_site(task.site)), task.seed)
