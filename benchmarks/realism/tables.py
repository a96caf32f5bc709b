"""Tables of judged rows: one line a kind, the findings' rates, and the verdict as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.realism.calibrating import LEAST_MM
from benchmarks.realism.judging import Judged
from benchmarks.realism.truth import WRONG_MM
from BrainFusionLib.io.tables import Cell, markdown_table
from simulation.physics.kinds import KINDS

Test = Callable[[Judged], bool]

KIND_COLUMNS = ("kind", "cases", "pose", "anatomy", "anatomy p95", "true pose: p95", "expected", "bound", "held",
                "bound / true", "green", "amber", "red", "refused")  # fmt: skip
# Findings that say that the anatomy is elsewhere than the picture shows it.
SAYS_SO = frozenset({"brain_shift", "part_displaced", "ventricles_changed", "distortion", "scale"})
DOUBTFUL_MM, RIGHT_MM = 1.5, 1.0


def share(held: int, of: int) -> str:
    """Return a count with its percentage: ``9/10 (90 %)``."""
    return f"{held}/{of} ({100 * held / of:.0f} %)" if of else "–"


def coverage(cases: Sequence[Judged]) -> tuple[int, int]:
    """Return in how many poses within 2 mm the bound holds, and of how many; in red and refused ones it does not."""
    accurate = [case for case in cases if case.is_accurate]
    return sum(case.is_held for case in accurate), len(accurate)


def sharpness(cases: Sequence[Judged]) -> float | None:
    """Return the median of bound / true error (at least 0.05 mm) over the poses within 2 mm that have a bound."""
    ratios = [
        case.bound_mm / max(case.mm("anatomy_median_mm"), LEAST_MM)
        for case in cases
        if case.is_accurate and case.bound_mm is not None
    ]
    return float(np.median(ratios)) if ratios else None


def kind_cells(name: str, cases: Sequence[Judged], judges: Test) -> list[Cell]:
    """Return the line of a kind: of all its cases; coverage and sharpness of those that judge."""
    judging = [case for case in cases if judges(case)]
    sharp = sharpness(judging)
    colours = Counter(case.colour for case in cases)
    return [
        name, len(cases),
        *(_median([case.value(c) for case in cases])
          for c in ("pose_median_mm", "anatomy_median_mm", "anatomy_p95_mm", "true_p95_mm")),
        _median([case.expected_mm for case in cases]), _median([case.bound_mm for case in cases]),
        share(*coverage(judging)), "–" if sharp is None else f"{sharp:.1f}",
        colours["green"], colours["amber"], colours["red"], colours["refused"] + colours["rejected"],
    ]  # fmt: skip


def kinds_table(cases: Sequence[Judged]) -> str:
    """Return one line a kind of simulated cases, and one for all of them."""
    simulated = [case for case in cases if case.is_simulated]
    lines = [kind_cells("all", simulated, _judges)]
    for kind in ("mix", "clinic", *KINDS):
        ours = [case for case in simulated if case.row["kind"] == kind]
        if ours:
            lines.append(kind_cells(kind, ours, _judges))
    return markdown_table(KIND_COLUMNS, lines)


def effects_table(cases: Sequence[Judged]) -> str:
    """Return one line an effect of the mix; a case with several stands in several lines."""
    mix = [case for case in cases if case.is_simulated and case.row["kind"] == "mix"]
    effects = sorted({effect for case in mix for effect in case.row["effects"].split("+")})
    lines = [
        kind_cells(effect or "none", [c for c in mix if effect in c.row["effects"].split("+")], _judges)
        for effect in effects
    ]
    return markdown_table(("effect", *KIND_COLUMNS[1:]), lines)


def made_table(cases: Sequence[Judged]) -> str:
    """Return one line for each way in which cases are wrong."""
    lines: list[list[Cell]] = []
    for wrong in sorted({case.row["wrong"] for case in cases if case.is_wrong}):
        ours = [case for case in cases if case.is_wrong and case.row["wrong"] == wrong]
        colours = Counter(case.colour for case in ours)
        silent = sum(is_wrong_green(case, WRONG_MM) for case in ours)
        said = sum(case.colour == "amber" for case in ours)
        lines.append([wrong, len(ours), silent, said, colours["red"], colours["refused"] + colours["rejected"]])
    return markdown_table(("wrong", "cases", "green, nothing said", "amber", "red", "refused"), lines)


def is_wrong_green(case: Judged, limit_mm: float) -> bool:
    """Return whether a case is green while its anatomy's 95th percentile is beyond a limit and no finding says so."""
    return case.colour == "green" and not case.codes & SAYS_SO and case.mm("anatomy_p95_mm") > limit_mm


