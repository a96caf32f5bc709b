"""The panel's further sections: one file and one .ui file each, listed in `SECTIONS`, in the order of the panel."""

from __future__ import annotations

import slicer
import slicer.util

from BrainFusionSlicer.section import Section
from BrainFusionSlicer.section_correct import CorrectSection
from BrainFusionSlicer.section_landmarks import LandmarksSection
from BrainFusionSlicer.section_output import OutputSection
from BrainFusionSlicer.section_sign import SignSection

SECTIONS: tuple[type[Section], ...] = (CorrectSection, LandmarksSection, SignSection, OutputSection)


def add_sections(panel, uiWidget) -> list[Section]:
    """Make the sections of a panel and lay them out in its frame; they share its names and its scene."""
    sections = [made(panel) for made in SECTIONS]
    frame = slicer.util.childWidgetVariables(uiWidget).sectionsFrame
    for section in sections:
        frame.layout().addWidget(section.widget)
        section.widget.setMRMLScene(slicer.mrmlScene)
    frame.setVisible(bool(sections))
    return sections
