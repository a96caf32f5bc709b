"""Who approved or rejected a result, and whether that still holds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from BrainFusionLib import folder as case_folder
from BrainFusionLib import read_case, write_volume
from BrainFusionLib.case import Pose, Result, decision_of, rejected, standings_of
from BrainFusionLib.case.decision import Action, Signed, decide, state_of
from BrainFusionLib.case.replacing import WHOLE
from BrainFusionLib.case.standing import carried_over, inputs_sha256, pose_sha256
from BrainFusionLib.cli.main import main
from BrainFusionLib.errors import ImageFileError, RecordError, SettingsError
from BrainFusionLib.folder import write_case
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io.formats import sha256_of_volume
from BrainFusionLib.io.hashing import sha256_of
from BrainFusionLib.report import write_report
from BrainFusionLib.signing import content_sha256, read_standings, sign_result
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.version import __version__
from BrainFusionLib.volume import Volume
from Testing.report_case import result_of, small_head
from Testing.test_io_dicom import above, write_series, write_slice

HEAD = small_head()
CUBE = Volume(np.zeros((2, 2, 2), np.float32), Grid((2, 2, 2)), None, "cube")


def result(volumes: tuple[Volume, Volume, Volume] = (CUBE, CUBE, CUBE)) -> Result:
    """A result whose inputs have a sha256."""
    made = result_of(*volumes)
    ct, mri = (replace(source, sha256=2 * source.name[:1]) for source in (made.request.ct, made.request.mri))
    return replace(made, request=replace(made.request, ct=ct, mri=replace(mri, sha256="mm")))


def signed(made: Result, *actions: Action) -> Result:
    for action in actions:
        about = Signed(inputs_sha256(made), pose_sha256(made.pose), "")
        made = replace(made, decisions=decide(action, "A. Surgeon", "seen", about, made.decisions))
    return made


def moved(made: Result) -> Result:
    return replace(made, pose=replace(made.pose, transform=RigidTransform(np.diag([-1.0, -1.0, 1.0, 1.0]))))


def test_the_last_approval_or_rejection_counts_and_none_is_erased() -> None:
    made = signed(result(), "approve", "reject", "comment")
    assert [decision.action for decision in made.decisions] == ["approve", "reject", "comment"]
    assert state_of(standings_of(made)) == "rejected"
    assert rejected(made)
    again = signed(made, "approve")
    assert decision_of(again) == again.decisions[-1]
    assert not rejected(again)
    assert state_of(standings_of(again)) == "approved"
    assert (decision_of(result()), rejected(result()), state_of(())) == (None, False, "unsigned")


def test_another_pose_makes_a_decision_void() -> None:
    for action in ("approve", "reject"):
        made = moved(signed(result(), action))
        assert standings_of(made)[0].void == ("the pose was changed",)
        assert (decision_of(made), rejected(made), state_of(standings_of(made))) == (None, False, "void")


def test_other_inputs_make_a_decision_void() -> None:
    made = signed(result(), "approve")
    other = replace(made.request, ct=replace(made.request.ct, sha256="other"))
    assert standings_of(replace(made, request=other))[0].void == ("the CT is another one",)


@pytest.mark.parametrize("field", ["name", "date", "comment", "action", "seal", "signed"])
def test_an_edited_decision_is_void(field: str) -> None:
    made = signed(result(), "reject", "comment")
    old = made.decisions[0]
    value: Any = {"action": "approve", "signed": replace(old.signed, result="another")}.get(field, "changed")
    changed: dict[str, Any] = {field: value}
    edited = replace(made, decisions=(replace(old, **changed), made.decisions[1]))
    first, second = standings_of(edited)
    assert "the decision itself was edited" in first.void
    assert second.void == ("an earlier decision was edited or removed",)
    assert decision_of(edited) is None


def test_a_decision_that_was_removed_is_missed_by_the_next() -> None:
    made = signed(result(), "reject", "approve")
    assert decision_of(replace(made, decisions=made.decisions[1:])) is None


def test_a_rejection_is_not_lifted_by_editing_its_comment() -> None:
    made = signed(result(), "reject")
    assert rejected(replace(made, decisions=(replace(made.decisions[0], comment="fine"),)))


def test_a_rejection_is_not_lifted_by_giving_the_rejected_pose_in_a_file() -> None:
    turned = RigidTransform.from_axis_angle((1, 2, 3), 7, (3.0, -4.0, 5.0))
    made = signed(replace(result(), pose=Pose(turned, turned, "registered", "moved")), "reject")
    read = RigidTransform.from_axis_angle((1, 2, 3), 7 + 1e-12, (3.0, -4.0, 5.0))
    again = Pose(read, read, "given", "moved")
    assert rejected(replace(made, pose=again))
    assert not rejected(moved(made))


def test_decisions_are_carried_over_to_a_new_result_of_the_same_inputs_only() -> None:
    old = signed(result(), "approve")
    assert carried_over(old, moved(result())) == old.decisions
    other = result()
    other = replace(other, request=replace(other.request, mri=replace(other.request.mri, sha256="other")))
    unknown = replace(result(), request=replace(result().request, ct=replace(result().request.ct, sha256=None)))
    unknown = signed(unknown, "approve")
    assert carried_over(old, other) == carried_over(unknown, unknown) == ()


@pytest.mark.parametrize(
    ("action", "name", "comment", "words"),
    [
        ("approve", "  ", "", "needs the name"),
        ("comment", "A", " \n", "needs words"),
        ("approve", "A" * 101, "", "at most 100"),
        ("approve", "A\u202egnorW", "", r"cannot be shown \(U\+202E\)"),
        ("reject", "A", "a\x00b", r"U\+0000"),
    ],
)
def test_a_decision_that_cannot_be_shown_is_refused(action: Action, name: str, comment: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        decide(action, name, comment, Signed({}, "", ""))


# --- on disk -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a result; copied by each test."""
    folder = tmp_path_factory.mktemp("result")
    write_case(replace(result_of(*HEAD), decisions=()), HEAD[2], folder, "nii.gz")
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "result"))


