"""A case on disk, and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from BrainFusionLib import folder, fuse, read_case
from BrainFusionLib.case import SCHEMA_VERSION, Result, read_record
from BrainFusionLib.errors import ImageFileError, RecordError
from BrainFusionLib.folder import write_case
from BrainFusionLib.io.ownership import refuse_to_replace_others
from BrainFusionLib.phantom import PhantomPair, make_pair
from BrainFusionLib.volume import Volume


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return make_pair(2, spacing_mm=4.0)


@pytest.fixture(scope="module")
def result(pair: PhantomPair) -> Result:
    return fuse(pair.ct, pair.mri, transform=pair.transform, check=False)


@pytest.mark.parametrize("file_format", ["nii.gz", "nrrd", "mha"])
def test_what_is_written_is_read_back_whole(
    pair: PhantomPair, result: Result, tmp_path: Path, file_format: str
) -> None:
    files = write_case(result, pair.mri, tmp_path, file_format, save_alpha=True, identify=True)
    back = read_case(tmp_path)
    assert back.files == {role: path.name for role, path in files.items()}
    assert back.provenance.timings_s["writing"] > 0
    told = replace(
        back,
        files={},
        provenance=replace(back.provenance, timings_s=result.provenance.timings_s),
    )
    assert told == result.without_paths()
    assert back.alpha is not None
    assert np.array_equal(back.alpha.array_kji, result.alpha.array_kji)


def test_a_record_is_read_without_voxels(pair: PhantomPair, result: Result, tmp_path: Path) -> None:
    write_case(result, pair.mri, tmp_path)
    for name in ("fused.nii.gz", "ct_in_mri.nii.gz"):
        (tmp_path / name).unlink()
    record = read_record(tmp_path / "result.json")
    assert record.volumes is None
    assert record.verdict == result.verdict
    assert record.evidence == result.evidence
    assert record.pose == result.pose
    with pytest.raises(ValueError, match="no volumes"):
        _ = record.fused
    with pytest.raises(ImageFileError):
        read_case(tmp_path)


def test_document_keeps_the_place_of_colour_and_error(pair: PhantomPair, result: Result, tmp_path: Path) -> None:
    write_case(result, pair.mri, tmp_path)
    document = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert document["verdict"]["colour"] == "amber"
    assert document["verdict"]["expected_error_mm"] is None
    assert document["schema_version"] == SCHEMA_VERSION
    assert document["verdict"]["findings"][0]["code"] == "pose_not_checked"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not a valid JSON file"),
        ("[]", "must contain a JSON object"),
        ("{}", "schema version"),
        (f'{{"schema_version": {SCHEMA_VERSION}}}', "missing fields: request"),
        ("[" * 100_000, "is not a valid JSON file"),
    ],
)
def test_a_damaged_record_is_refused_with_its_name(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "result.json").write_text(content, encoding="utf-8")
    with pytest.raises(RecordError, match=words) as caught:
        read_case(tmp_path)
    assert "result.json" in str(caught.value)


def test_a_folder_without_a_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match=r"result\.json: there is no such file"):
        read_case(tmp_path)


def test_a_result_that_is_replaced_while_it_is_read_is_read_again(
    pair: PhantomPair, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_case(result, pair.mri, tmp_path)
    plain, calls = folder.read_volume, []

    def read(path: Path) -> Volume:
        calls.append(path)
        if len(calls) == 1:
            write_case(result, pair.mri, tmp_path, "nrrd")
        return plain(path)

    monkeypatch.setattr(folder, "read_volume", read)
    assert read_case(tmp_path).files["fused"] == "fused.nrrd"
    assert not calls[0].exists()


@pytest.mark.parametrize("name", ["pictures/holiday.png", "report.html", "result.json", "fused.nii.gz/mine"])
def test_what_no_result_wrote_is_not_replaced(pair: PhantomPair, result: Result, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(ImageFileError, match=f"{name.partition('/')[0]}: (was there before|cannot be replaced)"):
        write_case(result, pair.mri, tmp_path, pictures=True)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]


def test_what_a_result_wrote_is_replaced(tmp_path: Path) -> None:
    names = {"pictures": "pictures", "report": "report.html", "result": "result.json"}
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_text("of an earlier result")
    (tmp_path / "result.json").write_text(json.dumps({"schema_version": 6, "request": {}, "files": names}))
    (tmp_path / "report.html").write_text("<title>BrainFusion: CT on MRI</title>")
    refuse_to_replace_others(tmp_path, names.values())
    (tmp_path / "result.json").write_text((tmp_path / "result.json").read_text()[:50])  # cut off: still ours
    with pytest.raises(ImageFileError, match="pictures"):
        refuse_to_replace_others(tmp_path, names.values())
    del names["pictures"]
    refuse_to_replace_others(tmp_path, names.values())
    (tmp_path / "result.json").write_text("")
    refuse_to_replace_others(tmp_path, names.values())
    (tmp_path / "dicom").write_text("a file of the user's")
    refuse_to_replace_others(tmp_path, names.values())
    with pytest.raises(ImageFileError, match="not a folder"):
        refuse_to_replace_others(tmp_path, [*names.values(), "dicom/fused"])
