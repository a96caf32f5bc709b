"""The rules of docs/ARCHITECTURE.md, read from its table of floors and held against the code.

Every import counts: at load, inside a function, and for types only.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from Testing.imports import imports, roots

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "BrainFusionLib"
# What computes with torch, and is imported on use.
TORCH_AT_LOAD = ("BrainFusionLib/backend/on_torch.py", "BrainFusionLib/fusion/network/")
FORBIDDEN = {"slicer", "vtk", "qt", "ctk", "training", "simulation", "benchmarks", "tools"}
MODULES = sorted(p for p in LIBRARY.rglob("*.py") if p.parent != LIBRARY or p.stem not in ("__init__", "__main__"))
MAPPINGS = re.compile(
    r"\b(?:dict|Dict|Mapping|MutableMapping|OrderedDict|defaultdict)\[[^\[\]]*\b(?:Any|object)\b[^\[\]]*\]"
    r"|TypedDict\(.*total=False|\btotal=False|(?::|->|\|)\s*(?:dict|Mapping|MutableMapping|OrderedDict)\b(?!\[)"
)
MOST_UNTYPED_MAPPINGS = 10
# An error holds the pose that was refused, and a transform raises errors: the only circle, of types alone.
OF_TYPES = (LIBRARY / "errors.py", LIBRARY / "transform.py")
# Extras that users install; the others are for developers.
USERS_EXTRAS = ("torch", "dicom-seg", "wavelet", "fast", "cohort")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def floors() -> dict[str, int]:
    """Return the floor of every package and file, from the table."""
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", page, flags=re.MULTILINE)
    return {name: int(floor) for floor, names in rows for name in re.findall(r"`(\w+)[/.\w]*`", names)}


def package_of(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path: Path) -> set[Path]:
    """Return the library's files that a module imports."""
    found = set()
    for name in imports(path):
        place = ROOT.joinpath(*name.split("."))
        if name.startswith("BrainFusionLib.") and (candidate := place.with_suffix(".py")).is_file():
            found.add(candidate)
    return found - {path}


def test_every_package_has_a_floor() -> None:
    assert set(floors()) == {package_of(path) for path in MODULES}


def test_imports_go_to_lower_floors() -> None:
    table, wrong = floors(), []
    # The files of the lowest floor are ordered among themselves; the test of circles holds that.
    for path in MODULES:
        package = package_of(path)
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "BrainFusionLib" or len(parts) < 2 or parts[1] in (package, "__version__"):
                continue
            assert parts[1] in table, f"{relative(path)}, {name}: import from a package by its full name"
            if not (table[parts[1]] < table[package] or table[parts[1]] == table[package] == 1):
                wrong.append(f"{relative(path)} (floor {table[package]}) imports {name} (floor {table[parts[1]]})")
    assert wrong == []


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = {path: imported_modules(path) for path in MODULES}
    assert dotted(OF_TYPES[1]) not in imports(OF_TYPES[0], at_load_only=True)
    graph[OF_TYPES[0]].discard(OF_TYPES[1])
    done: set[Path] = set()

    def visit(path: Path, way: list[Path]) -> None:
        assert path not in way, "circle: " + " -> ".join(relative(p) for p in [*way[way.index(path) :], path])
        if path in done:
            return
        for target in sorted(graph.get(path, ())):
            visit(target, [*way, path])
        done.add(path)

    for path in MODULES:
        visit(path, [])


def test_torch_is_loaded_where_it_computes() -> None:
    users = [relative(path) for path in MODULES if "torch" in roots(imports(path, at_load_only=True))]
    assert [path for path in users if not path.startswith(TORCH_AT_LOAD)] == []


def test_every_package_that_the_library_imports_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *(one for name in USERS_EXTRAS for one in extras[name])]
    names = {re.split(r"[<>=\[ ]", one)[0] for one in declared} | {"PIL", "pywt", "BrainFusionLib", "_typeshed"}
    found = {root for path in LIBRARY.rglob("*.py") for root in roots(imports(path))} - set(sys.stdlib_module_names)
    assert found <= names


def test_the_library_imports_nothing_above_it() -> None:
    found = {relative(path): roots(imports(path)) & FORBIDDEN for path in MODULES}
    assert {path: names for path, names in found.items() if names} == {}


def test_files_have_at_most_400_lines() -> None:
    lines = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {path: number for path, number in lines.items() if number > 400} == {}


@pytest.mark.parametrize("name", ["BrainFusionLib", "BrainFusionLib.case", "BrainFusionLib.verdict.judge"])
def test_light_imports_load_neither_torch_nor_simpleitk(name: str) -> None:
    code = f"import {name}, sys; print(*sorted({{'torch', 'SimpleITK', 'scipy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_few_mappings_are_untyped() -> None:
    found = [
        f"{relative(path)}:{number}: {line.strip()}"
        for folder in (LIBRARY, ROOT / "BrainFusion")
        for path in sorted(folder.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MAPPINGS.search(line)
    ]
    assert len(found) <= MOST_UNTYPED_MAPPINGS, "\n".join(found)


def test_init_files_only_hand_names_on() -> None:
    for path in LIBRARY.rglob("__init__.py"):
        if path.parent == LIBRARY:
            continue  # the lazy face of the library
        body = ast.parse(path.read_text(encoding="utf-8")).body
        kinds = ast.Expr | ast.Import | ast.ImportFrom | ast.Assign
        assert all(isinstance(node, kinds) for node in body), relative(path)


def test_options_of_the_command_are_named_in_cli_only() -> None:
    option = re.compile(r"(?<![\w<!-])--[a-z][a-z-]+\b|(?<=[\s(])-o(?= [A-Z])")
    outside = [path for path in MODULES if package_of(path) != "cli"]
    found = {relative(path): option.findall(path.read_text(encoding="utf-8")) for path in outside}
    assert {path: options for path, options in found.items() if options} == {}
