"""What users and disks do by accident: streams that are full or closed, names too long, files of other types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from BrainFusionLib import cli
from BrainFusionLib.cohort import read_manifest
from BrainFusionLib.errors import SettingsError, WeightsError
from BrainFusionLib.fusion.network import build_network
from BrainFusionLib.fusion.weights import load_weights
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
    assert max(map(len, problems)) < 1000 + len(str(tmp_path))


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
