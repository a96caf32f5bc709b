"""The scripts in examples/ run as they stand, and say what their texts promise."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
ROOT = Path(__file__).parents[1]


def output_of(name):
    done = subprocess.run([sys.executable, ROOT / "examples" / name], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_fusing_one_pair_writes_the_results():
    said = output_of("fuse_one_pair.py")
    assert said.startswith("green: Green: no sign of misalignment")
    assert "fused.nii.gz" in [path.name for path in Path(said.rsplit(" ", 1)[-1].strip()).iterdir()]


def test_a_registration_that_is_4_mm_off_is_red():
    assert output_of("check_a_registration.py").startswith("red:")


def test_a_cohort_on_dask_is_done():
    pytest.importorskip("distributed", reason="distributed is not installed: pip install 'brainfusion[cohort]'")
    assert output_of("cohort_on_dask.py") == "a done\nb done\n"
