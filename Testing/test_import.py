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


def test_the_bare_import_brings_in_nothing_but_itself_and_the_standard_library():
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
def test_every_public_name_is_there(name):
    assert name in dir(BrainFusionLib)
    value = getattr(BrainFusionLib, name)
    assert isinstance(value, str) if name == "__version__" else value.__name__ == name


def test_the_public_names_are_those_that_a_caller_needs():
    needed = {"fuse", "register", "read_volume", "write_volume", "Volume", "Grid", "RigidTransform", "Settings"}
    assert needed <= set(BrainFusionLib.__all__)
    assert len(BrainFusionLib.__all__) == len(set(BrainFusionLib.__all__))


def test_a_name_that_is_not_there_is_an_ordinary_attribute_error():
    assert not hasattr(BrainFusionLib, "fuze")
    with pytest.raises(AttributeError, match="'BrainFusionLib' has no attribute 'fuze'"):
        BrainFusionLib.fuze  # noqa: B018


def test_the_version_is_told_by_python_m():
    finished = _python("-m", "BrainFusionLib", "--version")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == f"brainfusion {BrainFusionLib.__version__}"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", BrainFusionLib.__version__)
