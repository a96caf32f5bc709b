"""What works where there is no torch: everything on a CPU but the reference networks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from BrainFusionLib.device import pick_device
from BrainFusionLib.io import write_grey, write_volume
from BrainFusionLib.native import native
from BrainFusionLib.phantom import make_pair

ROOT = Path(__file__).parents[1]
# None in sys.modules makes every `import torch` fail, as on a machine that has none.
COMMAND = "import sys; sys.modules['torch'] = None; from BrainFusionLib.cli import main; sys.exit(main(sys.argv[1:]))"
NEEDS_TORCH = ("BrainFusionLib/backend/on_torch.py", "BrainFusionLib/fusion/network/")


def brainfusion(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    pair = make_pair(5, spacing_mm=4.0, rotation_deg=8, translation_mm=10)
    write_volume(pair.ct, folder / "ct.nii.gz")
    write_volume(pair.mri, folder / "mri.nii.gz")
    rows = [f"one,{folder}/ct.nii.gz,{folder}/mri.nii.gz"]
    (folder / "cases.csv").write_text("case,ct,mri\n" + "\n".join(rows) + "\n")
    for name in ("ct", "mri"):
        (folder / name).mkdir()
        write_grey(np.random.default_rng(0).integers(0, 255, (40, 48)).astype(np.float32), folder / name / "1.png")
    return folder


@pytest.fixture(scope="module")
def versions(files: Path) -> dict[str, str]:
    done = brainfusion("fuse", files / "ct.nii.gz", files / "mri.nii.gz", "-o", files / "fused", "--preset", "fast")
    assert done.returncode == 0, done.stderr
    assert (files / "fused" / "fused.nii.gz").exists()
    provenance = json.loads((files / "fused" / "result.json").read_text())["provenance"]
    assert provenance["device"] == "cpu"
    found: dict[str, str] = provenance["versions"]
    return found


def test_fuse_registers_and_fuses_with_the_default_network(versions: dict[str, str]) -> None:
    assert "torch" not in versions


@pytest.mark.skipif(native().library is None, reason="without the C library, ITK does its work")
def test_fuse_loads_no_itk(versions: dict[str, str]) -> None:
    assert "SimpleITK" not in versions


def test_slices_are_fused_with_the_default_network(files: Path) -> None:
    done = brainfusion("slices", files / "ct", files / "mri", "-o", files / "pictures")
    assert done.returncode == 0, done.stderr
    assert (files / "pictures" / "1.png").exists()


def test_a_cohort_is_registered_and_fused(files: Path) -> None:
    done = brainfusion("cohort", files / "cases.csv", "-o", files / "cohort", "--preset", "fast", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert list((files / "cohort").rglob("fused.nii.gz"))


@pytest.mark.parametrize(
    ("words", "needing"),
    [(("--device", "cuda"), "'cuda'"), (("--weights", "fusion_net"), "reference network")],
    ids=["cuda", "reference network"],
)
def test_what_needs_torch_says_how_to_get_it(files: Path, words: tuple[str, ...], needing: str) -> None:
    done = brainfusion("fuse", files / "ct.nii.gz", files / "mri.nii.gz", "-o", files / "none", *words)
    assert done.returncode != 0
    assert needing in done.stderr
    assert "pip install torch" in done.stderr
    assert not (files / "none").exists()


def test_doctor_is_content(files: Path) -> None:
    done = brainfusion("doctor")
    assert done.returncode == 0, done.stdout
    assert "Ready." in done.stdout


def test_a_cpu_loads_no_torch_though_it_is_there(tmp_path: Path) -> None:
    if pick_device("auto") != "cpu":
        pytest.skip("there is a graphics card")
    pair = make_pair(5, spacing_mm=4.0)
    write_volume(pair.ct, tmp_path / "ct.nii")
    write_volume(pair.mri, tmp_path / "mri.nii")
    code = (
        "import sys; from BrainFusionLib.cli import main; main(sys.argv[1:]); "
        "sys.exit(sorted(n for n in sys.modules if n.partition('.')[0] == 'torch') or 0)"
    )
    words = ["fuse", tmp_path / "ct.nii", tmp_path / "mri.nii", "-o", tmp_path / "out", "--preset", "fast"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").exists()


def test_every_file_but_those_in_torch_loads() -> None:
    files = [p.relative_to(ROOT).as_posix() for p in sorted((ROOT / "BrainFusionLib").rglob("*.py"))]
    names = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in files
        if not name.startswith(NEEDS_TORCH) and not name.endswith("__main__.py")
    ]
    code = "import sys, importlib; sys.modules['torch'] = None\nfor n in sys.argv[1:]: importlib.import_module(n)"
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
