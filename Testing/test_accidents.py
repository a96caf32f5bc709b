"""What users and disks do by accident: streams that are full or closed, names too long, files of other types."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from BrainFusionLib import cli
from BrainFusionLib.case import read_record
from BrainFusionLib.cohort import read_manifest
from BrainFusionLib.cohort.decided import read_lines
from BrainFusionLib.console import say
from BrainFusionLib.errors import (
    BrainFusionError,
    ImageContentError,
    ImageFileError,
    Remedy,
    SettingsError,
    WeightsError,
)
from BrainFusionLib.folder import staging_folder
from BrainFusionLib.fusion.network import build_network
from BrainFusionLib.fusion.weights import load_weights
from BrainFusionLib.intensity import check_pair
from BrainFusionLib.io import read_transform, read_volume, reading, write_text
from BrainFusionLib.phantom import make_pair
from training.config_file import read_config

ROOT = Path(__file__).resolve().parents[1]
LONG = "n" * 260
CONFIG = ROOT / "training" / "configs" / "smoke.toml"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full and a shell")
def test_full_or_closed_streams_bring_no_traceback_and_lost_output_is_an_error(tmp_path: Path) -> None:
    """In one process for each state of the streams before Python starts."""
    code = "import sys; from BrainFusionLib.console import *; say('x'); say('y', error=True); "
    code += "ProgressLine(sys.stderr)('z', 0.5); close_output(); sys.exit(3 if lost_output() else 0)"
    for streams, wanted in ((">/dev/full", 3), (">&-", 0), ("2>/dev/full", 0), ("2>&- >&-", 0)):
        kept = tmp_path / "kept"
        command = f'"$0" -c "$1" >"$2" 2>&1 {streams}'
        done = subprocess.run(["sh", "-c", command, sys.executable, code, str(kept)], cwd=ROOT, check=False)
        assert done.returncode == wanted, streams
        assert "Traceback" not in kept.read_text(), streams


def test_no_name_and_no_header_moves_or_colours_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    said = "a\x1b[31m\x1b]0;title\x07b\r\x9bc\u202e"
    say(said, error=True)
    assert cli.main(["fuse", said, "mri.nii", "-o", "out"]) == 2
    with pytest.raises(SystemExit):
        cli.main(["fuse", said, "mri.nii", "-o", "out", f"--{said}"])
    shown = capsys.readouterr().err
    assert "title" in shown
    assert not set(shown) & set("\x1b\x07\r\x9b\u202e")


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes with names")
def test_records_tables_and_weights_that_are_pipes_are_refused(tmp_path: Path) -> None:
    for name in ("result.json", "cases.csv", "review.tsv", "w.json"):
        os.mkfifo(tmp_path / name)
    readers: list[tuple[Callable[[Path], object], str]] = [
        (read_record, "result.json"), (read_manifest, "cases.csv"), (load_weights, "w.json"),
        (lambda path: read_lines(path.parent), "review.tsv"),
    ]  # fmt: skip
    for read, name in readers:
        with pytest.raises(BrainFusionError, match="is not a file"):
            read(tmp_path / name)


def test_a_record_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_RECORD_BYTES", 10)
    (tmp_path / "result.json").write_text('{"a": "0123456789"}')
    with pytest.raises(ImageFileError, match="is larger than"):
        read_record(tmp_path / "result.json")


def test_a_file_that_cannot_be_written_is_named_as_the_user_knows_it(tmp_path: Path) -> None:
    def write() -> None:
        with staging_folder(tmp_path) as staged:
            (staged / "fused.nii.gz").mkdir()
            write_text("x", staged / "fused.nii.gz")

    with pytest.raises(ImageFileError) as refusal:
        write()
    assert str(refusal.value).startswith(f"{tmp_path / 'fused.nii.gz'}: cannot be written")


@pytest.mark.parametrize(
    "words",
    [
        ["fuse", LONG, "mri.nii", "-o", "out"],
        ["fuse", f"{LONG}.zip", "mri.nii", "-o", "out"],
        ["register", "ct.nii", "mri.nii", "-o", f"{LONG}.tfm"],
        ["metrics", LONG, LONG, LONG],
        ["cohort", LONG, "-o", "out"],
    ],
    ids=lambda words: words[0],
)
def test_a_name_too_long_is_said_to_be_so(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert "too long" in error
    assert "Copy or download" not in error


def test_a_name_too_long_in_a_manifest_spoils_its_own_row_only(tmp_path: Path) -> None:
    (tmp_path / "ct.nii").touch()
    (tmp_path / "mri.nii").touch()
    table = tmp_path / "cases.csv"
    rows = [f"a,{LONG},mri.nii", f"{LONG},ct.nii,mri.nii", "c,ct.nii,mri.nii", f"d,{'x' * 131_073},mri.nii"]
    table.write_text("\n".join(["case,ct,mri", *rows]))
    entries, problems = read_manifest(table)
    assert [entry.case for entry in entries] == ["c"]
    assert len(problems) == 3
    assert max(len(str(problem)) for problem in problems) < 1000 + len(str(tmp_path))


@pytest.mark.parametrize("architecture", [
    {"name": []}, {"name": "fusion_net", "seed": "x"}, {"name": "fusion_net", "width": 1.0},
    {"name": "fusion_net", "width": True}, {"name": "fusion_net", "width": 100_000},
    {"name": "fusion_net_alpha", "width": 10**9}, {"name": "fusion_net_alpha", "width": 10**30},
])  # fmt: skip
def test_networks_of_other_types_or_widths_are_refused_without_building_them(architecture: dict[str, object]) -> None:
    with pytest.raises(WeightsError, match="network"):
        build_network(architecture)  # type: ignore[arg-type]


def test_a_manifest_of_weights_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text("[" * 200_000)
    with pytest.raises(WeightsError, match="is not a manifest"):
        load_weights(tmp_path / "w.npz")


@pytest.mark.parametrize("words", [
    ["--training.epochs", "99999999999999999999"], ["--data.spacing_mm", "inf"], ["--training.epochs", "[" * 100_000],
    ["--training.threads", "99999"],
])  # fmt: skip
def test_numbers_beyond_all_sense_in_a_configuration_are_refused(words: list[str]) -> None:
    with pytest.raises(SettingsError, match="must be"):
        read_config(CONFIG, words)


def test_a_configuration_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("a=" + "[" * 100_000)
    with pytest.raises(SettingsError, match="cannot be read as a TOML"):
        read_config(tmp_path / "c.toml")


def test_an_unknown_device_in_a_configuration_is_refused_before_the_run(tmp_path: Path) -> None:
    assert read_config(CONFIG, ["--training.device", "cuda:1"]).training.device == "cuda:1"
    text = CONFIG.read_text().replace('device = "cpu"', "device = 'x'")
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"training\.device: 'x' is unknown; there are auto, cpu, cuda, mps"):
        read_config(tmp_path / "c.toml")


def test_a_missing_configuration_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refusal:
        read_config(tmp_path / "none.toml")
    assert str(refusal.value).count("none.toml") == 1


@pytest.mark.parametrize(("content", "words"), [
    (b"\x89HDF\r\n\x1a\n\0" + bytes(100), "as older programs wrote it"),
    (b"#Insight Transform File V1.0\nTransform: Euler3DTransform_double_3_3\nParameters: 0 0\nFixedParameters: 0 0 0\n",
     "needs 6 Parameters, but there are 2"),
    (b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 2\n", "is not that of a transform"),
    (b"type = 1\nnxforms = 2\n1 4 4\n", "holds 2 transforms"),
])  # fmt: skip
def test_whole_files_that_are_not_right_are_not_to_be_copied_again(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / {b"\x89": "a.h5", b"#": "a.tfm", b"1": "a.txt", b"t": "a.lta"}[content[:1]]
    path.write_bytes(content)
    with pytest.raises(ImageFileError, match=words) as refusal:
        read_transform(path)
    assert "Copy or download" not in str(refusal.value)
    assert str(refusal.value).count(str(path)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_a_broken_link_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "ct.nii").symlink_to("/nowhere/ct.nii")
    with pytest.raises(ImageFileError, match="is a broken link"):
        read_volume(tmp_path / "ct.nii")


def test_a_ct_with_an_unusual_offset_is_refused_not_taken_for_bone() -> None:
    pair = make_pair(seed=3, spacing_mm=6.0)
    shifted = pair.ct.with_array(pair.ct.array_kji + 777)
    with pytest.raises(ImageContentError, match="is above 300") as refusal:
        check_pair(replace(shifted, modality=None), pair.mri)
    assert refusal.value.remedy is Remedy.STATE_OFFSET
