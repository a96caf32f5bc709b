"""The local check of the ExtensionsIndex's rules: this repository passes, and each fault is found."""

import json
import shutil
from pathlib import Path

import pytest

from tools.check_extension import ENTRY, problems

ROOT = Path(__file__).parents[1]
ICON, SCREENSHOT = "BrainFusion/Resources/Icons/BrainFusion.png", "docs/images/in_slicer.png"


def test_this_repository_is_ready_for_the_index():
    assert list(problems(ROOT)) == []


@pytest.fixture
def copy(tmp_path):
    """The few files that the rules are about, without git."""
    for name in (ENTRY, "CMakeLists.txt", "README.md", "LICENSE.txt", ICON, SCREENSHOT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for url in (ROOT / "CMakeLists.txt").read_text(encoding="utf-8").split('"'):
        if "/main/docs/" in url:
            for name in (part.split("/main/", 1)[1] for part in url.split()):
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, tmp_path / name)
    assert list(problems(tmp_path)) == []
    return tmp_path


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("category", "Fusion", "category must be one of"),
        ("category", None, "category is missing"),
        ("$schema", "https://example.com/schema.json#", "must be the URL of Slicer's schema"),
        ("colour", "red", "colour is not in the schema"),
        ("tier", 7, "tier must be 1 to 5"),
        ("tier", "1", "tier must be of type int"),
        ("scm_url", "ssh://github.com/BrainFusion/SlicerBrainFusion.git", "must begin with https://"),
        ("scm_url", "https://github.com/BrainFusion/BrainFusion.git", "name must begin with Slicer"),
        ("build_dependencies", ["PyTorch"], "must be those of CMakeLists.txt"),
        ("scm_revision", "release", "is not the raw URL of a file of this repository"),
    ],
)
def test_a_fault_in_the_entry_is_found(copy, key, value, said):
    entry = json.loads((copy / ENTRY).read_text(encoding="utf-8"))
    entry[key] = value
    if value is None:
        del entry[key]
    (copy / ENTRY).write_text(json.dumps(entry), encoding="utf-8")
    assert any(said in problem for problem in problems(copy))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("project(BrainFusion)", "project(SlicerBrainFusion)", "project() must be named as"),
        ('set(EXTENSION_DEPENDS "NA")', 'set(EXTENSION_DEPENDS "PyTorch")', "build_dependencies must be those"),
        ('set(EXTENSION_DESCRIPTION "', 'set(EXTENSION_DESCRIPTION\n  "', "goes over several lines"),
        ("BrainFusion contributors (BrainFusion)", "BrainFusion contributors", "EXTENSION_CONTRIBUTORS must be"),
        ("Icons/BrainFusion.png", "Icons/Other.png", "is not the raw URL of a file"),
        ("set(EXTENSION_ICONURL", "set(EXTENSION_ICON", "set(EXTENSION_ICONURL"),
        ('SlicerBrainFusion")', 'SlicerFusion")', "EXTENSION_HOMEPAGE must be the repository"),
        ("\n", "\r\n", "CMakeLists.txt: lines must end with LF alone"),
    ],
)
def test_a_fault_in_the_cmake_list_is_found(copy, old, new, said):
    path = copy / "CMakeLists.txt"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_bytes(text.replace(old, new).encode())
    assert any(said in problem for problem in problems(copy))


def test_faults_of_pictures_licence_readme_and_json_are_found(copy):
    shutil.copy(copy / SCREENSHOT, copy / ICON)
    assert any("128 x 128 pixels" in problem for problem in problems(copy))
    (copy / ICON).write_text("<svg/>", encoding="utf-8")
    assert any("must be a PNG" in problem for problem in problems(copy))
    (copy / "LICENSE.txt").unlink()
    assert "LICENSE.txt: is missing." in list(problems(copy))
    (copy / "README.md").write_text("BrainFusion", encoding="utf-8")
    assert sum(problem.startswith("README.md: must have") for problem in problems(copy)) == 3
    (copy / ENTRY).write_text("{", encoding="utf-8")
    assert [problem.startswith(f"{ENTRY}: cannot be read") for problem in problems(copy)] == [True]


@pytest.fixture
def module_in(copy):
    """Write the module's file with these lines; return what the check says of it."""

    def said(lines):
        (copy / "BrainFusion" / "BrainFusion.py").write_text('"""A module."""\n\n' + lines, encoding="utf-8")
        return [problem for problem in problems(copy) if problem.startswith("BrainFusion/BrainFusion.py")]

    return said


def test_a_call_at_file_scope_needs_a_reason(module_in):
    assert "runs when it is imported" in module_in("import os\n\nos.getcwd()\n")[0]
    assert module_in("import os\n\n# Slicer wants it here.\nos.getcwd()\n") == []


def test_a_package_that_slicer_does_not_bring_is_found(module_in):
    assert "imports pandas at file scope" in module_in("import pandas\n")[0]
    assert module_in("import numpy\nimport slicer\n\n\ndef late():\n    import pandas\n") == []


def test_a_module_that_the_readme_leaves_out_is_found(copy):
    (copy / "Other").mkdir()
    (copy / "Other" / "CMakeLists.txt").touch()
    (copy / "Other" / "Other.py").touch()
    assert "README.md: the section Modules must have a sentence on Other." in list(problems(copy))
