"""The panel's further sections: what the panel promises each of them."""

import pytest
import slicer
from window import opened_panel

CALLS = ("setup", "update", "put_away", "forget")


@pytest.fixture
def noted(module, monkeypatch, tmp_path):
    """The panel with one section, whose calls are noted; (widget, calls)."""
    from BrainFusionSlicer import sections
    from BrainFusionSlicer.section import Section

    (tmp_path / "Toy.ui").write_text(
        '<ui><widget class="qMRMLWidget" name="Toy"><layout class="QVBoxLayout"><item>'
        '<widget class="QPushButton" name="toyButton"/></item></layout></widget>'
        "<customwidgets><customwidget><class>qMRMLWidget</class></customwidget></customwidgets></ui>"
    )
    calls = []

    class Toy(Section):
        UI = "Toy"

        def __init__(self, panel):
            monkeypatch.setattr(panel, "resourcePath", lambda name: str(tmp_path / "Toy.ui"))
            super().__init__(panel)

    for name in CALLS:
        setattr(Toy, name, lambda section, name=name: calls.append(name))
    monkeypatch.setattr(sections, "SECTIONS", (Toy,))
    with opened_panel(module) as widget:
        yield widget, calls


def test_a_section_is_set_up_before_it_is_updated(noted):
    assert noted[1][0] == "setup"
    assert "update" in noted[1]


def test_the_panel_knows_a_sections_widgets_by_name(noted):
    assert noted[0].ui.toyButton.objectName == "toyButton"


def test_leaving_the_panel_has_a_section_put_away_what_is_temporary(noted):
    widget, calls = noted
    widget.exit()
    assert "put_away" in calls


def test_closing_the_scene_has_a_section_let_go_of_its_nodes(noted):
    slicer.mrmlScene.Clear(False)
    assert "forget" in noted[1]
