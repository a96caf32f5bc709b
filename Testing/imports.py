"""What Python files import, read from their text."""

from __future__ import annotations

import ast
from collections.abc import Set
from functools import cache
from pathlib import Path


@cache
def imports(path: Path, *, at_load_only: bool = False) -> frozenset[str]:
    """Return the dotted names that a module imports, those for types included; `at_load_only` leaves those out."""
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"), filename=str(path))]
    while todo:
        node = todo.pop()
        if at_load_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if at_load_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            module = node.module or ""
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        todo.extend(ast.iter_child_nodes(node))
    return frozenset(found)


def roots(names: Set[str]) -> set[str]:
    """Return the top-level names."""
    return {name.split(".")[0] for name in names}
