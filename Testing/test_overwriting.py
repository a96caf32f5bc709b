"""Files of the user that a run could write over or remove: all of them stay as they are."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from BrainFusionLib import cli, write_transform, write_volume
from BrainFusionLib.cohort import Entry
from BrainFusionLib.cohort.bids import start_derivative
from BrainFusionLib.cohort.one_case import overwriting
from BrainFusionLib.cohort.overview import overview
from BrainFusionLib.cohort.row import Row
from BrainFusionLib.cohort.running import table
from BrainFusionLib.errors import ImageFileError, SettingsError
from BrainFusionLib.io import write_grey
from BrainFusionLib.io.overwriting import Given, InputFiles
from BrainFusionLib.io.ownership import refuse_to_replace_others
from BrainFusionLib.phantom import make_pair
from BrainFusionLib.settings import OutputSettings, Settings


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made, folder = make_pair(3, spacing_mm=12.0), tmp_path_factory.mktemp("pair")
    write_volume(made.ct, folder / "ct.nii.gz")
    write_volume(made.mri, folder / "mri.nii.gz")
    write_transform(made.transform, folder / "pose.tfm")
    (folder / "points.csv").write_text("name,x,y,z\na,0,0,0\n", encoding="utf-8")
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def mine(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own, in which the command runs."""
    folder = tmp_path / "mine"
    shutil.copytree(pair, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"ct.nii.gz": "fused.nii.gz"}, "fuse fused.nii.gz mri.nii.gz -o ."),
        ({}, "fuse ct.nii.gz mri.nii.gz -o . --reference ct"),
        ({}, "fuse ct.nii.gz mri.nii.gz -o . --grid ct"),
        ({"pose.tfm": "ct_to_mri.tfm"}, "fuse ct.nii.gz mri.nii.gz -o . --transform ct_to_mri.tfm"),
        (
            {"pose.tfm": "ct_to_mri.mat"},
            "fuse ct.nii.gz mri.nii.gz -o . --transform ct_to_mri.mat --transform-format ants",
        ),
        ({"points.csv": "report.html"}, "fuse ct.nii.gz mri.nii.gz -o . --points report.html"),
        ({"points.csv": "result.json"}, "fuse ct.nii.gz mri.nii.gz -o . --landmarks result.json"),
        ({}, "fuse ct.nii.gz mri.nii.gz -o out --transform pose.tfm --keep-refused pose.tfm"),
        ({}, "register ct.nii.gz mri.nii.gz -o t.tfm --bone ct.nii.gz"),
        ({}, "register ct.nii.gz mri.nii.gz -o t.tfm --json mri.nii.gz"),
        ({}, "register ct.nii.gz mri.nii.gz -o pose.tfm --transform pose.tfm"),
        ({}, "register ct.nii.gz mri.nii.gz -o t.tfm --mri-mask mri.nii.gz --json points.csv --points points.csv"),
        ({}, "metrics mri.nii.gz ct.nii.gz mri.nii.gz --csv ct.nii.gz"),
        ({}, "metrics mri.nii.gz ct.nii.gz mri.nii.gz --json mri.nii.gz"),
    ],
)
def test_no_command_writes_over_a_file_that_it_reads(
    mine: Path, names: dict[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for old, new in names.items():
        (mine / old).rename(mine / new)
    before = files_in(mine)
    assert cli.main(words.split()) == 2
    assert "is one of the inputs" in capsys.readouterr().err
    assert files_in(mine) == before


def test_a_volume_that_an_older_result_names_is_not_removed_if_it_is_an_input(mine: Path) -> None:
    (mine / "ct.nii.gz").rename(mine / "ct_in_mri.nrrd")
    (mine / "result.json").write_text(json.dumps({"files": {"ct_in_mri": "ct_in_mri.nrrd"}}), encoding="utf-8")
    before = files_in(mine)
    assert cli.main(["fuse", "ct_in_mri.nrrd", "mri.nii.gz", "-o", "."]) == 2
    assert files_in(mine) == before


def test_inputs_beside_results_of_other_names_are_no_problem(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def begun(*_: object) -> None:
        raise SettingsError("the work has begun")

    monkeypatch.setattr("BrainFusionLib.cli.fuse.inputs_of", begun)
    (mine / "other.nii.gz").write_bytes(b"of the user")
    (mine / "fused.nii.gz").touch()  # empty: nothing is lost
    assert cli.main(["fuse", "ct.nii.gz", "mri.nii.gz", "-o", ".", "--transform", "pose.tfm"]) == 2
    assert "the work has begun" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fused.nii.gz", "fuse ct.nii.gz mri.nii.gz -o ."),
        ("ct_to_mri.tfm", "fuse ct.nii.gz mri.nii.gz -o . --no-register"),
        ("ct_in_mri.nrrd", "fuse ct.nii.gz mri.nii.gz -o . --format nrrd"),
        ("report.html", "fuse ct.nii.gz mri.nii.gz -o ."),
        ("cohort.tsv", "cohort cases.csv -o . --workers 1"),
        ("cohort.html", "cohort cases.csv -o . --workers 1"),
        ("cohort.log", "validate cases.csv -o . --workers 1"),
        ("validation.tsv", "validate cases.csv -o . --workers 1"),
        ("1.png", "slices a b -o . --rule average"),
    ],
)
def test_no_command_writes_over_a_file_of_the_user_under_a_name_that_it_chose(
    mine: Path, name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine / "cases.csv").write_text("case,ct,mri,landmarks\na,ct.nii.gz,mri.nii.gz,points.csv\n", encoding="utf-8")
    for folder in ("a", "b"):
        (mine / folder).mkdir()
        write_grey(np.zeros((16, 16), np.float32), mine / folder / "1.png")
    (mine / name).write_bytes(b"of the user")
    before = files_in(mine)
    assert cli.main(words.split()) == 2
    said = capsys.readouterr().err
    assert f"{name}: was there before, and no result of BrainFusion names it" in said
    assert "Name another output folder with -o" in said
    assert files_in(mine) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes with names")
@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_pipes_and_links_under_such_a_name_are_not_replaced_either(tmp_path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(tmp_path / "fused.nii.gz")
    else:
        (tmp_path / "fused.nii.gz").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ImageFileError, match="was there before"):
        refuse_to_replace_others(tmp_path, ["fused.nii.gz"])


def test_what_a_run_writes_without_a_record_is_known_again(tmp_path: Path) -> None:
    write_grey(np.zeros((4, 4), np.float32), tmp_path / "1.png")
    (tmp_path / "cohort.tsv").write_text(table([Row("a", "failed", error="x")]), encoding="utf-8")
    (tmp_path / "cohort.html").write_text(overview([Row("a", "failed", error="x")], {}), encoding="utf-8")
    (tmp_path / "cohort.log").write_text("2026-11-29T17:13:27+0000\ta\tdone, 3.3 s; verdict amber\n", encoding="utf-8")
    refuse_to_replace_others(tmp_path, [path.name for path in tmp_path.iterdir()])


def test_a_damaged_record_is_said_to_be_why_its_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "fused.nii.gz").write_bytes(b"of an earlier result")
    (tmp_path / "result.json").write_text('{"schema_version": 6, "request": {', encoding="utf-8")
    with pytest.raises(ImageFileError, match=r"result\.json is damaged, and may have named it\). Move it elsewhere"):
        refuse_to_replace_others(tmp_path, ["fused.nii.gz", "result.json"])
    sums = {"schema_version": 6, "request": {}, "files": {"fused.nii.gz": "0", "result.json": "0"}}
    (tmp_path / "cohort-case.json").write_text(json.dumps(sums), encoding="utf-8")  # the seal names them, too
    refuse_to_replace_others(tmp_path, ["fused.nii.gz", "result.json"])


