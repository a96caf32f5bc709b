import re
import subprocess
import sys
from pathlib import Path

import pytest

import BrainFusionLib

ROOT = Path(BrainFusionLib.__file__).parents[1]


def _python(*arguments):
    """Run a fresh Python from the repository root, so that nothing is imported yet."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_import_loads_only_the_library_and_the_standard_library():
    finished = _python(
        "-c",
        "import sys; before = set(sys.modules); import BrainFusionLib; "
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(*sorted(names - set(sys.stdlib_module_names)))",
    )
    assert finished.stdout.split() == ["BrainFusionLib"], finished.stderr


def test_the_base_of_the_library_works_without_torch():
    # None in sys.modules makes every `import torch` fail, as on a machine that has none.
    finished = _python(
        "-c",
        "import sys; sys.modules['torch'] = None; "
        "from BrainFusionLib import Grid, RigidTransform, Settings, Volume, read_volume, write_transform; "
        "import BrainFusionLib.intensity, BrainFusionLib.metrics, BrainFusionLib.phantom, BrainFusionLib.device",
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("name", BrainFusionLib.__all__)
def test_every_public_name_exists(name):
    assert name in dir(BrainFusionLib)
    value = getattr(BrainFusionLib, name)
    assert isinstance(value, str) if name == "__version__" else value.__name__ == name


def test_the_public_names_cover_what_a_caller_needs():
    needed = {"fuse", "register", "read_volume", "write_volume", "Volume", "Grid", "RigidTransform", "Settings"}
    assert needed <= set(BrainFusionLib.__all__)
    assert len(BrainFusionLib.__all__) == len(set(BrainFusionLib.__all__))


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(BrainFusionLib, "fuze")
    with pytest.raises(AttributeError, match="'BrainFusionLib' has no attribute 'fuze'"):
        BrainFusionLib.fuze  # noqa: B018


def test_python_m_prints_the_version():
    finished = _python("-m", "BrainFusionLib", "--version")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == f"brainfusion {BrainFusionLib.__version__}"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", BrainFusionLib.__version__)


def test_the_version_is_written_once_and_the_citation_agrees():
    assert f"\nversion: {BrainFusionLib.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    written = re.compile(r"^__version__ = |^version = ", re.MULTILINE)
    files = [*ROOT.glob("*.toml"), *(ROOT / "BrainFusionLib").rglob("*.py"), *(ROOT / "BrainFusion").rglob("*.py")]
    assert [p.name for p in files if written.search(p.read_text(encoding="utf-8"))] == ["version.py"]


def test_the_package_is_marked_as_typed():
    assert (ROOT / "BrainFusionLib" / "py.typed").is_file()
