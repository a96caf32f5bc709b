"""What a result says of itself, against the truth: ``python -m benchmarks.registration.confidence --kinds E,D``.

Registers every case with every seed. The first table has a line a case: true error, expected error, how often the true
one lay in the interval, and how far the seeds scatter; the second one the range of what refuses a result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.registration.run import heads_from
from BrainFusionLib.errors import BrainFusionError, RegistrationError
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.metrics import target_registration_errors_mm
from BrainFusionLib.registration import RegistrationResult, register
from BrainFusionLib.settings import RegistrationSettings
from simulation.cases import KINDS, Case, check_kind, make_case


@dataclass(frozen=True)
class Outcome:
    """One case under all seeds: the results, how many were refused, and the true median errors, mm."""

    case: Case
    results: list[RegistrationResult]
    refused: int
    errors_mm: FloatArray

    @property
    def spread_mm(self) -> float:
        """Return how far a point of the brain lies from where the seeds put it on average, at the worst, mm."""
        if not self.results:
            return float("nan")
        places = np.stack([result.transform.apply(self.case.points_lps_mm) for result in self.results])
        return float(np.linalg.norm(places - places.mean(axis=0), axis=2).max())


def judge(case: Case, preset: str, seeds: int) -> Outcome:
    """Register a case with every seed."""
    results, errors = [], []
    for seed in range(seeds):
        try:
            settings = RegistrationSettings.preset(preset, seed)  # type: ignore[arg-type]
            result = register(case.ct, case.mri, settings, device="cpu")
        except RegistrationError:
            continue
        results.append(result)
        errors.append(np.median(target_registration_errors_mm(result.transform, case.transform, case.points_lps_mm)))
    return Outcome(case, results, seeds - len(results), np.asarray(errors, dtype=np.float64))


def line(outcome: Outcome) -> str:
    """Return a case's line of the first table."""
    name, results = outcome.case.name, outcome.results
    if not results:
        return f"| {name} | – | – | – | – | {outcome.refused} |"
    if KINDS[outcome.case.kind].negative:
        return f"| {name} | no truth | – | – | {outcome.spread_mm:.3f} | {outcome.refused} |"
    inside = [r.interval_mm[0] <= e <= r.interval_mm[1] for r, e in zip(results, outcome.errors_mm, strict=True)]
    expected = np.median([result.expected_error_mm for result in results])
    return (
        f"| {name} | {np.median(outcome.errors_mm):.3f} | {expected:.3f} | {sum(inside)}/{len(inside)} | "
        f"{outcome.spread_mm:.3f} | {outcome.refused} |"
    )


def ranges(kind: str, outcomes: Sequence[Outcome]) -> str:
    """Return a kind's line of the second table."""
    results = [result for outcome in outcomes for result in outcome.results]
    refused = sum(outcome.refused for outcome in outcomes)
    if not results:
        return f"| {kind} | {refused}/{refused} | – | – | – | – |"
    margins = [result.margin for result in results if result.margin is not None]
    mirrored = [result.mirrored_margin for result in results]
    return (
        f"| {kind} | {refused}/{refused + len(results)} | {min(margins, default=float('nan')):.3f} | "
        f"{min(mirrored):.3f} to {max(mirrored):.3f} | {max(r.agreement_mm for r in results):.3f} | "
        f"{max(r.sampling_error_mm for r in results):.3f} |"
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
        print("| case | true error mm | expected mm | in the interval | spread over seeds mm | refused |")
        print("|---|---|---|---|---|---|")
        for kind in kinds:
            for seed in range(options.seed, options.seed + options.cases):
                head, other = heads[seed % len(heads)](), heads[(seed + 5) % len(heads)]()
                case = make_case(kind, seed, head, other=other)
                outcomes.setdefault(kind, []).append(judge(case, options.preset, options.seeds))
                print(line(outcomes[kind][-1]), flush=True)
        print("\n| class | refused | least margin nats | over the mirror image | agreement mm | sampling error mm |")
        print("|---|---|---|---|---|---|")
        for kind, group in outcomes.items():
            print(ranges(kind, group))
    except (ValueError, OSError, BrainFusionError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
