"""Files of the user that a run could write over or remove: all of them stay as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from BrainFusionLib import cli, write_transform, write_volume
from BrainFusionLib.cohort import Entry
from BrainFusionLib.cohort.bids import start_derivative
from BrainFusionLib.cohort.one_case import overwriting
from BrainFusionLib.errors import ImageFileError, SettingsError
from BrainFusionLib.io.overwriting import Given, InputFiles
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
    (mine / "fused.nii.gz").write_bytes(b"of an earlier run")
    assert cli.main(["fuse", "ct.nii.gz", "mri.nii.gz", "-o", ".", "--transform", "pose.tfm"]) == 2
    assert "the work has begun" in capsys.readouterr().err


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
