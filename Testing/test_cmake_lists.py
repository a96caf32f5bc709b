"""What Slicer and the ExtensionsIndex read from this repository, checked without Slicer."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
MODULE = ROOT / "BrainFusion"

# Stands in for Slicer's Python: just enough names for the module file to be executed. The names and what they are
# follow Base/Python/slicer (ScriptedLoadableModule.py, i18n.py, parameterNodeWrapper, util.py) of Slicer 5.12.
LOAD_THE_MODULE = """
import sys, types
from pathlib import Path

def module(name, **contents):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(contents)
    return sys.modules[name]

module("qt"), module("vtk", calldata_type=lambda kind: lambda function: function, VTK_OBJECT=None)
support = ("numpy_to_vtk", "vtk_to_numpy", "get_vtk_to_numpy_typemap")
module("vtk.util"), module("vtk.util.numpy_support", **dict.fromkeys(support))
kinds = ("", "ScalarVolume", "Transform", "LinearTransform", "LabelMapVolume", "Segmentation")
nodes = [f"vtkMRML{kind}Node" for kind in kinds]
slicer = module("slicer", **{name: type(name, (), {}) for name in nodes})
slicer.util = module("slicer.util", VTKObservationMixin=type("Mixin", (), {}))
module("slicer.i18n", tr=lambda text: text, translate=lambda context, text: text)
module("slicer.parameterNodeWrapper", parameterNodeWrapper=lambda cls: cls)
bases = ["ScriptedLoadableModule" + kind for kind in ("", "Logic", "Test", "Widget")]
module("slicer.ScriptedLoadableModule", **{name: type(name, (), {}) for name in bases})

# No copy of the library that happens to be installed here, nor an editable one: only what Slicer would see.
sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("_editable")]
sys.path[:] = [sys.argv[1], *(p for p in sys.path if not (Path(p) / "BrainFusionLib").is_dir())]
import BrainFusion
import BrainFusionLib
print(Path(BrainFusionLib.__file__).parent.parent)
print(sys.path.count(sys.argv[2]))
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "SimpleITK", "scipy"}))
"""


def load_module_in_a_fresh_python(module_folder):
    """Return where BrainFusionLib came from, how often the repository is on sys.path, and what else was imported."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOAD_THE_MODULE, str(module_folder), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    library, times_on_path, heavy = done.stdout.split("\n")[:3]
    return Path(library), int(times_on_path), heavy


