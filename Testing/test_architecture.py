"""The rules of docs/ARCHITECTURE.md, read from its table and held against the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "BrainFusionLib"
TORCH_ROOMS = {"network", "slices", "resample", "registration"}
FORBIDDEN = {"slicer", "vtk", "qt", "ctk", "training"}
MODULES = sorted(p for p in LIBRARY.rglob("*.py") if p.parent != LIBRARY or p.stem not in ("__init__", "__main__"))


def levels() -> dict[str, int]:
    """Return the level of every room, from the table."""
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| L(\d+) \| (.+?) \|", page, flags=re.MULTILINE)
    return {room: int(level) for level, rooms in rows for room in re.findall(r"`(\w+)`", rooms)}


def room_of(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imports(tree: ast.AST, *, at_load_only: bool) -> set[str]:
    """Return the dotted names that a module imports, but for those under ``if TYPE_CHECKING``."""
    found: set[str] = set()
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if at_load_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found |= {f"{module}.{alias.name}" if module == "BrainFusionLib" else module for alias in node.names}
        todo.extend(ast.iter_child_nodes(node))
    return found


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def test_the_table_names_every_room_and_no_other() -> None:
    assert set(levels()) == {room_of(path) for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_a_module_imports_only_from_lower_levels_or_its_own_room(path: Path) -> None:
    table, room = levels(), room_of(path)
    for name in imports(parsed(path), at_load_only=False):
        parts = name.split(".")
        if parts[0] == "BrainFusionLib" and len(parts) > 1 and parts[1] != room and not parts[1].startswith("__"):
            assert parts[1] in table, f"{name}: import from a room by its full name"
            assert table[parts[1]] < table[room], f"{room} (L{table[room]}) must not import {parts[1]}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_only_the_rooms_that_compute_import_torch_at_load(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(parsed(path), at_load_only=True)}
    assert "torch" not in roots or room_of(path) in TORCH_ROOMS


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_the_library_knows_nothing_of_slicer_and_of_training(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(parsed(path), at_load_only=False)}
    assert not roots & FORBIDDEN


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_no_file_grows_beyond_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