@dataclass(frozen=True)
class Rate:
    """How often a finding is to be said, and how often not.

    Attributes
    ----------
    name, code
        Of the line, and of the finding.
    wanted, unwanted
        Cases in which it is to be said, and in which it is false.
    """

    name: str
    code: str
    wanted: Test
    unwanted: Test


def _at_least(column: str, limit: float) -> Test:
    return lambda case: abs(case.value(column) or 0.0) >= limit


def _at_most(column: str, limit: float) -> Test:
    return lambda case: abs(case.value(column) or 0.0) <= limit


RATES = (
    *(Rate(f"shift p95 ≥ {mm:g} mm", "brain_shift", _at_least("shift_p95_mm", mm), _at_most("shift_p95_mm", 0.5))
      for mm in (4.0, 5.0, 6.0)),
    Rate("air ≥ 5 mL", "intracranial_air", _at_least("air_ml", 5.0), _at_most("air_ml", 0.0)),
    Rate("hole ≥ 4 cm²", "skull_defect", _at_least("defect_cm2", 4.0), _at_most("defect_cm2", 0.0)),
    Rate("scale ≥ 2 %", "scale", _at_least("scale_pc", 2.0), _at_most("scale_pc", 1.0)),
    Rate("distortion alone p95 > 2 mm", "distortion",
         lambda case: case.mm("bent_p95_mm") > WRONG_MM and case.mm("shift_p95_mm") < RIGHT_MM,
         _at_most("bent_p95_mm", 1.0)),
)  # fmt: skip


def findings_table(cases: Sequence[Judged]) -> str:
    """Return how often findings are said where they are to be, said to be not judged, and said where they are false."""
    # Of other people's heads nothing is true; of a given pose that is off, the evidence is of that pose.
    usable = [case for case in cases if case.is_simulated and case.colour not in ("refused", "rejected")]
    lines: list[list[Cell]] = []
    for rate in RATES:
        wanted, unwanted = ([c for c in usable if test(c)] for test in (rate.wanted, rate.unwanted))
        open_code = f"{rate.code}_not_judged"
        either = sum(bool(c.codes & SAYS_SO) for c in wanted)
        mix, plain = ([c for c in unwanted if c.row["kind"] == kind] for kind in ("mix", "plain"))
        surgery = [c for c in unwanted if (c.value("air_ml") or 0) > 0 or (c.value("defect_cm2") or 0) > 0]
        lines.append([
            rate.name, share(sum(rate.code in c.codes for c in wanted), len(wanted)),
            sum(open_code in c.codes for c in wanted), share(either, len(wanted)) if rate.code in SAYS_SO else "",
            *(share(sum(rate.code in c.codes for c in group), len(group)) for group in (unwanted, mix, plain, surgery)),
        ])  # fmt: skip
    head = ("wanted", "said", "not judged", "shift, scale or distortion said", "false", "false in the mix", "in plain",
            "after surgery")  # fmt: skip
    return markdown_table(head, lines)


def whole_table(cases: Sequence[Judged]) -> str:
    """Return the verdict as a whole: wrong greens, and right cases that are not green."""
    judged = [case for case in cases if case.colour != "rejected"]
    lines: list[list[Cell]] = [
        [f"green, anatomy p95 > {mm:g} mm, no finding says so", share(sum(is_wrong_green(c, mm) for c in judged),
                                                                    sum(c.mm("anatomy_p95_mm") > mm for c in judged))]
        for mm in (WRONG_MM, DOUBTFUL_MM)
    ]  # fmt: skip
    for kind in ("plain", "mix"):
        right = [
            case for case in cases
            if case.is_simulated and case.row["kind"] == kind and case.mm("anatomy_p95_mm") < RIGHT_MM
        ]  # fmt: skip
        not_green = sum(case.colour != "green" for case in right)
        lines.append([f"right (p95 < {RIGHT_MM:g} mm), {kind}: not green", share(not_green, len(right))])
        worse = sum(case.colour in ("red", "refused", "rejected") for case in right)
        lines.append([f"right (p95 < {RIGHT_MM:g} mm), {kind}: red or refused", share(worse, len(right))])
    return markdown_table(("verdict", "cases"), lines)


