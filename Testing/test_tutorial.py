"""The tutorial, and the steps of the README, name the controls of the panel as the panel does."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
STEPS = (ROOT / "README.md").read_text(encoding="utf-8").split("## Five steps")[1].split("## ")[0]
NAMED = sorted(set(re.findall(r"\*\*([^*]+)\*\*", TUTORIAL + STEPS)) - {"bold", "Your own", "Our sample"})


def shown():
    """All texts of the panel's controls, without the colon of a field."""
    files = sorted((ROOT / "BrainFusion" / "Resources" / "UI").glob("*.ui"))
    roots = [ElementTree.parse(path).getroot() for path in files]
    return {text.text.rstrip(":") for root in roots for text in root.iter("string") if text.text}


@pytest.mark.parametrize("name", NAMED)
def test_what_the_tutorial_names_is_in_the_panel(name):
    assert name in shown()


def test_the_tutorial_goes_as_far_as_the_archive():
    assert {"Fuse", "Approve", "Export as DICOM…", "Into Slicer's DICOM database"} <= set(NAMED)
