"""Expected error against true error: ``python -m benchmarks.registration.confidence --kinds E,D``.

Registers every case with every seed. The first table has a line a case: true error, expected error, how often the true
one lay within the bound, and how far the seeds scatter; the second one the range of what refuses a result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.registration.run import heads_from
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.io.tables import Cell, markdown_head, markdown_row
from BrainFusionLib.registration import Registration, register
from BrainFusionLib.settings import RegistrationSettings
from BrainFusionLib.verdict.judge import judge, refusal
from simulation.cases import KINDS, Case, check_kind, make_case


@dataclass(frozen=True)
class Outcome:
    """One case under all seeds: the results, how many were refused, and the true median errors, mm."""

    case: Case
    results: list[Registration]
    refused: int
    errors_mm: FloatArray

    @property
    def spread_mm(self) -> float:
        """Return how far a point of the brain lies from where the seeds put it on average, at the worst, mm."""
        if not self.results:
            return float("nan")
        places = np.stack([result.transform.apply(self.case.points_lps_mm) for result in self.results])
        return float(np.linalg.norm(places - places.mean(axis=0), axis=2).max())


def outcome_of(case: Case, preset: str, seeds: int) -> Outcome:
    """Register a case with every seed."""
    results, errors = [], []
    for seed in range(seeds):
        settings = RegistrationSettings.preset(preset, seed)  # type: ignore[arg-type]
        found = register(case.ct, case.mri, settings, device="cpu")
        if refusal(Evidence(pose=found.evidence)) is None:
            results.append(found)
            errors.append(np.median(case.errors_mm(found.transform)))
    return Outcome(case, results, seeds - len(results), np.asarray(errors, dtype=np.float64))


def line(outcome: Outcome) -> str:
    """Return a case's line of the first table."""
    name, results = outcome.case.name, outcome.results
    if not results:
        return markdown_row([name, "–", "–", "–", "–", outcome.refused])
    if KINDS[outcome.case.kind].negative:
        return markdown_row([name, "no truth", "–", "–", f"{outcome.spread_mm:.3f}", outcome.refused])
    inside, expected = [], []
    for result, error in zip(results, outcome.errors_mm.tolist(), strict=True):
        verdict = judge(Evidence(pose=result.evidence))
        inside.append(verdict.bound_mm is not None and error <= verdict.bound_mm)
        expected.append(verdict.expected_error_mm or np.nan)
    cells: list[Cell] = [name, f"{np.median(outcome.errors_mm):.3f}", f"{np.median(expected):.3f}"]
    return markdown_row([*cells, f"{sum(inside)}/{len(inside)}", f"{outcome.spread_mm:.3f}", outcome.refused])


def ranges(kind: str, outcomes: Sequence[Outcome]) -> str:
    """Return a kind's line of the second table."""
    found = [result.evidence for outcome in outcomes for result in outcome.results]
    refused = sum(outcome.refused for outcome in outcomes)
    if not found:
        return markdown_row([kind, f"{refused}/{refused}", "–", "–", "–", "–"])
    margins = [evidence.margin_nats for evidence in found if evidence.margin_nats is not None]
    mirrored = [evidence.mirrored_margin_nats for evidence in found]
    return markdown_row(
        [
            kind,
            f"{refused}/{refused + len(found)}",
            f"{min(margins, default=float('nan')):.3f}",
            f"{min(mirrored):.3f} to {max(mirrored):.3f}",
            f"{max(evidence.agreement_mm for evidence in found):.3f}",
            f"{max(evidence.sampling_error_mm for evidence in found):.3f}",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Register all and print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.registration.confidence", description=__doc__)
    parser.add_argument("--heads", type=Path, help="folder of label maps (SynthSeg's classes); else phantoms")
    parser.add_argument("--kinds", default="E,M,F,D,R", help="classes of cases, with commas (default: E,M,F,D,R)")
    parser.add_argument("--cases", type=int, default=1, help="of each class (default: 1)")
    parser.add_argument("--seed", type=int, default=500, help="of the first case (default: 500)")
    parser.add_argument("--seeds", type=int, default=1, help="of the registration (default: 1)")
    parser.add_argument("--preset", default="standard")
    options = parser.parse_args(arguments)
    try:
        kinds = options.kinds.split(",")
        for kind in kinds:
            check_kind(kind)
        heads = heads_from(options.heads)
        outcomes: dict[str, list[Outcome]] = {}
        columns = ["case", "true error mm", "expected mm", "within the bound", "spread over seeds mm", "refused"]
        print(markdown_head(columns))
        for kind in kinds:
            for seed in range(options.seed, options.seed + options.cases):
                head, other = heads[seed % len(heads)](), heads[(seed + 5) % len(heads)]()
                case = make_case(kind, seed, head, other=other)
                outcomes.setdefault(kind, []).append(outcome_of(case, options.preset, options.seeds))
                print(line(outcomes[kind][-1]), flush=True)
        columns = ["class", "refused", "least margin nats", "over the mirror image", "agreement mm"]
        print(f"\n{markdown_head([*columns, 'sampling error mm'])}")
        for kind, group in outcomes.items():
            print(ranges(kind, group))
    except (ValueError, OSError, BrainFusionError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
