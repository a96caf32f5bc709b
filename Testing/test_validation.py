"""A cohort's bounds against the errors at its landmarks."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from BrainFusionLib import cli
from BrainFusionLib.cohort import read_manifest
from BrainFusionLib.cohort.row import Row
from BrainFusionLib.cohort.validation import coverage, validation_page, worst_first
from BrainFusionLib.io import write_volume
from BrainFusionLib.phantom import make_pair

GOOD = Row(
    "good", "done", "green", 0.3, 0.9, stated_bound_mm=0.9, landmarks=5, landmarks_median_mm=0.8, landmarks_worst_mm=1.0
)
ROWS = [
    GOOD,
    replace(GOOD, case="click", landmarks_median_mm=1.2, landmarks_worst_mm=2.0),
    replace(GOOD, case="bad", landmarks_median_mm=9.0, landmarks_worst_mm=9.5),
    Row("red", "done", "red", landmarks=5, landmarks_median_mm=7.0, landmarks_worst_mm=9.0),
    Row("failed", "failed", error="no file"),
]


def test_bounds_are_counted_with_and_without_the_error_of_clicks() -> None:
    found = coverage(ROWS)
    assert (found.cases, found.held, found.held_with_clicks) == (3, 1, 2)
    assert found.sentence.startswith("The bound held in 2 of 3 cases (67 %), with 1.3 mm allowed for the clicks")
    assert "was below it in 1 (33 %)" in found.sentence
    assert coverage([]).sentence == "No case has both landmarks and a bound."


def test_the_worst_case_comes_first() -> None:
    assert [row.case for row in worst_first(ROWS)] == ["failed", "red", "bad", "click", "good"]
    page = validation_page(ROWS)
    assert page.index("failed") < page.index("good: bound 0.90 mm") or page.count("<circle") == 3


def test_a_case_whose_clicks_explain_the_residual_is_not_drawn_as_missed() -> None:
    kinds = re.findall(r'<g class="(\w+)"><title>(\w+)', validation_page(ROWS))
    assert {name: kind for kind, name in kinds} == {"good": "held", "click": "held", "bad": "missed"}


def test_two_files_of_landmarks_stand_in_one_cell_and_missing_ones_are_problems(tmp_path: Path) -> None:
    for name in ("c", "m", "a.mrk.json", "b.mrk.json"):
        (tmp_path / name).write_text("")
    rows = ["one,c,m,a.mrk.json | b.mrk.json", "two,c,m,missing.csv", "three,c,m,", "four,c,m,a.mrk.json|b.mrk.json|c"]
    (tmp_path / "list.csv").write_text("\n".join(["case,ct,mri,landmarks", *rows]))
    entries, problems = read_manifest(tmp_path / "list.csv")
    assert {e.case: [p.name for p in e.landmarks] for e in entries} == {
        "one": ["a.mrk.json", "b.mrk.json"],
        "three": [],
    }
    assert ["does not exist: missing.csv" in str(problems[0]), "one file or two" in str(problems[1])] == [True, True]


def test_paths_with_the_backslashes_of_windows_are_found_everywhere(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("c", "m", "p"):
        (tmp_path / "a" / name).write_text("")
    (tmp_path / "list.csv").write_text("case;ct;mri;landmarks\nx;a\\c;a\\m;a\\p\n")
    [entry], problems = read_manifest(tmp_path / "list.csv")
    assert not problems
    assert entry.inputs == [tmp_path / "a" / name for name in ("c", "m", "p")]


def test_a_dry_run_reads_the_landmarks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("c", "m"):
        (tmp_path / name).write_text("")
    (tmp_path / "p.csv").write_text("name,ct_x\n")
    listed = tmp_path / "list.csv"
    listed.write_text("case,ct,mri,landmarks\nx,c,m,p.csv\n")
    assert cli.main(["validate", str(listed), "-o", str(tmp_path / "out"), "--dry-run"]) == 2
    assert "it lacks ct_y" in capsys.readouterr().err
    listed.write_text("case,ct,mri,landmarks\nx,gone,m,p.csv\n")
    assert cli.main(["validate", str(listed), "-o", str(tmp_path / "out")]) == 2
    assert "no case can be run: 1 problem" in capsys.readouterr().err


def test_the_command_measures_a_cohort_against_its_landmarks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = make_pair(2, spacing_mm=5.0)
    write_volume(pair.ct, tmp_path / "ct.nii.gz")
    write_volume(pair.mri, tmp_path / "mri.nii.gz")
    mri = pair.mri.grid.centre_lps_mm + np.array([[0.0, 0, 0], [30, 0, 5], [0, 40, 0], [-20, -10, 30]])
    both = np.c_[pair.transform.apply(mri) + np.array([3.0, 4.0, 0.0]), mri]
    lines = [f"p{n}," + ",".join(map(repr, row)) for n, row in enumerate(both.tolist())]
    (tmp_path / "points.csv").write_text("\n".join(["name,ct_x,ct_y,ct_z,mri_x,mri_y,mri_z", *lines]))
    head = "case,ct,mri,landmarks\nhead,ct.nii.gz,mri.nii.gz,"
    (tmp_path / "list.csv").write_text(head)
    options = [str(tmp_path / "list.csv"), "-o", str(tmp_path / "out"), "--rule", "bone_over_mri", "--preset", "fast",
               "--device", "cpu", "--workers", "1"]  # fmt: skip
    assert cli.main(["validate", *options]) == 2
    assert "no case has landmarks" in capsys.readouterr().err
    (tmp_path / "list.csv").write_text(head + "points.csv\nother,ct.nii.gz,mri.nii.gz,")
    assert cli.main(["validate", *options]) == 0
    said = capsys.readouterr()
    assert "head: bound" in said.out
    assert "1 case without landmarks: left out." in said.err
    with (tmp_path / "out" / "validation.tsv").open() as file:
        (row,) = csv.DictReader(file, delimiter="\t")
    assert row["verdict"] == "red"
    assert float(row["landmarks_median_mm"]) == pytest.approx(5.0, abs=0.5)
    assert row["held"] == ("yes" if float(row["stated_bound_mm"]) >= float(row["landmarks_median_mm"]) else "no")
    assert "head: bound" in (tmp_path / "out" / "validation.html").read_text()
