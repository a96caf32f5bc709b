"""The questions that reviewers of Slicer's ExtensionsIndex ask about the code, answered from the code.

They are those of scripts/extension_ai_analysis.py and of the pull-request template of Slicer/ExtensionsIndex (07f1d1b,
August 2026). `faults` are answers that a reviewer would refuse; `questions` are what he would still ask a person.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

SHIPPED = ("BrainFusion", "BrainFusionLib")
# What Slicer's Python brings; the index's own list, and the two that Slicer ships besides (Slicer 5.12: SuperBuild).
WITH_SLICER = {"slicer", "vtk", "qt", "ctk", "mrml", "SimpleITK", "numpy", "scipy", "pydicom", "PIL", "DICOMLib"}
OURS = {"BrainFusionLib", "BrainFusionSlicer", "BrainFusion"}
NETWORK = {
    "distributed", "ftplib", "http.client", "http.server", "requests", "smtplib", "socket", "urllib.request",
    "websocket",
}  # fmt: skip
# What these files do with the network; a shipped file without a line here is printed with a question mark.
CONNECTIONS = {
    "BrainFusionLib/cohort/review_server.py": "listens on 127.0.0.1 alone",
    "BrainFusionLib/cohort/running.py": "sends a cohort's cases to the Dask scheduler that the user names",
    "BrainFusionLib/stopping.py": "a pair of sockets within the process, on Windows",
}
# What a user has to add; a file that imports one is itself imported only where it is used.
OPTIONAL = {"torch"}
BINARIES = {
    ".so", ".dll", ".dylib", ".exe", ".pyd", ".a", ".lib", ".o", ".whl", ".jar", ".zip", ".gz", ".pt", ".pth", ".pkl",
}  # fmt: skip
SECTIONS = ("Modules", "How to cite", "Install in Slicer")
# What no file of a repository can show.
FOR_PEOPLE = (
    "The repository is public and has the topic 3d-slicer-extension.",
    "Wiki, Projects, Discussions, Releases and Packages are switched off where they are not used.",
    "Icon, screenshots and homepage load from their URLs.",
    "The extension was built, packaged and tried on Windows, macOS and Linux (tier 3).",
    "Issues, pull requests and mentions in the forum are answered (tier 3).",
)


def faults(root: Path) -> Iterator[str]:
    """Say what a reviewer would refuse in the code and the README, one sentence each."""
    readme = (root / "README.md").read_text(encoding="utf-8") if (root / "README.md").is_file() else ""
    for section in SECTIONS:
        if not re.search(rf"^#+ {section}\b", readme, re.MULTILINE | re.IGNORECASE):
            yield f"README.md: has no section {section!r}."
    modules = re.split(r"^#+ Modules\b.*$", readme, maxsplit=1, flags=re.MULTILINE)[-1]
    for module in _modules(root):
        if module not in modules:
            yield f"README.md: the section Modules must have a sentence on {module}."
    for path in _sources(root):
        name = path.relative_to(root).as_posix()
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        lines = text.splitlines()
        for statement in _run_at_import(tree):
            if not _has_reason(lines, statement):
                yield f"{name}:{statement.lineno}: runs when it is imported; say why in a comment above it."
        for package, line in _imported_at_load(tree):
            if package not in WITH_SLICER | OURS | OPTIONAL | sys.stdlib_module_names:
                yield f"{name}:{line}: imports {package} at file scope, which does not come with Slicer."
        if re.search(r"\bpip_install\b|-m\W+pip\W", text) and "PyTorchUtils" not in text:
            yield f"{name}: installs a package by itself."
    for path in _tracked(root):
        if path.suffix in BINARIES:
            yield f"{path.relative_to(root)}: a binary in the repository."


def questions(root: Path) -> list[str]:
    """Return what a reviewer would still ask, with what the code says to it."""
    shipped = set(_sources(root))
    others = [path for path in _tracked(root) if path.suffix == ".py" and path not in shipped]
    needing = {path.parent.relative_to(root).as_posix() for path in _sources(root) if _needs_optional(path)}
    data = [p for p in _tracked(root) if p.suffix == ".npz"]
    size = sum(p.stat().st_size for p in data) / 1e6
    return [
        f"Which files can open a network connection, and what is sent? {_network(root, shipped) or 'None.'}",
        f"And which that are not shipped (the analysis reads all files)? {_network(root, others) or 'None.'}",
        f"Where is {', '.join(OPTIONAL)} imported at file scope? {', '.join(sorted(needing)) or 'Nowhere.'}",
        f"Which files are data? {len(data)} with the network's weights, {size:.1f} MB, read without unpickling.",
        *FOR_PEOPLE,
    ]


def _network(root: Path, paths: Iterable[Path]) -> str:
    found = set()
    for path in paths:
        name = path.relative_to(root).as_posix()
        use = "" if path.parts[len(root.parts)] not in SHIPPED else f": {CONNECTIONS.get(name, '?')}"
        modules = NETWORK.intersection(_all_imports(ast.parse(path.read_text(encoding="utf-8"))))
        found |= {f"{name} ({module}{use})" for module in modules}
    return ", ".join(sorted(found))


def _modules(root: Path) -> list[str]:
    """Return the scripted modules: folders with a CMakeLists.txt and a file of their own name."""
    folders = [path.parent for path in sorted(root.glob("*/CMakeLists.txt"))]
    return [folder.name for folder in folders if (folder / f"{folder.name}.py").is_file()]


def _needs_optional(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(package in OPTIONAL for package, _ in _imported_at_load(tree))


def _sources(root: Path) -> list[Path]:
    return sorted(path for folder in SHIPPED for path in (root / folder).rglob("*.py"))


def _run_at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the bare calls, loops and with-blocks at file scope; not what runs as a program."""
    for statement in tree.body:
        is_call = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
        if is_call or isinstance(statement, ast.For | ast.While | ast.With):
            yield statement


def _has_reason(lines: list[str], statement: ast.stmt) -> bool:
    """Say whether a comment stands on the statement's line, or before it in its paragraph."""
    line = statement.lineno - 1
    while lines[line].strip():  # a file begins with its docstring, not with a statement
        if "#" in lines[line]:
            return True
        line -= 1
    return False


def _imported_at_load(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the packages imported at file scope, with their lines; imports for types only are left out."""
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            yield from ((alias.name.partition(".")[0], statement.lineno) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and not statement.level:
            yield (statement.module or "").partition(".")[0], statement.lineno


def _all_imports(tree: ast.Module) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _tracked(root: Path) -> list[Path]:
    """Return the files that are in git; none without git."""
    listed = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True)
    paths = [root / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]
