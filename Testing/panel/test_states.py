"""The list of the panel's states names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_transition_in_the_list_has_its_test():
    rows = [
        line for line in (ROOT / "docs" / "panel.md").read_text(encoding="utf-8").splitlines() if "| `test_" in line
    ]
    named = {name for row in rows for name in re.findall(r"`(test_\w+)`", row)}
    files = sorted(Path(__file__).parent.glob("test_*.py"))
    there = {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.M)}
    assert len(rows) >= 17
    assert named <= there


def test_the_module_asks_no_scene_for_its_nth_node():
    """Each such call counts from the first node: a panel was frozen for a third of a second in a scene of 3000."""
    files = (ROOT / "BrainFusion").rglob("*.py")
    asking = [file.name for file in files if re.search(r"\.GetNthNode(ByClass)?\(", file.read_text(encoding="utf-8"))]
    assert asking == []