def test_a_decision_stands_in_record_and_report_and_holds(folder: Path) -> None:
    sign_result(folder, "comment", "B. Physicist", "look at the <b>left</b>\nagain")
    first = (folder / "report.html").read_text(encoding="utf-8")
    assert "look at the &lt;b&gt;left&lt;/b&gt;\nagain" in first
    sign_result(folder / "result.json", "approve", "  A.  Surgeon ")
    record = read_case(folder)
    assert [(d.action, d.name) for d in record.decisions] == [("comment", "B. Physicist"), ("approve", "A. Surgeon")]
    assert record.decisions[1].date.endswith("Z")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Approved by A. Surgeon" in page
    assert "not a legal signature" in page
    assert record.decisions[1].signed.result in page
    assert f"<td>{__version__}</td>" in page
    assert state_of(read_standings(folder)) == "approved"
    assert all(not standing.void for standing in read_standings(folder))


def test_a_decision_leaves_the_rest_of_a_result_as_it_was(folder: Path) -> None:
    """So that the seal of a cohort's case, which has these sums, stays whole."""
    before = {path.name: content_sha256(path) for path in folder.iterdir()}
    sign_result(folder, "reject", "A. Surgeon", "wrong side")
    assert {name: content_sha256(folder / name) for name in before} == before
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == sorted(before)


