"""The benchmark of registration: runs are measured, kept, resumed and counted."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks import backends
from benchmarks.registration import confidence, run
from benchmarks.registration.measure import measure
from benchmarks.registration.methods import METHODS, Method
from benchmarks.registration.results import FIELDS, append_result, read_results, summary
from benchmarks.stages import STEPS
from BrainFusionLib.errors import MissingDependencyError
from BrainFusionLib.evidence import Evidence, GivenPose
from BrainFusionLib.io.tables import format_csv
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.verdict.judge import judge
from BrainFusionLib.verdict.table import CRITERIA
from simulation.cases import make_case
from simulation.heads import Head, phantom_head

COARSE_MM = 3.0


@pytest.fixture(scope="module")
def head() -> Head:
    return phantom_head(0, COARSE_MM)


def test_unknown_kind_is_rejected(head: Head, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no kind of case 'Q'; choose from E, M"):
        make_case("Q", 0, head)
    assert run.main(["--kinds", "E,Q", "--output", str(tmp_path)]) == 2
    assert "no kind of case 'Q'" in capsys.readouterr().err


def test_missing_package_is_named() -> None:
    missing = Method(METHODS["simpleitk"].prepare, "no-such-package-anywhere")
    with pytest.raises(MissingDependencyError, match=r"no-such-package-anywhere is not installed.*bench"):
        missing.check_installed()


def test_killed_run_resumes(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    heads = [partial(phantom_head, 0, COARSE_MM)]
    plan = run.Plan(["E"], [0], ["simpleitk"], heads, spacing_mm=4.0, timeout_s=60)
    (row,) = run.run_missing(plan, table)
    assert row["says"] == "found"
    assert float(row["error_p95_mm"]) < 3
    assert float(row["user_cpu_s"]) > 0
    whole = table.read_text(encoding="utf-8")
    table.write_text(whole + "E,E-001-phan", encoding="utf-8")  # killed while it wrote the next line
    assert list(run.run_missing(plan, table)) == []
    assert table.read_text(encoding="utf-8") == whole


def test_run_that_takes_too_long_fails(head: Head) -> None:
    answer = measure(make_case("E", 0, head, spacing_mm=4.0), "simpleitk", 0.01)
    assert answer["says"] == "timeout"
    assert np.isnan(float(answer["error_p95_mm"]))


def result(kind: str, seed: int, method: str, error: float, says: str = "found", cpu: float = 1.0) -> dict[str, str]:
    row = {"kind": kind, "case": f"{kind}-{seed:03d}", "resolution": "half", "method": method, "says": says}
    numbers = {"error_p95_mm": f"{error}", "user_cpu_s": f"{cpu}", "peak_mb": "100"}
    return {**dict.fromkeys(FIELDS, "0"), **row, **numbers}


def test_summary_counts_right(tmp_path: Path) -> None:
    rows = [
        result("E", 0, "greedy", 0.4, cpu=8), result("E", 1, "greedy", 0.2, cpu=8), result("X", 0, "greedy", 80, cpu=8),
        result("E", 0, "fast", 0.2, "amber"), result("E", 1, "fast", 0.05, "amber"), result("X", 0, "fast", 0.3, "red"),
        result("X", 1, "fast", 1.0, "refused"), result("X", 2, "fast", 30, "amber"),
        result("N2", 0, "fast", float("nan"), "red"), result("N2", 1, "fast", float("nan"), "amber"),
    ]  # fmt: skip
    for row in rows:
        append_result(tmp_path / "results.csv", row)
    text = summary(read_results(tmp_path / "results.csv"))
    lines = {tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text.splitlines()}
    greedy = ("greedy", "2/2", "0/1", "2/3", "0.300 / 0.390", "1.00 (n = 2)", "8.0", "1.0", "100", "1")
    fast = ("fast", "2/2", "1/3", "3/5", "0.200 / 0.290", "0.38 (n = 2)", "1.0", "8.0", "100", "1")
    assert {greedy, fast, ("fast", "1/2")} <= lines


def test_result_stands_beside_the_truth() -> None:
    case = make_case("E", 1, phantom_head(1, 2.0), spacing_mm=2.0)
    outcome = confidence.outcome_of(case, "fast", seeds=2)
    assert outcome.refused == 0
    assert 0 < outcome.spread_mm < 0.2
    assert (outcome.errors_mm < 0.5).all()
    assert f"| {case.name} |" in confidence.line(outcome)
    assert confidence.ranges("E", [outcome]).startswith("| E | 0/2 |")


def test_refusals_are_counted(head: Head, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = confidence.outcome_of(make_case("N3", 1, head, spacing_mm=COARSE_MM), "fast", seeds=1)
    assert confidence.line(outcome) == f"| {outcome.case.name} | – | – | – | – | 1 |"
    assert confidence.ranges("N3", [outcome]) == "| N3 | 1/1 | – | – | – | – |"
    assert confidence.main(["--kinds", "Q"]) == 2
    assert "there is no kind of case 'Q'" in capsys.readouterr().err


@pytest.mark.parametrize("step", STEPS)
def test_each_step_that_is_timed_is_there(step):
    module, function = STEPS[step]
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize(("percent", "may_not"), [(0.1, False), (10, True)])
def test_findings_of_two_backends_differ_only_close_to_a_limit(percent: float, may_not: bool) -> None:
    def outcome(apart_mm: float) -> backends.Outcome:
        evidence = Evidence(given=GivenPose(None, apart_mm, apart_mm))
        verdict = judge(evidence)
        levels = frozenset((finding.code, finding.level) for finding in verdict.findings)
        return backends.Outcome(RigidTransform.identity(), verdict.colour, evidence, levels)

    (limit,) = (criterion.amber for criterion in CRITERIA if criterion.code == "apart_from_registration")
    assert limit is not None
    above, below = (outcome(limit * (1 + sign * percent / 100)) for sign in (1, -1))
    most, differing, far = backends.findings_apart(above, below)
    assert most == pytest.approx(2 * percent / 100)
    assert [words.split()[0] for words in differing] == ["apart_from_registration"]
    assert far is may_not


def test_a_kind_that_both_backends_fused_is_not_fused_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"kind": "plain", "pose_mm": "0.000001", "colours": "green, green", "agrees": "yes"}
    (tmp_path / "records.csv").write_text(format_csv([row], backends.COLUMNS))
    monkeypatch.setattr(backends, "row_of", None)
    assert backends.main(["-o", str(tmp_path), "--kinds", "plain"]) == 0
    assert "1 of 1 agree" in (tmp_path / "table.md").read_text()
