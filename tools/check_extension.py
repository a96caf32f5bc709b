"""Check the rules of Slicer's ExtensionsIndex, as far as this repository alone can show them.

``python -m tools.check_extension`` says what is wrong, one line each, and ends with 1 if anything is; then what a
reviewer would still ask. The rules follow scripts/check_description_files.py, scripts/extension_ai_analysis.py, the
schema and the pull-request template of Slicer/ExtensionsIndex (August 2026).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from tools.extension_questions import faults, questions

ROOT = Path(__file__).resolve().parents[1]
ENTRY = "BrainFusion.json"
SCHEMA = re.compile(
    r"https://raw\.githubusercontent\.com/Slicer/Slicer/main/Schemas/"
    r"slicer-extension-catalog-entry-schema-v1\.0\.2\.json#"
)
KEYS = {
    "$schema": str, "build_dependencies": list, "build_subdirectory": str, "category": str, "scm_revision": str,
    "scm_type": str, "scm_url": str, "enabled": bool, "tier": int, "dicom_support_rule": str,
}  # fmt: skip
REQUIRED = ("$schema", "category", "scm_url")
# Those of the index's categories that a fusion of head images could go into.
CATEGORIES = ("Neuroimaging", "Planning", "Registration")
REPOSITORY_PREFIXES = ("Slicer", "Slicer-", "Slicer_", "SlicerExtension-", "SlicerExtension_")
METADATA = ("HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS")
# The endings that the index takes, and what such a file has to be.
PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".gif": "GIF"}
ICON_PIXELS = (128, 128)
LARGEST_PICTURE, LARGEST_REPOSITORY = 5e6, 100 * 2**20  # bytes; the first is ours: the catalogue shows pictures whole
LICENCES = ("LICENSE", "LICENCE", "License.txt", "license.txt", "LICENSE.txt", "COPYING", "COPYING.txt")
TEXT_SUFFIXES = (".cmake", ".json", ".md", ".py", ".toml", ".txt", ".ui", ".svg", ".c", ".h")


def main() -> int:
    """Print what is wrong, and return the exit code."""
    found = list(problems(ROOT))
    for problem in found:
        print(problem)
    print(f"{ENTRY}: {len(found)} problems" if found else f"{ENTRY}: ready for the ExtensionsIndex")
    print("\nA reviewer would still ask:")
    for question in questions(ROOT):
        print(f"- {question}")
    return 1 if found else 0


def problems(root: Path) -> Iterator[str]:
    """Say what the index would object to, one sentence each."""
    entry_file = root / ENTRY
    try:
        entry = json.loads(entry_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        yield f"{ENTRY}: cannot be read: {error}"
        return
    cmake = (root / "CMakeLists.txt").read_text(encoding="utf-8")
    metadata = dict(re.findall(r'^set\(EXTENSION_(\w+) "([^"\n]+)"\)(?: #.*)?$', cmake, re.MULTILINE))
    yield from _entry_problems(entry)
    yield from _metadata_problems(cmake, metadata)
    yield from _agreement_problems(entry, cmake, metadata)
    yield from _picture_problems(root, entry, metadata)
    yield from _repository_problems(root)
    yield from faults(root)


def _entry_problems(entry: dict[str, Any]) -> Iterator[str]:
    for key in REQUIRED:
        if key not in entry:
            yield f"{ENTRY}: {key} is missing."
    for key, value in entry.items():
        if key not in KEYS:
            yield f"{ENTRY}: {key} is not in the schema."
        elif type(value) is not KEYS[key]:
            yield f"{ENTRY}: {key} must be of type {KEYS[key].__name__}."
    if not SCHEMA.fullmatch(str(entry.get("$schema"))):
        yield f"{ENTRY}: $schema must be the URL of Slicer's schema for catalog entries, 1.0.2."
    if entry.get("category") not in CATEGORIES:
        yield f"{ENTRY}: category must be one of {', '.join(CATEGORIES)}."
    if entry.get("tier", 1) not in range(1, 6):
        yield f"{ENTRY}: tier must be 1 to 5."
    if not re.match(r"(https|git)://", str(entry.get("scm_url"))):
        yield f"{ENTRY}: scm_url must begin with https:// or git://."
    if not _repository(entry).startswith(REPOSITORY_PREFIXES):
        yield f"{ENTRY}: the repository's name must begin with Slicer, and '{_repository(entry)}' does not."


def _metadata_problems(cmake: str, metadata: dict[str, str]) -> Iterator[str]:
    for key in METADATA:
        if key not in metadata:
            yield f'CMakeLists.txt: set(EXTENSION_{key} "...") is missing, or not on one line.'
    if cmake.count("set(EXTENSION_") != len(metadata):
        yield "CMakeLists.txt: a set(EXTENSION_...) goes over several lines, which the index does not read."
    if not re.fullmatch(r"[^,()]+ \([^()]+\)(, [^,()]+ \([^()]+\))*", metadata.get("CONTRIBUTORS", "")):
        yield "CMakeLists.txt: EXTENSION_CONTRIBUTORS must be 'Name (Organisation), Name (Organisation)'."
    if len(re.findall(r"[.!?](?:\s|$)", metadata.get("DESCRIPTION", ""))) not in (1, 2):
        yield "CMakeLists.txt: EXTENSION_DESCRIPTION must be one or two sentences."


def _agreement_problems(entry: dict[str, Any], cmake: str, metadata: dict[str, str]) -> Iterator[str]:
    name = Path(ENTRY).stem
    project = re.search(r"project\s*\(\s*([^\s)]+)", cmake)
    if project is None or project[1] != name:
        yield f"CMakeLists.txt: project() must be named as {ENTRY} is: {name}."
    if name.lower().startswith("slicer"):
        yield f"{ENTRY}: an extension's name must not begin with Slicer."
    depends = [word for word in metadata.get("DEPENDS", "").split() if word != "NA"]
    if entry.get("build_dependencies", []) != depends:
        yield f"{ENTRY}: build_dependencies must be those of CMakeLists.txt: {depends}."
    home = str(entry.get("scm_url")).removesuffix(".git")
    if metadata.get("HOMEPAGE") != home:
        yield f"CMakeLists.txt: EXTENSION_HOMEPAGE must be the repository, {home}."


def _picture_problems(root: Path, entry: dict[str, Any], metadata: dict[str, str]) -> Iterator[str]:
    home = re.sub(r"^https://github\.com/", "https://raw.githubusercontent.com/", metadata.get("HOMEPAGE", ""))
    raw = f"{home}/{entry.get('scm_revision', 'main')}/"
    for key in ("ICONURL", "SCREENSHOTURLS"):
        for url in metadata.get(key, "").split():
            path = root / url.removeprefix(raw)
            if not url.startswith(raw) or not path.is_file():
                yield f"CMakeLists.txt: EXTENSION_{key}: {url} is not the raw URL of a file of this repository."
                continue
            size = path.stat().st_size
            if size > LARGEST_PICTURE:
                yield f"{path.relative_to(root)}: {size / 1e6:.1f} MB is too large ({LARGEST_PICTURE / 1e6:.0f} MB)."
            try:
                with Image.open(path) as picture:
                    kind, pixels = picture.format, picture.size
            except OSError:
                kind, pixels = None, (0, 0)
            if kind is None or kind != PICTURES.get(path.suffix.lower()):
                yield f"{path.relative_to(root)}: must be a PNG, JPEG or GIF, and be named so."
            if key == "ICONURL" and pixels != ICON_PIXELS:
                yield f"{path.relative_to(root)}: an icon has 128 x 128 pixels, not {pixels[0]} x {pixels[1]}."


def _repository_problems(root: Path) -> Iterator[str]:
    if not any((root / name).is_file() for name in LICENCES):
        yield "LICENSE.txt: is missing."
    readme = (root / "README.md").read_text(encoding="utf-8") if (root / "README.md").is_file() else ""
    for what, wanted in (
        ("the extension's name", Path(ENTRY).stem), ("a picture", "]("), ("the licence's name", "Apache 2.0"),
        ("a link to the tutorial", "docs/tutorial.md"),
    ):  # fmt: skip
        if wanted not in readme:
            yield f"README.md: must have {what}, because the index sends people there."
    files = _files(root)
    # The index measures a whole clone: the files, and the history beside them.
    total = sum(path.stat().st_size for path in files) + _history_bytes(root)
    if total > LARGEST_REPOSITORY:
        yield f"the repository has {total / 2**20:.0f} MB; the index takes {LARGEST_REPOSITORY / 2**20:.0f}."
    for path in files:
        if path.suffix in TEXT_SUFFIXES and b"\r" in path.read_bytes():
            yield f"{path.relative_to(root)}: lines must end with LF alone."


def _repository(entry: dict[str, Any]) -> str:
    return str(entry.get("scm_url")).rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")


def _history_bytes(root: Path) -> int:
    """Return the size of git's objects; 0 without git."""
    counted = subprocess.run(["git", "-C", root, "count-objects", "-v"], capture_output=True, text=True).stdout
    return 1024 * sum(int(kib) for kib in re.findall(r"^size(?:-pack)?: (\d+)$", counted, re.MULTILINE))


def _files(root: Path) -> list[Path]:
    """Return the files that are in git; without git, all that are not hidden."""
    listed = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True)
    if listed.returncode == 0 and listed.stdout:
        paths = [root / name for name in listed.stdout.decode().split("\0") if name]
    else:
        paths = [p for p in root.rglob("*") if not any(part.startswith(".") for part in p.relative_to(root).parts)]
    return [path for path in paths if path.is_file()]


if __name__ == "__main__":
    sys.exit(main())