def contrasts_table(cases: Sequence[Judged]) -> str:
    """Return the colours of right cases by the MRI's contrast."""
    lines: list[list[Cell]] = []
    right = [c for c in cases if c.is_simulated and c.mm("anatomy_p95_mm") < RIGHT_MM]
    for contrast in sorted({case.row["contrast"] for case in right}):
        ours = [case for case in right if case.row["contrast"] == contrast]
        colours = Counter(case.colour for case in ours)
        refused = colours["refused"] + colours["rejected"]
        lines.append([contrast, len(ours), colours["green"], colours["amber"], colours["red"], refused])
    head = ("contrast", f"right cases (p95 < {RIGHT_MM:g} mm)", "green", "amber", "red", "refused")
    return markdown_table(head, lines)


def codes_table(cases: Sequence[Judged]) -> str:
    """Return which findings and refusals right and wrong cases have."""
    right = [c for c in cases if c.is_simulated and c.mm("anatomy_p95_mm") < RIGHT_MM]
    wrong = [c for c in cases if c.is_wrong]
    counts = [Counter(code for c in group for code in [*c.codes, *_refusal(c)]) for group in (right, wrong)]
    every = sorted(set(counts[0]) | set(counts[1]), key=lambda code: (-counts[0][code], code))
    return markdown_table(
        ("finding or refusal", f"of {len(right)} right cases (p95 < {RIGHT_MM:g} mm)", f"of {len(wrong)} wrong ones"),
        [[code, counts[0][code], counts[1][code]] for code in every],
    )


def _refusal(case: Judged) -> list[str]:
    return [f"{case.colour}: {case.reason}"] if case.reason else []


def report(cases: Sequence[Judged]) -> str:
    """Return table.md."""
    seeds = [int(case.row["seed"]) for case in cases]
    wrong, simulated = sum(case.is_wrong for case in cases), sum(case.is_simulated for case in cases)
    cpu = [sum(case.value(n) or 0 for n in ("simulation_cpu_s", "register_cpu_s", "evidence_cpu_s")) for case in cases]
    return "\n".join([
        "# Scanner physics: measured",
        "",
        f"{len(cases)} cases, seeds {min(seeds)} to {max(seeds)}: {simulated} simulated pairs, and "
        f"{len(cases) - simulated} wrong cases made of them; {wrong} are wrong (anatomy's 95th percentile more than "
        f"{WRONG_MM:g} mm off, or no right pose). {np.mean(cpu):.1f} CPU s a case. Truth and evidence of each stand in "
        "records.csv, from which `--table-only` makes all of this again, with the limits and the calibration "
        "of the revision it is run on.",
        "",
        "Errors are in mm, medians over the cases. *Pose*: median over the brain of the distance to the best rigid fit "
        "of the skull. *Anatomy*: the same, and its 95th percentile, between where the pose puts the CT's anatomy and "
        "where the MRI has it; *true pose*: in the best rigid fit. *Held*: the anatomy's median is at most the bound, "
        "of all poses within 2 mm; red and refused ones have no bound and count as not held. *Bound / true*: median, "
        "the true error at least .05 mm. These two are of heads and scanners that calibrated nothing.",
        "",
        kinds_table(cases), "", "The same for each effect of the mix; a case with several stands in several lines.", "",
        effects_table(cases), "", "## Wrong cases", "", made_table(cases), "", "## The verdict as a whole", "",
        whole_table(cases), "", contrasts_table(cases), "",
        "## Findings", "", findings_table(cases), "", codes_table(cases), "",
    ])  # fmt: skip


def _judges(case: Judged) -> bool:
    return case.row["half"] == "1"


def _median(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.median(known):.2f}" if known else "–"
