"""The scripts in examples/ and the Python in the pages run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from BrainFusionLib.fusion.methods import METHODS
from BrainFusionLib.io import write_volume
from BrainFusionLib.phantom import make_pair

ROOT = Path(__file__).parents[1]


def output_of(name):
    done = subprocess.run([sys.executable, ROOT / "examples" / name], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_fusing_one_pair_writes_the_results():
    said = output_of("fuse_one_pair.py")
    assert said.startswith("Green: no sign of misalignment")
    assert "fused.nii.gz" in [path.name for path in Path(said.rsplit(" ", 1)[-1].strip()).iterdir()]


def test_a_registration_that_is_4_mm_off_is_red():
    assert output_of("check_a_registration.py").startswith("Red:")


def test_a_cohort_on_dask_is_done():
    pytest.importorskip("distributed", reason="distributed is not installed: pip install 'brainfusion[cohort]'")
    assert output_of("cohort_on_dask.py") == "a done\nb done\n"


def test_the_python_of_the_library_page_runs(tmp_path, monkeypatch):
    pair = make_pair(3, spacing_mm=8.0)
    (tmp_path / "sample").mkdir()
    write_volume(pair.ct, tmp_path / "sample" / "ct.nrrd")
    write_volume(pair.mri, tmp_path / "sample" / "mri.nrrd")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("BrainFusionLib.fusion.methods.METHODS", dict(METHODS))  # the page adds one
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text(encoding="utf-8"), re.DOTALL)
    exec("".join(code), {})
    assert {"fused.nii.gz", "ct_to_mri.tfm"} <= {path.name for path in tmp_path.iterdir()}