def is_ours(path):
    return path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def shipped_kinds(folder):
    """Return the patterns that a folder's CMakeLists.txt ships by."""
    text = (folder / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.findall(r"^ *file\(GLOB_RECURSE \w+ CONFIGURE_DEPENDS RELATIVE \S+\s+([^)]+)\)$", text, re.MULTILINE)
    return [pattern for patterns in found for pattern in patterns.split()]


def metadata():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    return dict(re.findall(r'^set\(EXTENSION_(\w+) "([^"\n]+)"\)(?: #.*)?$', text, re.MULTILINE))


def ui():
    return ElementTree.parse(MODULE / "Resources" / "UI" / "BrainFusion.ui").getroot()


def module_syntax():
    return ast.parse((MODULE / "BrainFusion.py").read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", ["BrainFusion", "BrainFusionLib"])
def test_cmake_ships_every_kind_of_file_there_is(folder):
    top = ROOT / folder
    kinds = {pattern.rpartition("*")[2] for pattern in shipped_kinds(top)}
    assert {".c", ".h"}.issubset(kinds) == (folder == "BrainFusionLib")  # built into one library, which is shipped
    files = [path for path in top.rglob("*") if is_ours(path.relative_to(ROOT)) and path.name != "CMakeLists.txt"]
    files = [path for path in files if path.stem != "_native"]  # that of `dev.py build`
    assert [path for path in files if path.suffix not in kinds and path.name not in kinds] == []


def test_every_subdirectory_of_the_extension_has_a_cmake_list():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    folders = re.findall(r"^ *add_subdirectory\((\w+)\)$", text, re.MULTILINE)
    assert folders == ["BrainFusion", "BrainFusionLib", "Testing"]
    assert all((ROOT / folder / "CMakeLists.txt").is_file() for folder in folders)


def test_the_library_goes_into_a_folder_of_its_own():
    text = (ROOT / "BrainFusionLib" / "CMakeLists.txt").read_text(encoding="utf-8")
    assert re.search(r"slicerMacroBuildScriptedModule\(\s+NAME BrainFusionLib\s[^)]*\bWITH_SUBDIR\b[^)]*\)", text)


def test_the_self_test_of_the_module_is_registered():
    text = (ROOT / "Testing" / "CMakeLists.txt").read_text(encoding="utf-8")
    (script,) = re.findall(r"^slicer_add_python_unittest\(SCRIPT \$\{PROJECT_SOURCE_DIR\}/(\S+)\)$", text, re.MULTILINE)
    assert (ROOT / script).is_file()


def test_the_home_page_is_named_the_same_everywhere():
    home = metadata()["HOMEPAGE"]
    assert home.rsplit("/", 1)[1] == "SlicerBrainFusion"  # the index wants the repository to be Slicer + extension
    constants = {
        target.id: node.value.value
        for node in module_syntax().body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
    }
    assert constants["HOMEPAGE"] == home


def test_there_is_an_icon_that_scales():
    assert (MODULE / "Resources" / "Icons" / "BrainFusion.svg").is_file()  # Slicer's own panel prefers it


def test_every_widget_used_is_in_the_ui_file():
    used = {
        node.attr
        for node in ast.walk(module_syntax())
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "ui"
        and isinstance(node.value.value, ast.Name)
        and node.value.value.id == "self"
    }
    there = {widget.get("name") for widget in ui().iter("widget")}
    assert used, "the module uses no widget: has self.ui been renamed?"
    assert sorted(used - there) == []


def test_parameters_and_widgets_correspond():
    (parameter_node,) = (
        node
        for node in module_syntax().body
        if isinstance(node, ast.ClassDef) and node.name == "BrainFusionParameterNode"
    )
    fields = {
        node.target.id: ast.unparse(node.annotation) for node in parameter_node.body if isinstance(node, ast.AnnAssign)
    }
    boxes = {widget.get("name") for widget in ui().iter("widget") if widget.get("class") == "QComboBox"}
    assert {f"{name}ComboBox" for name, kind in fields.items() if "vtkMRML" not in kind} == boxes
    named = [p.findtext("string") for p in ui().iter("property") if p.get("name") == "SlicerParameterName"]
    assert sorted(named) == sorted(fields)


def test_every_node_selector_hears_of_the_scene():
    selectors = {w.get("name") for w in ui().iter("widget") if w.get("class") == "qMRMLNodeComboBox"}
    told = {
        connection.findtext("receiver")
        for connection in ui().iter("connection")
        if connection.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"
        and connection.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
        and connection.findtext("sender") == ui().find("widget").get("name")
    }
    assert selectors
    assert selectors == told


def test_every_custom_class_of_the_ui_file_is_declared():
    used = {widget.get("class") for widget in ui().iter("widget")}
    declared = {custom.findtext("class") for custom in ui().iter("customwidget")}
    assert {name for name in used if not name.startswith("Q")} == declared


def test_a_source_checkout_finds_the_library_and_loads_nothing_heavy():
    library, times_on_path, heavy = load_module_in_a_fresh_python(MODULE)
    assert library == ROOT
    assert times_on_path == 1
    assert heavy == ""


def test_an_installed_module_finds_the_library_and_keeps_the_path(tmp_path):
    for folder, destination in ((MODULE, tmp_path), (ROOT / "BrainFusionLib", tmp_path / "BrainFusionLib")):
        for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py")):
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / name, destination / name)
    library, times_on_path, heavy = load_module_in_a_fresh_python(tmp_path)
    assert library == tmp_path
    assert times_on_path == 0
    assert heavy == ""
