"""Cohorts that are folders: a folder a case, and BIDS datasets, whose results are BIDS derivatives."""

import itertools
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from BrainFusionLib import cli
from BrainFusionLib.cohort import one_case, read_bids, read_folders, read_manifest, running
from BrainFusionLib.cohort.folders import only_one
from BrainFusionLib.cohort.manifest import Entry
from BrainFusionLib.cohort.row import Row
from BrainFusionLib.errors import ImageContentError, ImageFileError, Remedy, SettingsError
from BrainFusionLib.folder import write_case
from BrainFusionLib.io import write_volume
from BrainFusionLib.phantom import make_pair
from BrainFusionLib.settings import Settings
from BrainFusionLib.version import __version__
from Testing.report_case import result_of, small_head
from tools.make_cohort import make_cohort

COMMAND = ("--rule", "bone_over_mri", "--preset", "fast", "--device", "cpu", "--workers", "1")


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


# --- a folder a case ------------------------------------------------------------------------------------------------


def test_every_folder_is_a_case(tmp_path):
    touch(tmp_path, "anna/ct.nii.gz", "anna/mri.nii.gz", "anna/notes.txt", "ben/ct/1.dcm", "ben/mr/1.dcm", "list.txt")
    touch(tmp_path, ".hidden/ct.nii", "carl/ct.hdr", "carl/ct.img", "carl/mr.mhd", "carl/mr.raw")
    entries, problems = read_folders(tmp_path)
    assert [(e.case, e.ct.name, e.mri.name, e.place) for e in entries] == [
        ("anna", "ct.nii.gz", "mri.nii.gz", "anna"),
        ("ben", "ct", "mr", "ben"),
        ("carl", "ct.hdr", "mr.mhd", "carl"),
    ]
    assert problems == []


def test_patterns_give_the_names_of_ct_and_mri(tmp_path):
    touch(tmp_path, "a/scan/head_ct.nii", "a/scan/t1.nii", "a/scan/t2.nii")
    entries, problems = read_folders(tmp_path, "scan/*_ct.nii", "scan/t1*")
    assert [(e.ct.name, e.mri.name) for e in entries] == [("head_ct.nii", "t1.nii")]
    assert problems == []


def test_results_given_as_a_cohort_are_named_as_such(tmp_path):
    touch(tmp_path, "a/ct_in_mri.nii.gz", "a/ct_to_mri.tfm", "a/fused.nii.gz", "cohort.tsv")
    with pytest.raises(ImageFileError, match="holds the results of a cohort"):
        read_folders(tmp_path)


def test_problems_are_reported_with_their_folder(tmp_path):
    touch(tmp_path, "none/x.nii", "two/ct1.nii", "two/ct2.nii", "two/mri.nii", "bad name/ct.nii", "bad name/mr.nii")
    touch(tmp_path, "good/ct.nii", "good/mr.nii")
    entries, problems = read_folders(tmp_path)
    assert [e.case for e in entries] == ["good"]
    told = "\n".join(map(str, problems))
    for words in (
        "folder 1: a case's name is used for its folder",
        f"none: no CT: nothing is named ct*. {Remedy.NAME_PATTERN.value}",
        "none: no MRI: nothing is named mr*",
        f"two: 2 possible files for the CT: ct1.nii, ct2.nii. {Remedy.NAME_PATTERN.value}",
    ):
        assert words in told
    same, words = read_folders(tmp_path, "ct1.nii", "ct1.nii")
    assert same == []
    assert "two: CT and MRI are the same file, ct1.nii" in map(str, words)


def test_a_folder_without_folders_is_refused(tmp_path):
    with pytest.raises(ImageFileError, match="contains no folder"):
        read_folders(tmp_path)
    with pytest.raises(ImageFileError, match="cannot be read"):
        read_folders(tmp_path / "none")