def test_two_results_in_one_file_are_refused(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["register", "ct.nii.gz", "mri.nii.gz", "-o", "t.tfm", "--json", "./t.tfm"]) == 2
    assert "two results would be written to this file" in capsys.readouterr().err


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_link_to_an_input_counts_as_the_input(mine: Path, link: str) -> None:
    getattr(mine / "t.tfm", link)(mine / "pose.tfm")
    with pytest.raises(ImageFileError, match=r"t\.tfm: is one of the inputs \(the transform: .*pose\.tfm"):
        InputFiles([Given("the transform", mine / "pose.tfm")]).refuse_to_overwrite([mine / "t.tfm"])


def test_voxels_beside_a_header_are_an_input_too(mine: Path) -> None:
    (mine / "ct.mhd").write_text(
        "NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = bone.nii.gz\n", encoding="utf-8"
    )
    (mine / "bone.nii.gz").write_bytes(bytes(8))
    with pytest.raises(ImageFileError, match="one of the inputs"):
        InputFiles([Given("the CT", mine / "ct.mhd")]).refuse_to_overwrite([mine / "bone.nii.gz"])


def test_slices_in_a_folder_that_is_replaced_are_inputs(mine: Path) -> None:
    (mine / "pictures" / "ct").mkdir(parents=True)
    (mine / "pictures" / "ct" / "1").write_bytes(b"slice")
    inputs = InputFiles([Given("the CT", mine / "pictures" / "ct")])
    with pytest.raises(ImageFileError, match="one of the inputs"):
        inputs.refuse_to_overwrite([mine / "pictures"])
    inputs.refuse_to_overwrite([mine / "ct.nii.gz"])