def edit_record(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    change(document)
    (folder / "result.json").write_text(json.dumps(document), encoding="utf-8")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


def put_further(transform: dict[str, Any], mm: float) -> None:
    transform["moving_from_fixed_lps"][0][3] += mm


EDITS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "voxels": (lambda folder: flip(folder / "fused.nii.gz"), "fused.nii.gz was changed"),
    "missing": (lambda folder: (folder / "ct_in_mri.nii.gz").unlink(), "ct_in_mri.nii.gz is missing"),
    "transform": (lambda folder: flip(folder / "ct_to_mri.tfm"), "ct_to_mri.tfm was changed"),
    "report": (
        lambda folder: (folder / "report.html").write_text(
            (folder / "report.html").read_text(encoding="utf-8").replace("Amber", "Green"), encoding="utf-8"
        ),
        "report.html was changed",
    ),
    "verdict": (
        lambda folder: edit_record(folder, lambda d: d["verdict"].update(colour="green")),
        "the record of the result was changed",
    ),
    "pose": (
        lambda folder: edit_record(folder, lambda d: put_further(d["pose"]["transform"], 0.002)),
        "the pose was changed",
    ),
    "movement": (
        lambda folder: edit_record(folder, lambda d: d["pose"].update(movement="not moved")),
        "the record of the result was changed",
    ),
    "inputs": (
        lambda folder: edit_record(folder, lambda d: d["request"]["ct"].update(sha256="another")),
        "the CT is another one",
    ),
    "name": (lambda folder: edit_record(folder, lambda d: d["decisions"][0].update(name="C")), "itself was edited"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_any_change_of_a_result_voids_a_decision(folder: Path, edit: str) -> None:
    sign_result(folder, "approve", "A. Surgeon")
    change, words = EDITS[edit]
    change(folder)
    (standing,) = read_standings(folder)
    assert words in standing.sentence
    assert state_of((standing,)) == "void"


def test_inputs_that_are_given_are_compared(folder: Path, tmp_path: Path) -> None:
    sha256 = sha256_of(folder / "fused.nii.gz")
    edit_record(folder, lambda d: d["request"]["mri"].update(sha256=sha256))
    sign_result(folder, "approve", "A. Surgeon")
    assert state_of(read_standings(folder, mri=folder / "fused.nii.gz")) == "approved"
    assert "the MRI is another one" in read_standings(folder, mri=folder / "ct_in_mri.nii.gz")[0].sentence
    with pytest.raises(ImageFileError, match="there is no such file"):
        read_standings(folder, ct=tmp_path / "none")


def test_voxels_beside_a_header_are_inputs_of_a_decision(folder: Path, tmp_path: Path) -> None:
    header = tmp_path / "ct.mhd"
    header.write_text("DimSize = 2 2 2\nElementType = MET_SHORT\nElementDataFile = ct.raw\n", encoding="ascii")
    (tmp_path / "ct.raw").write_bytes(bytes(16))
    edit_record(folder, lambda d: d["request"]["ct"].update(sha256=sha256_of_volume(header)))
    sign_result(folder, "approve", "A. Surgeon")
    assert state_of(read_standings(folder, ct=header)) == "approved"
    (tmp_path / "ct.raw").write_bytes(bytes(15) + b"\1")
    assert "the CT is another one" in read_standings(folder, ct=header)[0].sentence


@pytest.mark.parametrize("given", ["head", "head/IM0002", "."])
def test_litter_beside_dicom_slices_voids_no_decision_and_a_slice_does(
    folder: Path, tmp_path: Path, given: str
) -> None:
    slices = write_series(tmp_path / "head", heights=range(0, 12, 2))
    ct = tmp_path / given
    edit_record(folder, lambda d: d["request"]["ct"].update(sha256=sha256_of_volume(ct)))
    sign_result(folder, "approve", "A. Surgeon")
    for name in (".DS_Store", "Thumbs.db", "result.json", "fused.nii.gz"):
        (slices / name).write_bytes(b"litter")
    write_series(slices / "results", heights=range(0, 8, 2), SeriesInstanceUID="1.2.7", Modality="OT")
    (slices / "results" / "IM0000").rename(slices / "fused.dcm")
    (slices / "IM0003").rename(slices / "renamed")
    assert state_of(read_standings(folder, ct=ct)) == "approved"
    write_slice(slices / "more", above(12))
    assert "the CT is another one" in read_standings(folder, ct=ct)[0].sentence


def test_a_result_with_missing_files_is_not_signed(folder: Path) -> None:
    (folder / "fused.nii.gz").unlink()
    before = (folder / "result.json").read_bytes()
    with pytest.raises(ImageFileError, match=r"fused\.nii\.gz is missing"):
        sign_result(folder, "approve", "A. Surgeon")
    assert (folder / "result.json").read_bytes() == before


def test_a_record_that_names_files_elsewhere_is_refused(folder: Path) -> None:
    edit_record(folder, lambda d: d["files"].update(fused="../fused.nii.gz"))
    with pytest.raises(RecordError, match="outside of its folder"):
        sign_result(folder, "approve", "A. Surgeon")


def test_a_record_with_what_json_does_not_have_is_refused(folder: Path) -> None:
    edit_record(folder, lambda d: d["evidence"].update(coverage=float("nan")))
    with pytest.raises(RecordError, match="was not written by BrainFusion"):
        sign_result(folder, "approve", "A. Surgeon")


def test_a_record_named_as_in_bids_is_found_by_its_folder(folder: Path) -> None:
    (folder / "result.json").rename(folder / "sub-1_desc-fused_result.json")
    sign_result(folder, "approve", "A. Surgeon")
    assert state_of(read_standings(folder)) == "approved"


def test_a_new_result_of_the_same_inputs_keeps_decisions_as_void(folder: Path) -> None:
    for role in ("ct", "mri"):
        edit_record(folder, lambda d, role=role: d["request"][role].update(sha256=role))  # type: ignore[misc]
    sign_result(folder, "approve", "A. Surgeon")
    again = read_case(folder)
    write_case(moved(replace(again, decisions=(), files={})), HEAD[2], folder)
    (standing,) = read_standings(folder)
    assert "the pose was changed" in standing.void
    assert "Void: changed since it was approved" in (folder / "report.html").read_text(encoding="utf-8")


def test_decisions_of_several_processes_are_all_kept(folder: Path) -> None:
    program = (
        "import sys; from BrainFusionLib.signing import sign_result; sign_result(sys.argv[1], 'comment', 'A', 'x')"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(folder)]) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert len(read_standings(folder)) == 2


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["sign", *arguments])
    told = capsys.readouterr()
    return code, told.out + told.err