def test_bids_dataset_without_the_option_is_told_of_it(tmp_path, capsys):
    (tmp_path / "in" / "sub-01" / "anat").mkdir(parents=True)
    (tmp_path / "in" / "dataset_description.json").write_text("{}", encoding="utf-8")
    assert cli.main(["cohort", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 2
    assert "add --bids" in capsys.readouterr().err


# --- BIDS -----------------------------------------------------------------------------------------------------------


def dataset(root: Path, *names: str) -> Path:
    root.mkdir(exist_ok=True)
    touch(root, *names)
    described = {"Name": "phantoms", "BIDSVersion": "1.10.0", "DatasetType": "raw", "Authors": ["a", "b"]}
    (root / "dataset_description.json").write_text(json.dumps(described), encoding="utf-8")
    return root


def pairs_of(entries, root):
    return {e.case: (e.ct.relative_to(root).as_posix(), e.mri.relative_to(root).as_posix(), e.place) for e in entries}


def test_pairs_are_found_by_the_standards_names(tmp_path):
    root = dataset(
        tmp_path,
        "sub-01/ct/sub-01_ct.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_CT.nii.gz", "sub-02/ses-a/anat/sub-02_ses-a_acq-x_T2w.nii",
        "sub-02/ses-b/ct/sub-02_ses-b_ct.nii.gz", "sub-02/ses-b/anat/sub-02_ses-b_FLAIR.nii.gz",
        "sub-03/ses-post/ct/sub-03_ses-post_ct.nii.gz", "sub-03/ses-pre/anat/sub-03_ses-pre_T1w.nii.gz",
        "derivatives/other/sub-01/anat/sub-01_T1w.nii.gz",
    )  # fmt: skip
    entries, problems = read_bids(root)
    assert pairs_of(entries, root) == {
        "sub-01": ("sub-01/ct/sub-01_ct.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat"),
        "sub-02_ses-a": (
            "sub-02/ses-a/anat/sub-02_ses-a_CT.nii.gz", "sub-02/ses-a/anat/sub-02_ses-a_acq-x_T2w.nii",
            "sub-02/ses-a/anat",
        ),
        "sub-02_ses-b": (
            "sub-02/ses-b/ct/sub-02_ses-b_ct.nii.gz", "sub-02/ses-b/anat/sub-02_ses-b_FLAIR.nii.gz",
            "sub-02/ses-b/anat",
        ),
        "sub-03_ses-pre": (
            "sub-03/ses-post/ct/sub-03_ses-post_ct.nii.gz", "sub-03/ses-pre/anat/sub-03_ses-pre_T1w.nii.gz",
            "sub-03/ses-pre/anat",
        ),
    }  # fmt: skip
    assert problems == []
    named = {e.case: e.file_names for e in entries}
    assert named["sub-02_ses-a"]["fused"] == "sub-02_ses-a_acq-x_desc-fused_T2w.nii.gz"
    assert entries[0].report == "sub-01/anat/sub-01_desc-fused_report.html"


def test_participants_are_selected_and_problems_reported(tmp_path):
    root = dataset(
        tmp_path,
        "sub-01/ct/sub-01_ct.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-03/ct/sub-03_ct.nii.gz", "sub-03/anat/sub-03_run-1_T1w.nii.gz", "sub-03/anat/sub-03_run-2_T1w.nii.gz",
    )  # fmt: skip
    entries, problems = read_bids(root)
    assert [e.case for e in entries] == ["sub-01"]
    assert [problem.where for problem in problems] == ["sub-02", "sub-03"]
    assert "no CT: nothing is named ct/*_ct.nii*" in str(problems[0])
    assert "2 possible files for the MRI: anat/sub-03_run-1_T1w.nii.gz, anat/sub-03_run-2_T1w.nii.gz" in str(
        problems[1]
    )
    entries, problems = read_bids(root, ["03", "sub-01", "77"], mri_pattern="anat/*T1w.nii.gz")
    assert [e.case for e in entries] == ["sub-01"]
    assert str(problems[0]) == f"sub-77: there is no such participant in {root}"
    entries, _ = read_bids(root, ["03"], mri_pattern="anat/*run-2_T1w*")
    assert [e.mri.name for e in entries] == ["sub-03_run-2_T1w.nii.gz"]


def test_sessions_are_judged_separately(tmp_path):
    root = dataset(
        tmp_path,
        "sub-01/ses-a/ct/sub-01_ses-a_ct.nii.gz", "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-b/ct/sub-01_ses-b_run-1_ct.nii.gz", "sub-01/ses-b/ct/sub-01_ses-b_run-2_ct.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz", "sub-01/ses-c/anat/sub-01_ses-c_T1w.nii.gz",
    )  # fmt: skip
    entries, problems = read_bids(root)
    assert [e.case for e in entries] == ["sub-01_ses-a"]
    assert len(problems) == 1
    assert str(problems[0]).startswith("sub-01_ses-b: 2 possible files for the CT")


def test_scans_of_several_sessions_are_not_paired_by_guess(tmp_path):
    root = dataset(
        tmp_path,
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii", "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii",
        "sub-01/ses-c/ct/sub-01_ses-c_ct.nii",
        "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii", "sub-02/ses-b/ct/sub-02_ses-b_ct.nii",
        "sub-02/ses-b/anat/sub-02_ses-b_run-1_T1w.nii", "sub-02/ses-b/anat/sub-02_ses-b_run-2_T1w.nii",
        "sub-03/ses-a/anat/sub-03_ses-a_T1w.nii", "sub-03/ses-b/pet/sub-03_ses-b_pet.nii",
    )  # fmt: skip
    entries, problems = read_bids(root)
    assert entries == []
    first, second, third = map(str, problems)
    assert first.startswith("sub-01: 1 CT and 2 MRIs, each in a session of its own. Give the two that belong together")
    assert second.startswith("sub-02: 2 possible files for the MRI: anat/sub-02_ses-b_run-1_T1w.nii, ")
    assert third.startswith("sub-03: no CT: nothing is named "), "and not that there is no MRI"


def test_folder_that_is_not_a_dataset_is_rejected(tmp_path):
    with pytest.raises(ImageFileError, match=r"no dataset_description\.json"):
        read_bids(tmp_path)
    with pytest.raises(ImageFileError, match="has no subject"):
        read_bids(dataset(tmp_path))


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    pytest.importorskip("torch", reason="torch is not installed")
    folder = tmp_path_factory.mktemp("phantoms")
    make_cohort(folder, cases=4, spacing_mm=5.0)
    return folder


def test_bids_validator_accepts_the_derivative(phantoms, tmp_path, capsys):
    root = dataset(tmp_path / "raw")
    for subject, session in (("sub-01", ""), ("sub-02", "ses-a")):
        place = root / subject / session
        stem = f"{subject}_{session}".rstrip("_")
        for source, name in (("ct00", f"ct/{stem}_ct.nii.gz"), ("mri00", f"anat/{stem}_T1w.nii.gz")):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(phantoms / f"{source}.nii.gz", place / name)
    out = root / "derivatives" / "brainfusion"
    words = ["cohort", str(root), "--bids", "-o", str(out), *COMMAND]
    assert cli.main([*words, "--dry-run"]) == 0
    (tmp_path / "pairs.tsv").write_text(capsys.readouterr().out, encoding="utf-8")
    listed, found = read_manifest(tmp_path / "pairs.tsv")[0], read_bids(root)[0]
    assert [(e.case, e.ct, e.mri) for e in listed] == [(e.case, e.ct, e.mri) for e in found], "it is a table to edit"
    assert cli.main(words) == 0
    anat = out / "sub-02" / "ses-a" / "anat"
    assert sorted(path.name for path in anat.iterdir()) == [
        "cohort-case.json",
        "sub-02_ses-a_desc-fused_T1w.json",
        "sub-02_ses-a_desc-fused_T1w.nii.gz",
        "sub-02_ses-a_desc-fused_report.html",
        "sub-02_ses-a_desc-fused_result.json",
        "sub-02_ses-a_desc-registered_ct.nii.gz",
        "sub-02_ses-a_from-T1w_to-ct_mode-points_xfm.tfm",
    ]
    told = json.loads((anat / "sub-02_ses-a_desc-fused_T1w.json").read_text(encoding="utf-8"))
    assert told["Sources"] == [
        "bids:raw:sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz", "bids:raw:sub-02/ses-a/ct/sub-02_ses-a_ct.nii.gz",
    ]  # fmt: skip
    assert told["Verdict"]["colour"] in ("green", "amber", "red")
    assert 'href="./sub-02/ses-a/anat/sub-02_ses-a_desc-fused_report.html"' in (out / "cohort.html").read_text("utf-8")
    described = json.loads((out / "dataset_description.json").read_text(encoding="utf-8"))
    assert (out / described["DatasetLinks"]["raw"]).resolve() == root.resolve()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*_result.json")}
    assert cli.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*_result.json")} == before
    validator = shutil.which("bids-validator-deno", path=str(Path(__import__("sys").executable).parent))
    if validator is None:
        pytest.skip("the BIDS validator is not installed: pip install bids-validator-deno")

    def errors():
        done = subprocess.run([validator, "--json", str(out)], capture_output=True, text=True, timeout=120)
        return [i for i in json.loads(done.stdout)["issues"]["issues"] if i["severity"] == "error"]

    assert errors() == []
    (anat / "sub-02_ses-a_fused.nii.gz").write_bytes(b"")
    assert errors(), "the validator takes anything"


def test_options_of_other_kinds_of_cohort_are_refused(phantoms, tmp_path, capsys):
    manifest = str(phantoms / "manifest.csv")
    for words, told in (
        (["--participant-label", "01"], "is for BIDS datasets: add --bids"),
        (["--ct-pattern", "x*"], "are for folders, but the cohort is a table"),
        (["--bids"], "is not a BIDS dataset"),
        (["--workers", "none"], "must be auto or a whole number of at least 1; got 'none'"),
        (["--workers", "0"], "must be auto or a whole number of at least 1"),
    ):
        assert cli.main(["cohort", manifest, "-o", str(tmp_path / "out"), *words]) == 2
        assert told in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_a_folder_of_folders_is_done_like_a_table(phantoms, tmp_path):
    for number in (0, 1):
        folder = tmp_path / "in" / f"head{number}"
        folder.mkdir(parents=True)
        for kind in ("ct", "mri"):
            shutil.copy(phantoms / f"{kind}{number:02d}.nii.gz", folder / f"{kind}.nii.gz")
    assert cli.main(["cohort", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *COMMAND]) == 0
    assert (tmp_path / "out" / "head1" / "report.html").exists()


# ---------------------------------------------------------------- what is wrong with a cohort


def test_broken_rows_stand_in_the_table_the_log_and_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "fuse_case", lambda entry, *_: Row(entry.case, "failed", error="=1+1"))
    for name in ("c.nii", "m.nii"):
        (tmp_path / name).write_bytes(b"x")
    content = b"case,ct,mri\ngood,c.nii,m.nii\nbad\xff,c.nii,m.nii\ngone,Secret/<b>x</b>.nii,m.nii\n"
    content += b"Secret Name,Secret^Name.nii,m.nii\n" + b",".join([b"Secret/ct"] * 3) + b"\n"
    (tmp_path / "cohort.csv").write_bytes(content)
    entries, problems = read_manifest(tmp_path / "cohort.csv")
    assert [entry.case for entry in entries] == ["good"]
    running.run_cohort(entries, tmp_path / "out", problems=problems)
    table, log, page = (
        (tmp_path / "out" / name).read_text(encoding="utf-8") for name in ("cohort.tsv", "cohort.log", "cohort.html")
    )
    for text in (table, log, page):
        assert "row 3" in text
        assert "is not UTF-8" in text
        assert "row 4 (gone)" in text
        assert "ct does not exist" in text
        assert "row 5\t" in text or "row 5<" in text
        assert "Secret" not in text  # may be the patient's name
    assert str(problems[1]).startswith("row 4 (gone): ct does not exist: Secret/<b>x</b>.nii (looked in ")
    assert "; got Secret Name" in str(problems[2])
    assert "<b>" not in page
    assert "\t'=1+1\n" in table


@pytest.mark.parametrize("pattern", ["**x", "/etc/*", ""])
def test_pattern_that_is_none_is_an_error_of_the_settings(tmp_path, pattern):
    (tmp_path / "case").mkdir()
    with pytest.raises(SettingsError, match="is no pattern for the name of the CT"):
        only_one(tmp_path / "case", [pattern], "CT")


def test_seal_from_elsewhere_reads_no_file_outside_of_its_folder(tmp_path, monkeypatch):
    entry = Entry(1, "a", tmp_path / "c", tmp_path / "m")
    read = []
    monkeypatch.setattr(one_case, "sha256_of", lambda path: read.append(path) or "0")
    for name in ("../../secret", "/dev/zero", "gone"):
        unknown = dict.fromkeys(("row", "request", "transform_sha256", "landmarks_sha256"))
        seal = SimpleNamespace(version=__version__, files={name: "0"}, **unknown)
        monkeypatch.setattr(one_case, "read_seal", lambda *_, seal=seal: seal)
        assert one_case.finished(entry, tmp_path, Settings()) is None
    assert not read


# What a case is made from: role, files, and the one that reading it takes along.
BESIDE = {
    "landmarks": ("l.csv", "l.csv"), "CT": ("ct.nii", "ct.nii"), "sidecar": ("ct.nii", "ct.json"),
    "voxels": ("mri.mhd", "mri.raw"), "mask": ("mask.nhdr", "mask.raw.gz"), "pair": ("ct.hdr", "ct.img"),
    "matrix of SPM": ("ct.hdr", "ct.mat"), "initial transform": ("t.txt", "first.txt"),
}  # fmt: skip
CONTENTS = {
    "mri.mhd": b"DimSize = 2 2 2\nElementType = MET_SHORT\nElementDataFile = mri.raw\n",
    "mask.nhdr": b"NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: gzip\ndata file: mask.raw.gz\n",
    "t.txt": b'(Transform "EulerTransform")\n(InitialTransformParametersFileName "first.txt")\n(Size 6)',
    "first.txt": b'(Transform "EulerTransform")\n(NumberOfParameters 6)\n',
}


def _entry_of(folder, **given):
    named = {"ct": "ct.nii", "mri": "m.nii", "mask": None, "transform": None, "landmarks": ()} | given
    for name in (*CONTENTS, "ct.nii", "ct.hdr", "ct.img", "ct.mat", "ct.json", "m.nii", "mri.raw", "mask.raw.gz",
                 "l.csv"):  # fmt: skip
        (folder / name).write_bytes(CONTENTS.get(name, name.encode()))
    mask, transform = (None if named[role] is None else folder / named[role] for role in ("mask", "transform"))
    return Entry(
        1, "a", folder / named["ct"], folder / named["mri"], mri_mask=mask, transform=transform,
        landmarks=tuple(folder / name for name in named["landmarks"]),
    )  # fmt: skip


def _made(entry):
    return one_case._made_from(entry, Settings(), one_case.contents(entry))


@pytest.mark.parametrize("kind", BESIDE)
def test_every_file_that_is_read_counts(tmp_path, kind):
    given, changed = BESIDE[kind]
    role = {"l": "landmarks", "t": "transform", "mask": "mask", "mri": "mri", "ct": "ct"}[given.partition(".")[0]]
    entry = _entry_of(tmp_path, **{role: (given,) if role == "landmarks" else given})
    before = _made(entry)
    assert _made(entry) == before
    (tmp_path / changed).write_bytes(CONTENTS.get(changed, b"") + b"\n")
    assert _made(entry) != before


def test_seal_is_made_from_what_was_read_and_not_from_what_is_there_at_the_end(tmp_path, monkeypatch):
    entry = _entry_of(tmp_path, landmarks=("l.csv",), transform="t.txt")
    volume = make_pair(seed=1, spacing_mm=24.0).mri
    monkeypatch.setattr(one_case, "read_pair", lambda *_: (volume, volume))
    before, inputs = _made(entry), one_case.read(entry)
    for name in ("ct.nii", "l.csv", "t.txt", "ct.json"):
        (tmp_path / name).write_bytes(b"replaced")
    assert one_case._made_from(entry, Settings(), inputs.sha256) == before
    assert _made(entry) != before


def test_cases_are_made_from_what_is_said_of_their_values(tmp_path):
    entry = _entry_of(tmp_path, transform="t.txt")
    others = [{"ct_offset": 1024.0}, {"stated": ("CT",)}, {"transform_frame": "ras"}, {"transform_maps": "ct-to-mri"}]
    made = [_made(replace(entry, **said)) for said in ({}, *others)]
    assert not any(one == another for one, another in itertools.combinations(made, 2))


def test_manifest_says_modality_and_offset_and_options_say_them_of_the_other_cases(tmp_path, capsys):
    for name in ("c.nii", "m.nii"):
        (tmp_path / name).touch()
    rows = [
        "case,ct,mri,modality,ct_offset,transform_frame", "a,c.nii,m.nii,ct=CT/mri=MR,-1000,", "b,c.nii,m.nii,,,",
        "c,c.nii,m.nii,ct=MR,,", "d,c.nii,m.nii,,inf,", "e,c.nii,m.nii,,,xyz",
    ]  # fmt: skip
    (tmp_path / "m.csv").write_text("\n".join(rows), encoding="utf-8")
    words = ["cohort", str(tmp_path / "m.csv"), "-o", str(tmp_path / "out"), "--dry-run"]
    assert cli.main([*words, "--ct-offset", "1024", "--modality", "mri=MR"]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("case\tct\tmri\tmodality\tct_offset\n")
    assert "\tct=CT mri=MR\t-1000.0\n" in said.out
    assert "\tmri=MR\t1024.0\n" in said.out
    assert "row 4 (c): modality: takes ct=CT and mri=MR; got ct=MR" in said.err
    assert "row 5 (d): ct_offset: must be a number, for example 1024; got inf" in said.err
    assert "row 6 (e): transform_frame: must be lps or ras or fsl; got xyz" in said.err
    assert cli.main([*words, "--modality", "ct=MR"]) == 2
    assert "--modality takes ct=CT and mri=MR" in capsys.readouterr().err


def test_what_is_said_of_the_values_reaches_the_case(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(one_case, "run", lambda request, inputs, cancel: asked.append((request, inputs)))
    pair = make_pair(seed=1, spacing_mm=12.0)
    for name, volume in (("c.nii", pair.ct.with_array(pair.ct.array_kji + 777)), ("m.nii", pair.mri)):
        write_volume(volume, tmp_path / name)
    entry = Entry(1, "a", tmp_path / "c.nii", tmp_path / "m.nii", ct_offset=777.0, stated=("CT",))
    one_case.fused(entry, one_case.read(entry), Settings())
    request, inputs = asked[0]
    assert (request.ct_offset, request.stated, inputs.ct.modality) == (777.0, ("CT",), "CT")


def test_remedies_in_the_table_name_its_columns(tmp_path):
    def refuse():
        raise ImageContentError("is not in Hounsfield units.", remedy=Remedy.STATE_OFFSET)

    row = one_case.attempted(Entry(1, "a", tmp_path, tmp_path), 0.0, refuse)
    assert "column ct_offset" in row.error
    assert "pass stated" not in row.error


def test_errors_in_the_table_name_inputs_by_their_role(tmp_path):
    def refuse():
        raise ImageFileError(
            f"{tmp_path}/doe/IM1: is empty; doe.nii, given as MRI, and objects too; {tmp_path}/roe.csv: no; 'doe.raw'."
            f" {tmp_path}/doe/Jane Doe/7: no; Jane^Doe.CT.0001.IMA, 'Jane_Doe', 'mueller', \"o'brien\", 'o\\'br\"ien',"
            f" 'hans mueller...', 04711, 1.2.840.113619.2.55.3, '.mueller', no '.nrrd' in 'scanner-xyz', 25.5, 'cut"
        )

    (tmp_path / "doe" / "Jane Doe").mkdir(parents=True)
    (tmp_path / "doe" / "Jane Doe" / "7").write_bytes(b"")
    for name in ("Jane^Doe.CT.0001.IMA", "04711"):
        (tmp_path / "doe" / name).write_bytes(b"")

    entry = Entry(1, "a", tmp_path / "doe", tmp_path / "doe.nii", landmarks=(tmp_path / "roe.csv",))
    row = one_case.attempted(entry, 0.0, refuse)
    assert (
        row.error == "a file of CT: is empty; MRI, given as MRI, and objects too; the landmarks: no; (not shown here). "
        "a file of CT: no; a file of CT, "
        + "(not shown here), " * 5
        + "a file of CT, (not shown here), (not shown here), no '.nrrd' in 'scanner-xyz', 25.5, (not shown here)"
    )


def test_an_error_of_writing_is_not_taken_for_one_of_a_file_beside_an_input(tmp_path):
    def fail():
        raise ImageFileError("fused.nii.gz: cannot be written; doe-1.nii: is damaged")

    write_case(result_of(*small_head()), small_head()[2], tmp_path)  # a result in the folder of the input
    (tmp_path / "doe-1.nii").write_bytes(b"")
    row = one_case.attempted(Entry(1, "a", tmp_path / "ct.nii", tmp_path / "mri.nii"), 0.0, fail)
    assert row.error == "fused.nii.gz: cannot be written; a file of MRI: is damaged"


def test_errors_in_the_table_name_no_folder_of_a_file_beside_an_input(tmp_path):
    def refuse():
        raise ImageFileError(f"{tmp_path}/doe/IM1: is damaged; {tmp_path}/doe: no; {tmp_path}/doe/sub/IM2: cut")

    (tmp_path / "doe" / "sub").mkdir(parents=True)
    for name in ("IM1", "DICOMDIR", "sub/IM2"):
        (tmp_path / "doe" / name).write_bytes(b"")
    row = one_case.attempted(Entry(1, "a", tmp_path / "doe" / "DICOMDIR", tmp_path / "mri.nii"), 0.0, refuse)
    assert "doe" not in row.error
    assert "is damaged" in row.error