@pytest.mark.parametrize(
    ("output", "refused"),
    [(OutputSettings(), {"b"}), (OutputSettings(grid="ct"), {"a", "b"}), (OutputSettings("ct"), {"a", "b"})],
)
def test_a_case_of_a_cohort_does_not_run_if_it_would_write_over_an_input(
    mine: Path, output: OutputSettings, refused: set[str]
) -> None:
    shutil.copytree(mine, mine / "a")
    (mine / "b").mkdir()
    shutil.copy(mine / "mri.nii.gz", mine / "b" / "fused.nii.gz")
    entries = [
        Entry(2, "a", mine / "a" / "ct.nii.gz", mine / "a" / "mri.nii.gz"),
        Entry(3, "b", mine / "ct.nii.gz", mine / "mri.nii.gz"),
        Entry(4, "c", mine / "ct.nii.gz", mine / "b" / "fused.nii.gz"),
    ]
    rows = overwriting(entries, mine, Settings(output=output))
    assert set(rows) == refused
    assert "is one of the inputs" in (rows["b"].error or "")
    assert str(mine) not in "".join(row.error or "" for row in rows.values())


def test_the_table_of_a_cohort_is_not_replaced_by_its_results(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mine / "cohort.tsv").write_text("case\tct\tmri\na\tct.nii.gz\tmri.nii.gz\n", encoding="utf-8")
    before = files_in(mine)
    assert cli.main(["cohort", "cohort.tsv", "-o", "."]) == 2
    assert "is one of the inputs (the table of the cases)" in capsys.readouterr().err
    assert files_in(mine) == before


def test_a_case_of_a_cohort_does_not_run_if_it_would_write_over_a_file_of_the_user(mine: Path) -> None:
    (mine / "a").mkdir()
    (mine / "a" / "fused.nii.gz").write_bytes(b"of the user")
    rows = overwriting([Entry(2, "a", mine / "ct.nii.gz", mine / "mri.nii.gz")], mine, Settings())
    assert (rows["a"].error or "").startswith("fused.nii.gz: was there before")


@pytest.mark.parametrize("other", ["dataset", "derivatives", "nested"])
def test_no_dataset_of_others_is_described_anew(tmp_path: Path, other: str) -> None:
    root = tmp_path / "dataset"
    folder = {"dataset": root, "derivatives": root / "derivatives", "nested": tmp_path / "out"}[other]
    folder.mkdir(parents=True)
    described = {"Name": "mine", "GeneratedBy": [{"Name": "fMRIPrep"}]} if other != "dataset" else {"Name": "mine"}
    for name, text in (("dataset_description.json", json.dumps(described)), ("README.md", "mine"), (".bidsignore", "")):
        (folder / name).write_text(text, encoding="utf-8")
    before = files_in(tmp_path)
    with pytest.raises(ImageFileError, match=r"is the dataset itself|that BrainFusion did not make"):
        start_derivative(folder, root)
    assert files_in(tmp_path) == before


def test_a_cohort_refuses_the_dataset_itself_as_its_output_and_leaves_nothing_in_it(mine: Path) -> None:
    (mine / "dataset_description.json").write_text("{}", encoding="utf-8")
    for role, name in (("ct", "ct"), ("mri", "T1w")):
        (mine / "sub-01" / "anat").mkdir(parents=True, exist_ok=True)
        shutil.copy(mine / f"{role}.nii.gz", mine / "sub-01" / "anat" / f"sub-01_{name}.nii.gz")
    before = files_in(mine)
    assert cli.main(["cohort", ".", "--bids", "-o", ".", "--workers", "1"]) == 2
    assert files_in(mine) == before


def test_a_readme_in_a_derivative_stays_as_the_user_made_it(tmp_path: Path) -> None:
    start_derivative(tmp_path, tmp_path / "dataset")
    assert "BrainFusion" in (tmp_path / "README.md").read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    start_derivative(tmp_path, tmp_path / "dataset")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "mine"