def test_the_command_signs_and_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(capsys, str(folder), "--show") == (0, "Neither approved nor rejected.\n")
    code, words = command(capsys, str(folder), "--approve", "--name", "A. Surgeon", "--comment", "checked")
    assert code == 0
    assert "Approved by A. Surgeon" in words
    assert "Amber" in words
    assert "not a legal signature" in words
    assert command(capsys, str(folder), "--show")[0] == 0
    flip(folder / "fused.nii.gz")
    code, words = command(capsys, str(folder), "--show")
    assert code == 1
    assert "Void: fused.nii.gz was changed" in words


def test_fusing_other_inputs_into_a_folder_with_decisions_is_refused_before_the_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, volume in (("ct.nrrd", HEAD[0]), ("mri.nrrd", HEAD[2])):
        write_volume(volume, tmp_path / name)
    sign_result(folder, "approve", "A. Surgeon")
    before = (folder / "result.json").read_bytes()
    words = ["fuse", str(tmp_path / "ct.nrrd"), str(tmp_path / "mri.nrrd"), "-o", str(folder), "--no-register"]
    assert main(words) == 2
    assert "somebody approved, rejected or commented on" in capsys.readouterr().err
    assert (folder / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--approve"], "Give the name with --name"),
        (["--name", "A"], "--approve, --reject or --comment"),
        (["--show", "--name", "A"], "--show changes nothing"),
        (["--approve", "--name", "A", "--ct", "x"], "with --show only"),
    ],
)
def test_the_command_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    code, told = command(capsys, str(tmp_path), *arguments)
    assert code == 2
    assert words in told


def test_a_decision_waits_for_a_new_result_and_is_not_made_about_it_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_case(result(HEAD), HEAD[2], tmp_path)
    said: list[str] = []

    def decide_meanwhile() -> None:
        try:
            sign_result(tmp_path, "reject", "A. Surgeon")
        except RecordError as error:
            said.append(str(error))

    deciding = threading.Thread(target=decide_meanwhile)

    def written(*words: Any) -> None:
        write_report(*words)
        deciding.start()
        deciding.join(0.2)
        assert deciding.is_alive()

    monkeypatch.setattr(case_folder, "write_report", written)
    write_case(result(HEAD), HEAD[2], tmp_path)
    deciding.join(60)
    assert "Look at the new result first." in said[0]
    assert read_standings(tmp_path) == ()


def test_a_decision_about_a_result_that_a_kill_left_half_moved_is_kept(tmp_path: Path) -> None:
    write_case(result(HEAD), HEAD[2], tmp_path)
    sign_result(tmp_path, "reject", "A. Surgeon")
    (tmp_path / WHOLE).mkdir()
    (tmp_path / "result.json").rename(tmp_path / WHOLE / "result.json")
    write_case(result(HEAD), HEAD[2], tmp_path)
    assert [standing.decision.action for standing in read_standings(tmp_path)] == ["reject"]
